//! The rules of HTTP methods, headers and errors that every kind of servlet gives for nothing.

use std::time::{Duration, SystemTime};

use wharf_sdk::{
    App, BlockingServlet, BoxError, Error, Method, Request, Response, Servlet, StatusCode, TestClient, any, blocking,
    get,
};

const CHANGED: Duration = Duration::from_secs(784_111_777);

struct Page;

impl Servlet for Page {
    fn last_modified(&self, request: &Request) -> Option<SystemTime> {
        // Half a second more than HTTP dates can say.
        (request.query() != Some("unknown")).then(|| SystemTime::UNIX_EPOCH + CHANGED + Duration::from_millis(500))
    }

    async fn get(&self, _: Request) -> Result<Response, Error> {
        Ok(Response::text("page"))
    }

    async fn put(&self, mut request: Request) -> Result<Response, Error> {
        Ok(Response::text(request.text().await?).with_status(StatusCode::CREATED))
    }
}

struct BlockingPage;

impl BlockingServlet for BlockingPage {
    const METHODS: &'static [Method] = &[Method::GET, Method::PUT];

    fn last_modified(&self, request: &Request) -> Option<SystemTime> {
        Page.last_modified(request)
    }

    fn service(&self, mut request: Request) -> Result<Response, Error> {
        match *request.method() {
            Method::GET | Method::HEAD => Ok(Response::text("page")),
            Method::PUT => {
                let text = std::io::read_to_string(request.take_body().into_reader())?;
                Ok(Response::text(text).with_status(StatusCode::CREATED))
            }
            _ => unreachable!("METHODS lists all that arrive"),
        }
    }
}

async fn client() -> TestClient {
    let handlers = get(|_| async { "page" })
        .put(|mut request: Request| async move { Ok((StatusCode::CREATED, request.text().await?)) })
        .last_modified(|request| Page.last_modified(request));
    let app = App::new().servlet("trait", "/trait", Page).servlet("handlers", "/handlers", handlers).blocking_servlet(
        "blocking",
        "/blocking",
        BlockingPage,
    );
    TestClient::new(app).start().await.unwrap()
}

#[tokio::test]
async fn three_kinds_of_servlet_keep_the_same_rules() {
    let client = client().await;
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for path in ["/trait", "/handlers", "/blocking"] {
        for (method, headers, status, allow, length, content) in [
            ("GET", &[][..], 200, None, None, "page"),
            ("HEAD", &[], 200, None, Some("4"), ""),
            ("PUT", &[], 201, None, None, "sent"),
            ("POST", &[], 405, Some("GET, HEAD, PUT, OPTIONS"), None, ""),
            ("TRACE", &[], 405, Some("GET, HEAD, PUT, OPTIONS"), None, ""),
            ("OPTIONS", &[], 204, Some("GET, HEAD, PUT, OPTIONS"), None, ""),
            ("BREW", &[], 501, None, None, ""),
            ("GET", &[("if-modified-since", date)], 304, None, None, ""),
            ("HEAD", &[("if-modified-since", date)], 304, None, None, ""),
            ("GET", &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], 200, None, None, "page"),
            ("GET", &[("if-modified-since", "yesterday")], 200, None, None, "page"),
            ("GET", &[("if-modified-since", date), ("if-none-match", "\"x\"")], 200, None, None, "page"),
            ("PUT", &[("if-modified-since", date)], 201, None, None, "sent"),
        ] {
            let what = format!("{method} {path} {headers:?}");
            let mut request =
                client.request(method.parse().unwrap(), path).body(if method == "PUT" { "sent" } else { "" });
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let response = request.send().await;
            assert_eq!(response.status(), status, "{what}");
            assert_eq!(response.header("allow"), allow, "{what}");
            assert_eq!(response.header("content-length"), length, "{what}");
            let dated = matches!(method, "GET" | "HEAD").then_some(date);
            assert_eq!(response.header("last-modified"), dated, "{what}");
            assert_eq!(response.text().await, content, "{what}");
        }
        let unknown = client.get(&format!("{path}?unknown")).header("if-modified-since", date).send().await;
        assert_eq!((unknown.status().as_u16(), unknown.header("last-modified")), (200, None));
    }
}

