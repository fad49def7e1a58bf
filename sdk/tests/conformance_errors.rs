//! Conformance: error handling (Servlet 6.1, section 10.9), one row for each rule and case.

use std::fmt;

use wharf_sdk::{App, Error, Method, Panicked, Request, Response, StatusCode, TestClient, any, get};

macro_rules! errors {
    ($($name:ident)*) => {$(
        #[derive(Debug)]
        struct $name;
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
        impl std::error::Error for $name {}
    )*};
}

errors! { Payment Stock Unknown }

#[derive(Debug)]
struct Outer(Payment);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// A servlet that fails as the path says.
fn failing() -> impl wharf_sdk::Servlet {
    any(|request: Request| async move {
        let header = |response: Response| {
            let response = response.header("Allow", "GET")?.header("Content-Security-Policy", "default-src 'none'")?;
            response.header("Content-Language", "en")?.header("ETag", "\"x\"")
        };
        match request.path_info().unwrap_or_default() {
            "/payment" => Err(Error::from(Payment)),
            "/payment-402" => Err(Error::new(StatusCode::PAYMENT_REQUIRED, "pay").with_source(Payment)),
            "/outer" => Err(Error::from(Outer(Payment))),
            "/stock" => Err(Error::from(Stock)),
            "/unknown" => Err(Error::from(Unknown)),
            "/not-found" => Err(Error::not_found("no such thing")),
            "/teapot" => Err(Error::new(StatusCode::IM_A_TEAPOT, "short and stout")),
            "/bare-404" => header(Response::status(StatusCode::NOT_FOUND)),
            "/bare-503" => Ok(Response::status(StatusCode::SERVICE_UNAVAILABLE)),
            "/bare-204" => Ok(Response::status(StatusCode::NO_CONTENT)),
            "/own-404" => Ok(Response::text("mine").with_status(StatusCode::NOT_FOUND)),
            "/redirect" => Response::redirect("/elsewhere"),
            "/panic" => panic!("as asked"),
            "/gone" => Ok(Response::status(StatusCode::GONE)),
            "/conflict" => Ok(Response::status(StatusCode::CONFLICT)),
            "/locked" => Ok(Response::status(StatusCode::LOCKED)),
            "/ok" => Ok(Response::text("ok")),
            other => panic!("{other}"),
        }
    })
}

/// A page that says which it is, and what it was told.
fn page(name: &'static str) -> impl wharf_sdk::Servlet {
    any(move |request: Request| async move {
        let Some(error) = request.error() else { return Response::text(format!("{name} without an error")) };
        Response::text(format!("{name} {} {}", error.status().as_u16(), error.exception_type().unwrap_or("-")))
    })
}

fn app() -> App {
    App::new()
        .servlet("failing", "/do/*", failing())
        .servlet("404", "/errors/404", page("404"))
        .servlet("payment", "/errors/payment", page("payment"))
        .servlet("fails", "/errors/fails", any(|_| async { Err::<(), _>(Error::internal("the page fails too")) }))
        .servlet(
            "panics",
            "/errors/panics",
            any(|_| async {
                if true {
                    panic!("the page")
                }
            }),
        )
        .servlet("empty", "/errors/empty", any(|_| async { StatusCode::BAD_GATEWAY }))
        .servlet(
            "status",
            "/errors/status",
            any(|_| async { Response::text("sorry").with_status(StatusCode::SERVICE_UNAVAILABLE) }),
        )
        .error_page(StatusCode::NOT_FOUND, "/errors/404")
        .error_page(StatusCode::SERVICE_UNAVAILABLE, page("503"))
        .error_page_for::<Payment>("/errors/payment")
        .error_page_for::<Panicked>(page("panic"))
        .error_page(StatusCode::GONE, "/errors/fails")
        .error_page(StatusCode::CONFLICT, "/errors/panics")
        .error_page(StatusCode::LOCKED, "/errors/empty")
        .error_page(StatusCode::IM_A_TEAPOT, "/errors/status")
}

