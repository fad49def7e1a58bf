//! WebSockets and other upgrades without a container: in `TestClient` and in `serve`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_sdk::{
    App, Filter, Message, Next, Request, Response, SendError, TestClient, TestSocket, Upgraded, WebSocket, any,
    filter_fn, get, serve_until, websocket,
};

async fn open(app: App, path: &str) -> TestSocket {
    let client = TestClient::new(app).start().await.unwrap();
    client.get(path).websocket().await.unwrap()
}

fn at(path: &'static str, servlet: wharf_sdk::WebSocketServlet) -> App {
    App::new().servlet("socket", path, servlet)
}

async fn text(socket: &mut TestSocket) -> String {
    socket.recv().await.unwrap().as_text().unwrap().to_owned()
}

#[tokio::test]
async fn halves_can_be_used_apart_and_kept_by_others() {
    let app = at(
        "/x",
        websocket(|socket: WebSocket, request: Request| async move {
            assert_eq!((request.servlet_path(), request.parameter("a").as_deref()), ("/x", Some("1")));
            let (sender, mut receiver) = socket.split();
            let other = sender.clone();
            let ticks = tokio::spawn(async move {
                for n in 0..3 {
                    other.send(format!("tick {n}")).await.unwrap();
                }
            });
            let first = receiver.recv().await;
            ticks.await.unwrap();
            sender.send(first.unwrap()).await.unwrap();
            drop(receiver);
            sender.close(4000, "enough").await;
            // Nothing can be sent afterwards, and it says why.
            while !sender.is_closed() {
                tokio::task::yield_now().await;
            }
            let Err(SendError::Closed(reason)) = sender.send("late").await else { panic!("it was sent") };
            assert_eq!((reason.code, reason.text.as_str()), (4000, "enough"));
        }),
    );
    let mut socket = open(app, "/x?a=1").await;
    for n in 0..3 {
        assert_eq!(text(&mut socket).await, format!("tick {n}"));
    }
    socket.send(vec![1, 2, 3]).await.unwrap();
    assert_eq!(socket.recv().await, Some(Message::Binary(vec![1, 2, 3].into())));
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_reason().unwrap().to_string(), "4000: enough");
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_up_nobody_who_does_not_wait_for_it() {
    let app = at(
        "/x",
        websocket(|socket: WebSocket, _: Request| async move {
            let sender = socket.sender();
            let mut sent = 0_u32;
            // Nobody drives the connection meanwhile: the queue fills up.
            while sender.try_send("x").is_ok() {
                sent += 1;
            }
            assert_eq!((sent, sender.try_send("x")), (32, Err(SendError::Full)));
            // All that waits is sent before the goodbye.
        }),
    );
    let mut socket = open(app, "/x").await;
    for _ in 0..32 {
        assert_eq!(text(&mut socket).await, "x");
    }
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_reason().unwrap().code, 1000);
}

#[tokio::test]
async fn the_goodbye_of_the_client_is_seen() {
    let app = at(
        "/x",
        websocket(|mut socket: WebSocket, request: Request| async move {
            assert!(socket.recv().await.is_none() && socket.close_reason().unwrap().code == 3000);
            request.context().set_attribute(socket.close_reason().unwrap());
        }),
    );
    let client = TestClient::new(app).start().await.unwrap();
    let mut socket = client.get("/x").websocket().await.unwrap();
    socket.close(3000, "tschüß").await.unwrap();
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_reason().unwrap().code, 3000);
    let reason = client.context().attribute::<wharf_sdk::CloseReason>().unwrap();
    assert_eq!(reason.to_string(), "3000: tschüß");
}

// Time stands still in this test and moves on when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn time_limits_are_kept() {
    let idle = at(
        "/x",
        websocket(|mut socket: WebSocket, _: Request| async move { while socket.recv().await.is_some() {} })
            .idle_timeout(Duration::from_secs(60)),
    );
    let mut socket = open(idle, "/x").await;
    let begin = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(50)).await;
    socket.send("still here").await.unwrap();
    // It is pinged meanwhile, and answers; that does not count.
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_reason().unwrap().to_string(), "1000: idle");
    assert_eq!(begin.elapsed().as_secs(), 110);
}

#[tokio::test]
async fn a_filter_stands_before_a_websocket_and_leaves_its_upgrade_alone() {
    fn stamp() -> impl Filter {
        filter_fn(|request: Request, next: Next| async move { next.run(request).await?.header("x-seen", "1") })
    }
    let app = at(
        "/x",
        websocket(|socket: WebSocket, _: Request| async move {
            let _ = socket.send("hello").await;
        }),
    )
    .filter("stamp", "/*", stamp());
    let mut socket = open(app, "/x").await;
    assert_eq!(socket.headers()["x-seen"], "1");
    assert_eq!(text(&mut socket).await, "hello");
}

fn router() -> axum::Router {
    use axum::extract::ws;
    let echo = |upgrade: ws::WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket: ws::WebSocket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, ws::Message::Text(_)) && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    axum::Router::new().route("/axum", axum::routing::any(echo))
}

#[tokio::test]
async fn an_axum_websocket_works_unchanged() {
    let client = TestClient::new(router()).start().await.unwrap();
    let mut socket = client.get("/axum").websocket().await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
    // The application knows nothing of it: the goodbye is said for it.
    client.context().begin_draining();
    assert!(socket.recv().await.is_none());
    assert_eq!(socket.close_reason().unwrap().code, 1001);
}

#[tokio::test]
async fn served_without_a_container_upgrades_work_and_end_with_the_server() {
    let raw = |request: Request| async {
        let context = request.context().clone();
        request.upgrade("shout", |mut stream: Upgraded| async move {
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word.to_ascii_uppercase()).await.unwrap();
            context.draining().await;
            stream.write_all(b"bye").await.unwrap();
        })
    };
    let app = App::new()
        .servlet("raw", "/raw", get(raw))
        .servlet("plain", "/plain", any(|_| async { Response::text("plain") }))
        .mount("axum", "/axum", router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve_until(app, listener, async {
        let _ = stopped.await;
    }));
    let send = |path: &'static str, protocol: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    };
    let (mut shout, head) = send("/raw", "shout").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: shout"), "{head}");
    shout.write_all(b"hello").await.unwrap();
    let mut word = [0; 5];
    shout.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"HELLO");
    let (_, head) = send("/raw", "websocket").await;
    assert!(head.starts_with("HTTP/1.1 426 ") && head.contains("upgrade: shout"), "{head}");
    let (_, head) = send("/plain", "websocket").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (mut socket, head) = send("/axum", "websocket").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    shout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
    let mut close = [0; 4];
    socket.read_exact(&mut close).await.unwrap();
    assert_eq!(close, [0x88, 2, 3, 0xe9]);
    socket.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]).await.unwrap();
    server.await.unwrap().unwrap();
}