#[tokio::test]
async fn errors_and_panics_have_their_status_and_tell_nothing_inside() {
    fn broken() -> Result<String, Error> {
        Ok(std::fs::read_to_string("/no/such/file")?)
    }
    let app = App::new()
        .servlet("client", "/client", get(|_| async { Err::<(), _>(Error::bad_request("name is missing")) }))
        .servlet("server", "/server", get(|_| async { broken() }))
        .servlet("header", "/header", get(|_| async { Response::text("x").header("x-name", "a\r\nset-cookie: b") }))
        .servlet("panic", "/panic", get(|_| async { panic!("in the future") as &str }))
        .servlet("early", "/early", any(|_| -> std::future::Ready<&str> { panic!("before the future") }))
        .servlet("pool", "/pool", get(blocking(|_| -> String { panic!("on the pool") })));
    let client = TestClient::new(app).start().await.unwrap();
    for (path, status, text) in [
        ("/client", 400, "name is missing"),
        ("/server", 500, ""),
        ("/header", 500, ""),
        ("/panic", 500, ""),
        ("/early", 500, ""),
        ("/pool", 500, ""),
    ] {
        let response = client.get(path).send().await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.header("set-cookie"), None, "{path}");
        assert_eq!(response.text().await, text, "{path}");
    }
}

#[tokio::test]
async fn requests_are_read_and_limited() {
    #[derive(serde::Deserialize)]
    struct Item {
        name: String,
        count: u32,
    }
    let describe = |item: Item| format!("{} {}", item.count, item.name);
    let app = App::new()
        .servlet(
            "json",
            "/json",
            wharf_sdk::post(move |mut request: Request| async move { Ok(describe(request.json().await?)) }),
        )
        .servlet(
            "form",
            "/form",
            wharf_sdk::post(move |mut request: Request| async move { Ok(describe(request.form().await?)) }),
        )
        .servlet(
            "parameters",
            "/parameters",
            any(|mut request: Request| async move {
                let parameters = request.parameters().await?;
                Ok(parameters.get_all("a").collect::<Vec<_>>().join(","))
            }),
        )
        .servlet(
            "small",
            "/small",
            any(|mut request: Request| async move { Ok(request.bytes_up_to(4).await?.len().to_string()) }),
        )
        .servlet(
            "cookie",
            "/cookie",
            get(|request: Request| async move {
                request.cookie("b").map(|cookie| cookie.value().to_owned()).unwrap_or_default()
            }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    let json = |text: &'static str| client.post("/json").header("content-type", "application/json").body(text);
    for (request, status, text) in [
        (json(r#"{"name":"tea","count":2}"#), 200, Some("2 tea")),
        (json("{"), 400, None),
        (json(r#"{"name":"tea"}"#), 422, None),
        (client.post("/json").body("{}"), 415, None),
        (client.post("/form").form(&[("name", "green tea"), ("count", "3")]), 200, Some("3 green tea")),
        (client.post("/form").form(&[("name", "tea")]), 422, None),
        (client.post("/form").form(&[("a", "b")]).body("name=%zz&count=1"), 400, None),
        (client.post("/parameters?a=1").form(&[("a", "2"), ("b", "3")]), 200, Some("1,2")),
        (client.post("/parameters?a=1").body("a=2"), 200, Some("1")),
        (client.get("/parameters?a=%ff"), 400, None),
        (client.put("/small").body("four"), 200, Some("4")),
        (client.put("/small").body("fiver"), 413, None),
        (client.get("/cookie").header("cookie", "a=1; =; b=2").header("cookie", "b=3"), 200, Some("2")),
    ] {
        let response = request.send().await;
        let (got, text_got) = (response.status().as_u16(), response.text().await);
        assert_eq!(got, status, "{text_got}");
        if let Some(text) = text {
            assert_eq!(text_got, text);
        }
    }
}

#[tokio::test]
async fn a_blocking_reader_waits_for_a_slow_client() {
    let app = App::new().blocking_servlet("blocking", "/blocking", BlockingPage);
    let client = TestClient::new(app).start().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&'static str, BoxError>>(1);
    let body = wharf_sdk::Body::from_stream(Channel(receiver));
    let answer = client.put("/blocking").body(body).send();
    let feed = async {
        for part in ["one ", "two ", "three"] {
            sender.send(Ok(part)).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(sender);
    };
    let (response, ()) = tokio::join!(answer, feed);
    assert_eq!(response.text().await, "one two three");
}

struct Channel<T>(tokio::sync::mpsc::Receiver<T>);

impl<T> futures_core::Stream for Channel<T> {
    type Item = T;
    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}
