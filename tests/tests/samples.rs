//! The sample applications in one container, used as a browser would.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_tests::{Client, Database, Engine, RawSocket, Site, Wharf, library};

fn samples(site: Site) -> Site {
    site.with("deploy/hello.so", library("hello"))
        .with("deploy/hello.toml", "[init]\ngreeting = \"Ahoy\"\n")
        .with("deploy/todo.so", library("axum-todo"))
        .with("deploy/transfer.so", library("transfer"))
        .with("deploy/guestbook.so", library("guestbook"))
        .with("deploy/clock.so", library("clock"))
        .with("deploy/chat.so", library("chat"))
        .with("deploy/shop.so", library("shop"))
        .with("wharf.toml", "[resource.shop]\nkind = \"sql\"\nurl = \"sqlite:shop.db\"\n")
}

#[test]
fn all_samples_side_by_side() {
    let wharf = samples(Site::new()).start(&["--set", "server.limits.body=209715200"]);
    for app in wharf.list() {
        assert_eq!(app["state"], "serving", "{app}");
    }
    hello(&wharf);
    todo(&wharf);
    guestbook(&wharf);
    clock(&wharf);
    chat(&wharf);
    transfer(&wharf);
    shop(&wharf);
    assert_eq!(wharf.mapped().len(), 7);
    assert!(!wharf.log().contains("ERROR"), "{}", wharf.log());
}

fn hello(wharf: &Wharf) {
    let mut client = wharf.connect();
    let first = client.get("/hello/").unwrap();
    assert_eq!((first.status, first.text().as_str()), (200, "Ahoy, world!\n"));
    assert_eq!(client.get("/hello/hello?name=Ada%20L").unwrap().text(), "Ahoy, Ada L!\n");
    let when = first.header("last-modified").unwrap().to_owned();
    let again = client.send("GET", "/hello/", &[("If-Modified-Since", &when)], b"").unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
    let bare = client.get("/hello?name=x").unwrap();
    assert!(matches!(bare.status, 301 | 302 | 307 | 308), "{bare:?}");
    assert_eq!(bare.header("location"), Some("/hello/?name=x"));
    assert_eq!(client.get("/hello/nothing").unwrap().status, 404);
    assert_eq!(client.get("/hellox").unwrap().status, 404);
}