/// Which page answers, with which status.
#[tokio::test]
async fn pages_by_status_and_by_type() {
    let rows = [
        ("/do/ok", 200, "ok", "no error, no page"),
        ("/do/not-found", 404, "404 404 -", "10.9.2: by status, of an error"),
        ("/do/bare-404", 404, "404 404 -", "10.9.2: by status, as sendError"),
        ("/do/own-404", 404, "mine", "10.9.2: setStatus with content of its own is no sendError"),
        ("/do/bare-503", 503, "503 503 -", "10.9.2: a page of the builder"),
        ("/do/bare-204", 204, "", "no error status, no page"),
        ("/do/redirect", 302, "", "a redirect is no error"),
        ("/do/payment", 500, "payment 500 Payment", "10.9.2: by type"),
        ("/do/payment-402", 402, "payment 402 Payment", "10.9.2: by type before by status, the status stays"),
        ("/do/outer", 500, "payment 500 Payment", "10.9.2: by the type of a cause"),
        ("/do/stock", 500, "", "10.9.2: no page for it: the container's"),
        ("/do/panic", 500, "panic 500 Panicked", "a panic has a type, too"),
        ("/do/teapot", 503, "sorry", "the page may answer with a status of its own"),
        ("/do/gone", 410, "", "10.9.2: a page that fails: the container's, with the first status"),
        ("/do/conflict", 409, "", "10.9.2: a page that panics"),
        ("/do/locked", 423, "", "10.9.2: a page that answers with a bare error"),
        ("/nothing", 404, "404 404 -", "a path that no servlet takes"),
        ("/", 404, "404 404 -", "the root, when no servlet takes it"),
        ("/errors/404", 200, "404 without an error", "asked for itself a page is a servlet as any other"),
    ];
    let client = TestClient::new(app()).context_path("/test").start().await.unwrap();
    for (path, status, text, rule) in rows {
        let response = client.get(path).send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {path}");
    }
}

/// The page for everything else, and what goes before it.
#[tokio::test]
async fn the_default_page() {
    let client = TestClient::new(app().default_error_page(page("default"))).start().await.unwrap();
    for (path, status, text, rule) in [
        ("/do/stock", 500, "default 500 -", "10.9.2: the page without status and type"),
        ("/do/unknown", 500, "default 500 -", "10.9.2: the page without status and type"),
        ("/do/not-found", 404, "404 404 -", "10.9.2: one for the status goes before it"),
        ("/do/payment", 500, "payment 500 Payment", "10.9.2: one for the type goes before it"),
        ("/do/gone", 410, "", "10.9.2: a page that fails is not replaced by the default page"),
        ("/do/own-404", 404, "mine", "content of its own"),
    ] {
        let response = client.get(path).send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {path}");
    }
}

/// What a page is told (section 10.9.1), with types and by name.
#[tokio::test]
async fn attributes_of_error_pages() {
    let page = any(|mut request: Request| async move {
        let text = |name: &str| {
            let value = request.attribute::<String>(&format!("jakarta.servlet.error.{name}"));
            value.map_or("-".to_owned(), |value| (*value).clone())
        };
        let status = request.attribute::<u16>("jakarta.servlet.error.status_code").map_or(0, |s| *s);
        let exception = request.attribute::<Error>("jakarta.servlet.error.exception");
        let cause = exception.and_then(|e| e.source().map(ToString::to_string)).unwrap_or_default();
        let answer = format!(
            "{} {} status={status} message={} type={} cause={cause} uri={} servlet={} method={} query={} user={} path={} a={}",
            request.method(),
            request.dispatcher_type(),
            text("message"),
            text("exception_type"),
            text("request_uri"),
            text("servlet_name"),
            text("method"),
            text("query_string"),
            request.attribute::<String>("user").map(|u| (*u).clone()).unwrap_or_default(),
            request.request_uri(),
            request.parameter("a").unwrap_or_default(),
        );
        assert_eq!(request.bytes().await?.len(), 0, "the content is the failed servlet's");
        Ok(answer)
    });
    let app = App::new()
        .servlet(
            "buy",
            "/buy/*",
            any(|mut request: Request| async move {
                request.set_attribute("user", String::from("ada"));
                match request.path_info() {
                    Some("/bare") => Ok(Response::status(StatusCode::NOT_FOUND)),
                    _ => Err(Error::new(StatusCode::NOT_FOUND, "out of stock").with_source(Stock)),
                }
            }),
        )
        .servlet("page", "/page", page)
        .error_page(StatusCode::NOT_FOUND, "/page?a=1")
        .error_page_for::<Stock>("/page");
    let client = TestClient::new(app).context_path("/shop").start().await.unwrap();
    let post = client.post("/buy/7?x=1").form(&[("y", "2")]).send().await.text().await;
    assert_eq!(
        post,
        "GET ERROR status=404 message=out of stock type=Stock cause=Stock uri=/shop/buy/7 servlet=buy method=POST query=x=1 \
         user=ada path=/shop/page a="
    );
    let bare = client.get("/buy/bare").send().await.text().await;
    assert_eq!(
        bare,
        "GET ERROR status=404 message= type=- cause= uri=/shop/buy/bare servlet=buy method=GET query=- user=ada path=/shop/page \
         a=1"
    );
}

