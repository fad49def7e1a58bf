//! Mounted applications: an axum `Router` and other tower services, in the test client and over a socket.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::Path;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_sdk::extract::{Context, ContextPath, InitParams, RemoteAddr, RequestId};
use wharf_sdk::{App, Body, BoxError, ContainerInfo, Error, ServletContext, TestClient, serve_until};

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "root" }))
        .route("/items/{name}", get(|Path(name): Path<String>| async move { name }))
        .route("/echo", axum::routing::post(|body: AxumBody| async move { AxumBody::new(body) }))
        .route("/uri", get(|uri: axum::http::Uri| async move { uri.to_string() }))
        .route(
            "/gifts",
            get(
                |ContextPath(path): ContextPath,
                 RequestId(id): RequestId,
                 InitParams(all): InitParams,
                 RemoteAddr(peer): RemoteAddr,
                 context: Context| async move {
                    format!("{path} {id} {all:?} {} {}", peer.is_some(), context.is_trial())
                },
            ),
        )
        .route("/panic", get(|| async { panic!("in a handler") as &str }))
}

#[tokio::test]
async fn a_router_sees_paths_within_its_context() {
    let client = TestClient::new(router()).context_path("/shop").init("a", "1").start().await.unwrap();
    for (path, status, text) in [
        ("/", 200, "root"),
        ("", 302, ""),
        ("/items/green%20tea", 200, "green tea"),
        ("/./items//tea;id=1", 200, "tea"),
        ("/uri?a=%20b", 200, "/uri?a=%20b"),
        ("/nothing", 404, ""),
        ("/%2e%2e/secret", 400, "the path contains an encoded dot segment"),
        ("/panic", 500, ""),
    ] {
        let response = client.get(path).send().await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.text().await, text, "{path}");
    }
    let gifts = client.get("/gifts").send().await.text().await;
    assert!(gifts.starts_with("/shop local-") && gifts.ends_with(" {\"a\": \"1\"} true false"), "{gifts}");
}

#[tokio::test]
async fn bodies_stream_through_both_ways() {
    let client = TestClient::new(router()).start().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, BoxError>>(1);
    let body = Body::from_stream(Channel(receiver));
    let mut response = client.post("/echo").body(body).send().await;
    for number in 0..5 {
        // Each chunk arrives before the next one is sent: nothing is gathered on the way.
        sender.send(Ok(format!("chunk {number}"))).await.unwrap();
        assert_eq!(response.chunk().await.unwrap(), format!("chunk {number}"));
    }
    drop(sender);
    assert!(response.chunk().await.is_none());
}

#[tokio::test]
async fn outside_a_container_extractors_say_so() {
    use tower::ServiceExt;
    let request = axum::http::Request::get("/gifts").body(AxumBody::empty()).unwrap();
    assert_eq!(router().oneshot(request).await.unwrap().status(), 500);
}

#[tokio::test]
async fn any_tower_service_and_any_result_of_one_can_be_mounted() {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let info = request.extensions().get::<ContainerInfo>().expect("the container's gifts").clone();
        Ok::<_, Infallible>(http::Response::new(Body::from(format!("{} {}", info.request_uri(), request.uri()))))
    });
    let made: Result<_, Error> = Ok(service);
    let client = TestClient::new(made.map_err(|_| "never")).context_path("/a").start().await.unwrap();
    assert_eq!(client.get("/b?c").send().await.text().await, "/a/b /b?c");

    let failing = tower::service_fn(|_: http::Request<Body>| async { Err::<http::Response<Body>, _>("out of order") });
    let client = TestClient::new(failing).start().await.unwrap();
    assert_eq!(client.get("/").send().await.status(), 500);

    let unmade: Result<App, &str> = Err("no database");
    assert_eq!(TestClient::new(unmade).start().await.err().unwrap().to_string(), "no database");
}

#[tokio::test]
async fn functions_may_ask_for_the_context() {
    fn app(context: &ServletContext) -> Result<App, BoxError> {
        let text = context.init_parameter("text").ok_or("init parameter 'text' is missing")?.to_owned();
        Ok(App::new().servlet("text", "/", wharf_sdk::get(move |_| std::future::ready(text.clone()))))
    }
    let client = TestClient::from_fn(app).init("text", "hi").start().await.unwrap();
    assert_eq!(client.get("/x").send().await.text().await, "hi");
    assert!(TestClient::from_fn(app).start().await.is_err());
    assert!(TestClient::from_fn(router).start().await.is_ok());
}

#[tokio::test]
async fn it_serves_alone_and_stops_when_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve_until(router(), listener, async { drop(stopped.await) }));

    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = "GET /items/tea HTTP/1.1\r\nhost: x\r\n\r\nGET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\n\r\ntea"), "{answer}");
    assert!(answer.contains("HTTP/1.1 404 Not Found\r\n") && answer.ends_with("404 Not Found\n"), "{answer}");

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

struct Channel<T>(tokio::sync::mpsc::Receiver<T>);

impl<T> futures_core::Stream for Channel<T> {
    type Item = T;
    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// Servlet 6.1, section 13.3, for handlers of a router and for servlets.
#[tokio::test]
async fn the_user_is_seen_by_handlers_and_servlets() {
    use wharf_sdk::extract::User;
    async fn handler(User(user): User) -> String {
        user.map_or("nobody".into(), |user| {
            let roles: Vec<_> = user.roles().collect();
            format!("{} {} {roles:?} {}", user.name(), user.auth_type(), user.is_in_role("dev"))
        })
    }
    async fn servlet(request: wharf_sdk::Request) -> String {
        format!("{:?} {} {}", request.remote_user(), request.is_user_in_role("dev"), request.is_user_in_role("**"))
    }
    let router = axum::Router::new().route("/", axum::routing::get(handler));
    let client = TestClient::new(router).start().await.unwrap();
    assert_eq!(client.get("/").send().await.text().await, "nobody");
    let known = client.get("/").user("ann", &["dev", "ops"]).send().await;
    assert_eq!(known.text().await, "ann BASIC [\"dev\", \"ops\"] true");
    let client = TestClient::new(App::new().servlet("who", "/", wharf_sdk::get(servlet))).start().await.unwrap();
    assert_eq!(client.get("/").send().await.text().await, "None false false");
    assert_eq!(client.get("/").user("ann", &["ops"]).send().await.text().await, "Some(\"ann\") false true");
}