fn chat(wharf: &Wharf) {
    assert!(wharf.get("/chat/").text().contains("new WebSocket"));
    let enter = |name: &str| {
        let origin = [("Origin", "http://localhost")];
        let mut socket = RawSocket::open(wharf.addr(), &format!("/chat/talk?name={name}"), &origin).unwrap();
        let (here, said) = (socket.recv_text(), socket.recv_text());
        assert_eq!(socket.recv_text(), format!("{{\"kind\":\"joined\",\"name\":\"{name}\"}}"));
        (socket, here, said)
    };
    let (mut ada, ..) = enter("Ada");
    let (mut bob, here, _) = enter("Bob");
    assert_eq!(here, r#"{"kind":"here","names":["Ada"]}"#);
    assert_eq!(ada.recv_text(), r#"{"kind":"joined","name":"Bob"}"#);
    bob.text("hello").unwrap();
    let said = r#"{"kind":"said","name":"Bob","text":"hello"}"#;
    assert_eq!((ada.recv_text().as_str(), bob.recv_text().as_str()), (said, said));
    // Both are told of a new version, and find it.
    assert_eq!(wharf.cli(&["reload", "chat"]).code, 0);
    assert_eq!((ada.closed().unwrap(), bob.closed().unwrap()), (1001, 1001));
    let (_ada, here, said) = enter("Ada");
    assert_eq!((here.as_str(), said.as_str()), (r#"{"kind":"here","names":[]}"#, "[]"));
    wharf.wait_alone("chat");
}

fn todo(wharf: &Wharf) {
    let mut client = wharf.connect();
    assert!(client.get("/todo/").unwrap().header("content-type").unwrap().starts_with("text/html"));
    let mut send = |method: &str, path: &str, body: Option<Value>| {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let headers = [("Content-Type", "application/json")];
        let headers = if body.is_empty() { &[][..] } else { &headers };
        let answer = client.send(method, path, headers, body.as_bytes()).unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    };
    assert_eq!(send("GET", "/todo/todos", None), (200, json!([])));
    let made = json!({ "id": 1, "title": "buy milk", "done": false });
    assert_eq!(send("POST", "/todo/todos", Some(json!({ "title": " buy milk " }))), (201, made.clone()));
    assert_eq!(send("POST", "/todo/todos", Some(json!({ "title": " " }))).0, 422);
    assert_eq!(send("GET", "/todo/todos/1", None), (200, made));
    let done = json!({ "id": 1, "title": "buy milk", "done": true });
    assert_eq!(send("PATCH", "/todo/todos/1", Some(json!({ "done": true }))), (200, done.clone()));
    assert_eq!(send("GET", "/todo/todos", None), (200, json!([done])));
    assert_eq!(send("PUT", "/todo/todos/1", Some(json!({}))).0, 405);
    assert_eq!(send("DELETE", "/todo/todos/1", None).0, 204);
    assert_eq!(send("GET", "/todo/todos/1", None).0, 404);
}

fn guestbook(wharf: &Wharf) {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let posted = wharf.send("POST", "/guestbook/", &form, b"name=Ada+%26+Co&message=%3Cscript%3E");
    assert_eq!((posted.status, posted.header("location")), (303, Some("./")));
    // The guest is remembered, over a new version too.
    let cookie = posted.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(wharf.cli(&["reload", "guestbook"]).code, 0);
    let page = wharf.send("GET", "/guestbook/", &[("Cookie", &cookie)], b"").text();
    assert!(page.contains("Thank you, Ada &#38; Co!") && page.contains("value=\"Ada &#38; Co\""), "{page}");
    // Its entries were of the version before.
    assert_eq!(wharf.send("POST", "/guestbook/", &form, b"name=Ada+%26+Co&message=%3Cscript%3E").status, 303);
    let page = wharf.get("/guestbook/");
    assert!(page.text().contains("Ada &#38; Co") && page.text().contains("&#60;script&#62;"), "{}", page.text());
    assert!(page.header("content-security-policy").is_some());
    assert_eq!(wharf.send("POST", "/guestbook/", &form, b"name=&message=x").status, 422);
    assert_eq!(wharf.send("POST", "/guestbook/", &[], b"name=x").status, 415);
}

fn shop(wharf: &Wharf) {
    let form = |path: &str, cookie: &str, body: &str| {
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Cookie", cookie)];
        wharf.send("POST", &format!("/shop/{path}"), &headers, body.as_bytes())
    };
    assert!(wharf.get("/shop/").text().contains("Brass bell"));
    let put = form("cart", "", "product=5&quantity=1");
    assert_eq!(put.status, 303, "{}", put.text());
    let cookie = put.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(form("cart", &cookie, "product=1&quantity=2").status, 303);
    assert_eq!(form("cart", &cookie, "product=1&quantity=-1").status, 422);
    // The cart and the goods outlive a version.
    assert_eq!(wharf.cli(&["reload", "shop"]).code, 0);
    let page = wharf.send("GET", "/shop/", &[("Cookie", &cookie)], b"").text();
    assert!(page.contains("2 × Anchor") && page.contains("307.00 €"), "{page}");
    let bought = form("buy", &cookie, "name=Ada+%3CL%3E");
    let order = bought.header("location").unwrap().strip_prefix("./").unwrap().to_owned();
    let order = wharf.get(&format!("/shop/{order}")).text();
    assert!(order.contains("Thank you, Ada &#60;L&#62;!") && order.contains("307.00 €"), "{order}");
    assert_eq!(form("buy", &cookie, "name=Ada").status, 409);
    // The bell is gone, and nothing of an order that wants another is done.
    form("cart", &cookie, "product=2&quantity=3");
    form("cart", &cookie, "product=5&quantity=1");
    assert_eq!(form("buy", &cookie, "name=Ada").header("location"), Some("./"));
    let page = wharf.send("GET", "/shop/", &[("Cookie", &cookie)], b"").text();
    assert!(page.contains("not so much left of: Brass bell") && page.contains("sold out"), "{page}");
    assert!(page.contains(">40<"), "{page}");
}

#[test]
fn the_shop_on_another_database() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(database) = Database::start(engine) else { continue };
        let text = format!("[resource.shop]\nkind = \"sql\"\nurl = \"{}\"\n", database.url());
        let site = Site::new().with("deploy/shop.so", library("shop")).with("wharf.toml", text);
        shop(&site.start(&[]));
    }
}

fn clock(wharf: &Wharf) {
    let mut client = wharf.connect();
    client.write("GET", "/clock/events", &[], b"").unwrap();
    let begin = Instant::now();
    let head = client.read_head().unwrap();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for _ in 0..2 {
        let event = String::from_utf8(client.read_chunk().unwrap().unwrap()).unwrap();
        assert!(event.starts_with("event: tick\nretry: 1000\ndata: ") && event.ends_with("\n\n"), "{event:?}");
    }
    let took = begin.elapsed();
    // The first at once, the second after a second: nothing holds them back.
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    // A new version does not wait until the stream has had all its events.
    assert_eq!(wharf.cli(&["reload", "clock"]).code, 0);
    while client.read_chunk().unwrap().is_some() {}
    wharf.wait_alone("clock");
}

const SIZE: u64 = 50 << 20;

/// Sends 50 MB in pieces, reads them back, and looks at the memory of the server meanwhile.
fn transfer(wharf: &Wharf) {
    let mut client = wharf.connect();
    // What is made once, by the first transfer.
    upload(&mut client, "small", 1 << 20);
    let before = wharf.resident_kib();
    let (status, digest) = upload(&mut client, "large", SIZE);
    assert_eq!(status, 201);
    client.write("GET", "/transfer/files/large", &[], b"").unwrap();
    let head = client.read_head().unwrap();
    assert_eq!(head.header("content-length"), Some(&*SIZE.to_string()));
    assert_eq!(head.header("repr-digest").map(str::to_owned), digest);
    client.skip(SIZE / 2).unwrap();
    let during = wharf.resident_kib();
    client.skip(SIZE / 2).unwrap();
    client.write("GET", &format!("/transfer/zeros?bytes={SIZE}"), &[], b"").unwrap();
    client.read_head().unwrap();
    client.skip(SIZE).unwrap();
    let after = wharf.resident_kib();
    let growth = during.max(after).saturating_sub(before);
    println!("transfer: {before} KiB before, {during} KiB during, {after} KiB after");
    assert!(growth < 12 * 1024, "{growth} KiB more for 50 MB");
    assert_eq!(client.send("DELETE", "/transfer/files/large", &[], b"").unwrap().status, 204);
    assert_eq!(client.get("/transfer/files/large").unwrap().status, 404);
}

fn upload(client: &mut Client, name: &str, size: u64) -> (u16, Option<String>) {
    let length = size.to_string();
    client.write("PUT", &format!("/transfer/files/{name}"), &[("Content-Length", &length)], b"").unwrap();
    let piece: Vec<u8> = (0..64 << 10).map(|n| (n % 251) as u8).collect();
    for _ in 0..size / piece.len() as u64 {
        client.write_raw(&piece).unwrap();
    }
    let answer = client.read("PUT").unwrap();
    assert_eq!(answer.text(), format!("{size} bytes\n"));
    (answer.status, answer.header("repr-digest").map(str::to_owned))
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_next_connection_served() {
    let wharf = Site::new().with("deploy/transfer.so", library("transfer")).start(&[]);
    let answer = wharf.send("PUT", "/transfer/files/x", &[("Content-Length", "10737418240")], b"");
    assert_eq!((answer.status, answer.is_last()), (413, true));
    assert_eq!(wharf.get("/transfer/files/x").status, 404);
    assert_eq!(wharf.send("PUT", "/transfer/files/x", &[], b"small").status, 201);
}