/// What becomes of the header fields, and of HEAD.
#[tokio::test]
async fn header_fields_of_errors() {
    let client = TestClient::new(app()).start().await.unwrap();
    let response = client.get("/do/bare-404").send().await;
    assert_eq!(response.header("allow"), Some("GET"), "what goes with the status stays");
    assert!(response.header("content-security-policy").is_some(), "what goes with every page stays");
    assert_eq!(response.header("content-language"), None, "what described the content goes");
    assert_eq!(response.header("etag"), None, "what described the content goes");
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"), "the page's");
    let head = client.request(Method::HEAD, "/do/bare-404").send().await;
    assert_eq!((head.status().as_u16(), head.header("content-length")), (404, Some("9")));
    assert_eq!(head.text().await, "", "a page of a HEAD has no content");
    let conditional = client.get("/do/bare-404").header("if-none-match", "*").header("range", "bytes=0-1").send().await;
    assert_eq!(conditional.status(), 404, "conditions are about what was asked for, not about the page");
}

/// Errors within dispatches are those of the request (sections 9.5, 10.9.2).
#[tokio::test]
async fn errors_of_dispatches_and_of_filters() {
    let app = app()
        .filter("f", "/filtered/*", wharf_sdk::filter_fn(|_, _| async { Err(Error::from(Payment)) }))
        .servlet("filtered", "/filtered/x", get(|_| async { "never" }))
        .servlet(
            "forward",
            "/forward/*",
            any(|r: Request| async move {
                let to = format!("/do{}", r.path_info().unwrap_or_default());
                r.dispatcher(&to)?.forward(r).await
            }),
        )
        .servlet(
            "include",
            "/include/*",
            any(|mut r: Request| async move {
                let to = format!("/do{}", r.path_info().unwrap_or_default());
                r.dispatcher(&to)?.include(&mut r).await?.text().await
            }),
        )
        .servlet("nowhere", "/nowhere", any(|r: Request| async move { r.dispatcher("/..")?.forward(r).await }))
        .error_page_for::<wharf_sdk::DispatchError>(page("dispatch"));
    let client = TestClient::new(app).start().await.unwrap();
    for (path, status, text, rule) in [
        ("/filtered/x", 500, "payment 500 Payment", "an error of a filter"),
        ("/forward/payment", 500, "payment 500 Payment", "9.5: an error of what was forwarded to"),
        ("/forward/bare-404", 404, "404 404 -", "sendError of what was forwarded to"),
        ("/include/payment", 500, "payment 500 Payment", "9.5: an error of what was included"),
        ("/include/bare-404", 200, "", "9.3: an included servlet can't set the status"),
        ("/nowhere", 500, "dispatch 500 DispatchError", "a dispatcher that does not exist"),
    ] {
        let response = client.get(path).send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {path}");
    }
}
