//! What a TOML file says is put over the builder (the counterpart of web.xml; Servlet 6.1, chapters 8 and 14), one row for
//! each rule and case. The container hands it over as JSON; its form is held by the container's own tests.

use std::fmt;
use std::time::Duration;

use wharf_sdk::{
    App, DispatcherType, Error, Filter, FilterMapping, Next, Request, Response, StatusCode, TestClient, any, filter_fn,
    get,
};

#[derive(Debug)]
struct Stock;

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of stock")
    }
}

impl std::error::Error for Stock {}

fn mark(name: &'static str) -> impl Filter {
    filter_fn(move |request: Request, next: Next| async move {
        let mut response = next.run(request).await?;
        response.headers_mut().append("x-by", wharf_sdk::http::HeaderValue::from_static(name));
        Ok::<Response, Error>(response)
    })
}

struct Configured;

impl wharf_sdk::Servlet for Configured {
    async fn init(&self, config: &wharf_sdk::ServletConfig) -> Result<(), wharf_sdk::BoxError> {
        let all: Vec<String> = config.init_parameters().map(|(name, value)| format!("{name}={value}")).collect();
        config.context().set_attribute(all.join(","));
        Ok(())
    }

    async fn get(&self, request: Request) -> Result<Response, Error> {
        let text = request.context().attribute::<String>().map(|t| (*t).clone()).unwrap_or_default();
        Ok(Response::text(text))
    }
}

fn app() -> App {
    App::new()
        .display_name("Shop")
        .servlet("cart", ["/cart", "/basket"], get(|_| async { "cart" }))
        .servlet(
            "items",
            "/items/*",
            get(|r: Request| async move { format!("items {}", r.path_info().unwrap_or("-")) }),
        )
        .servlet("configured", "/configured", Configured)
        .servlet_init("configured", "a", "builder")
        .servlet_init("configured", "b", "2")
        .servlet("index", "*.html", get(|r: Request| async move { format!("index {}", r.servlet_path()) }))
        .servlet("slow", "/slow", get(|_| async { std::future::pending::<&'static str>().await }))
        .servlet("stock", "/stock", any(|_| async { Err::<(), _>(Error::from(Stock)) }))
        .servlet(
            "page",
            "/page",
            any(|r: Request| async move { format!("page {}", r.error().map_or(0, |e| e.status().as_u16())) }),
        )
        .servlet("forward", "/forward", any(|r: Request| async move { r.dispatcher("/cart")?.forward(r).await }))
        .servlet("name", "/name", get(|r: Request| async move { r.context().display_name().to_owned() }))
        .filter("a", "/*", mark("a"))
        .filter("b", "/*", mark("b"))
        .filter("c", FilterMapping::servlets("cart"), mark("c"))
        .error_page(StatusCode::NOT_FOUND, any(|_| async { "builder 404" }))
        .error_type::<Stock>()
}

async fn client(json: &str) -> TestClient {
    TestClient::new(app()).web(json).start().await.unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// What answers, and the filters that it passed (the innermost first).
async fn ask(client: &TestClient, path: &str) -> String {
    let response = client.get(path).send().await;
    let by: Vec<String> = response.headers().get_all("x-by").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    let status = response.status().as_u16();
    let text = response.text().await;
    format!("{status} {} {text}", by.join("")).trim_end().to_owned()
}

#[tokio::test]
async fn the_file_wins_over_the_builder() {
    let rows = [
        // Servlets.
        ("", "/cart", "200 cba cart", "nothing is said"),
        (
            r#"{"servlets":{"cart":{"patterns":["/c"]}}}"#,
            "/c",
            "200 cba cart",
            "patterns take the place of the builder's",
        ),
        (
            r#"{"servlets":{"cart":{"patterns":["/c"]}}}"#,
            "/cart",
            "404 ba builder 404",
            "those of the builder are gone",
        ),
        (r#"{"servlets":{"cart":{"add_patterns":["/c"]}}}"#, "/c", "200 cba cart", "a pattern more"),
        (r#"{"servlets":{"cart":{"add_patterns":["/c"]}}}"#, "/cart", "200 cba cart", "those of the builder stay"),
        (
            r#"{"servlets":{"cart":{"patterns":["/items/*"]},"items":{"patterns":["/cart"]}}}"#,
            "/cart",
            "200 ba items -",
            "two servlets swapped",
        ),
        (r#"{"servlets":{"cart":{"enabled":false}}}"#, "/cart", "404 ba builder 404", "a servlet switched off"),
        (r#"{"servlets":{"cart":{"enabled":true}}}"#, "/cart", "200 cba cart", "switched on, as it is"),
        (
            r#"{"servlets":{"cart":{"enabled":false},"items":{"add_patterns":["/cart"]}}}"#,
            "/cart",
            "200 ba items -",
            "another takes its path",
        ),
        ("", "/configured", "200 ba a=builder,b=2", "init parameters of the builder"),
        (
            r#"{"servlets":{"configured":{"init":{"a":"file","c":"3"}}}}"#,
            "/configured",
            "200 ba a=file,b=2,c=3",
            "init parameters, one by one",
        ),
        (r#"{"servlets":{"slow":{"async_timeout":"1ms"}}}"#, "/slow", "500", "a timeout of a servlet"),
        (r#"{"async_timeout":"1ms"}"#, "/slow", "500", "a timeout of all"),
        // Filters.
        (r#"{"filter_order":["b","a"]}"#, "/items/x", "200 ab items /x", "the order of the filters"),
        (r#"{"filter_order":["b"]}"#, "/items/x", "200 ab items /x", "those that are not named come after"),
        (r#"{"filter_order":["c","b","a"]}"#, "/cart", "200 cab cart", "those by name stay after those by pattern"),
        (r#"{"filters":{"a":{"enabled":false}}}"#, "/cart", "200 cb cart", "a filter switched off"),
        (r#"{"filters":{"a":{"patterns":["/items/*"]}}}"#, "/cart", "200 cb cart", "patterns of a filter"),
        (
            r#"{"filters":{"a":{"patterns":["/items/*"]}}}"#,
            "/items/x",
            "200 ba items /x",
            "patterns of a filter, in its place",
        ),
        (r#"{"filters":{"c":{"add_patterns":["/items/*"]}}}"#, "/items/x", "200 cba items /x", "a pattern more"),
        (r#"{"filters":{"c":{"servlets":["items"]}}}"#, "/items/x", "200 cba items /x", "servlets of a filter"),
        (r#"{"filters":{"c":{"servlets":["items"]}}}"#, "/cart", "200 ba cart", "those of the builder are gone"),
        (r#"{"filters":{"c":{"servlets":["*"]}}}"#, "/items/x", "200 cba items /x", "every servlet"),
        (r#"{"filters":{"c":{"dispatch":["forward"]}}}"#, "/cart", "200 ba cart", "dispatcher types"),
        (r#"{"filters":{"c":{"dispatch":["forward"]}}}"#, "/forward", "200 cba cart", "dispatcher types"),
        (
            r#"{"filters":{"a":{"dispatch":["FORWARD","request"]}}}"#,
            "/forward",
            "200 aba cart",
            "dispatcher types, in any case",
        ),
        // Error pages, welcome files, names.
        ("", "/nothing", "404 ba builder 404", "a page of the builder"),
        (r#"{"error_pages":[{"status":404,"path":"/page"}]}"#, "/nothing", "404 ba page 404", "a page takes its place"),
        (r#"{"error_pages":[{"error":"Stock","path":"/page"}]}"#, "/stock", "500  page 500", "a page by type"),
        (r#"{"error_pages":[{"path":"/page"}]}"#, "/stock", "500  page 500", "a page for everything else"),
        (
            r#"{"error_pages":[{"path":"/page"}]}"#,
            "/nothing",
            "404 ba builder 404",
            "the builder's for the status stays",
        ),
        (r#"{"welcome_files":["index.html"]}"#, "/docs/", "200 ba index /docs/index.html", "welcome files"),
        ("", "/name", "200 ba Shop", "the builder's name"),
        (r#"{"display_name":"Big shop"}"#, "/name", "200 ba Big shop", "the name"),
    ];
    for (json, path, want, rule) in rows {
        let client = client(json).await;
        let got = ask(&client, path).await;
        // A filter runs on the error page's request alone where it is mapped for it.
        assert_eq!(got, want, "{rule}: {json} {path}");
    }
}

/// What names nothing is refused, with key, name and a guess.
#[tokio::test]
async fn what_names_nothing_is_refused() {
    for (json, parts, rule) in [
        (
            r#"{"servlets":{"crat":{"enabled":false}}}"#,
            &["[servlets.crat]", "no servlet 'crat'", "did you mean 'cart'?"][..],
            "a servlet",
        ),
        (r#"{"servlets":{"zzzzzz":{}}}"#, &["[servlets.zzzzzz]", "it has: cart, items"], "a servlet like no other"),
        (r#"{"filters":{"d":{"enabled":false}}}"#, &["[filters.d]", "no filter 'd'"], "a filter"),
        (
            r#"{"filters":{"a":{"servlets":["itms"]}}}"#,
            &["[filters.a] servlets", "'itms'", "did you mean 'items'?"],
            "a servlet of a filter",
        ),
        (
            r#"{"filters":{"a":{"dispatch":["forwrd"]}}}"#,
            &["[filters.a] dispatch", "did you mean 'forward'?"],
            "a dispatcher type",
        ),
        (r#"{"filter_order":["x"]}"#, &["filter_order", "no filter 'x'"], "a filter in the order"),
        (
            r#"{"error_pages":[{"error":"Stok","path":"/page"}]}"#,
            &["[[error_pages]]", "'Stok'", "did you mean 'Stock'?"],
            "a type of errors",
        ),
        (
            r#"{"error_pages":[{"status":404,"path":"/nowhere"}]}"#,
            &["'/nowhere'", "no servlet"],
            "a path that no servlet takes",
        ),
        (r#"{"error_pages":[{"status":404,"error":"Stock","path":"/page"}]}"#, &["not both"], "status and type"),
        (
            r#"{"servlets":{"page":{"enabled":false}},"error_pages":[{"status":404,"path":"/page"}]}"#,
            &["'/page'", "no servlet"],
            "a page that is switched off",
        ),
        (
            r#"{"servlets":{"cart":{"add_patterns":["/items/*"]}}}"#,
            &["'cart'", "'items'", "'/items/*'"],
            "a pattern of two servlets",
        ),
        (r#"{"servlets":{"cart":{"patterns":["c"]}}}"#, &["'cart'", "'c'"], "a malformed pattern"),
        (r#"{"filters":{"a":{"patterns":["c"]}}}"#, &["'a'", "'c'"], "a malformed pattern of a filter"),
        (r#"{"filters":{"a":{"patterns":[]}}}"#, &["[filters.a]", "enabled = false"], "a filter without a mapping"),
        (r#"{"welcome_files":["/x"]}"#, &["welcome file '/x'"], "a welcome file with a slash"),
    ] {
        let error = match TestClient::new(app()).web(json).start().await {
            Ok(_) => panic!("{rule}: {json} is taken"),
            Err(error) => error.to_string(),
        };
        for part in parts {
            assert!(error.contains(part), "{rule}: no {part:?} in {error}");
        }
    }
}

/// A mounted router has filters and error pages, too, when the file says so.
#[tokio::test]
async fn a_router_has_error_pages_when_the_file_says_so() {
    let router = || {
        axum::Router::new()
            .route("/", axum::routing::get(|| async { "home" }))
            .route("/sorry", axum::routing::get(|| async { "sorry" }))
            .route("/fails", axum::routing::get(|| async { axum::http::StatusCode::BAD_GATEWAY }))
            .route("/own", axum::routing::get(|| async { (axum::http::StatusCode::BAD_GATEWAY, "own") }))
    };
    for nothing in ["", r#"{"display_name":"x"}"#, r#"{"session":{"timeout":"30m"}}"#] {
        let plain = TestClient::new(router()).web(nothing).start().await.unwrap();
        assert_eq!(ask(&plain, "/fails").await, "502", "{nothing}");
    }
    let json = r#"{"error_pages":[{"status":502,"path":"/sorry"},{"status":404,"path":"/sorry"}]}"#;
    let client = TestClient::new(router()).context_path("/app").web(json).start().await.unwrap();
    for (path, want) in [
        ("/", "200  home"),
        ("/fails", "502  sorry"),
        ("/nothing", "404  sorry"),
        ("/own", "502  own"),
        ("/sorry", "200  sorry"),
    ] {
        assert_eq!(ask(&client, path).await, want, "{path}");
    }
    let error = TestClient::new(router()).web(r#"{"servlets":{"routr":{}}}"#).start().await.err().unwrap();
    assert!(error.to_string().contains("did you mean 'router'?"), "{error}");
    let timeout = TestClient::new(
        axum::Router::new()
            .route("/slow", axum::routing::get(|| async { tokio::time::sleep(Duration::from_secs(60)).await })),
    );
    let timeout = timeout.web(r#"{"async_timeout":"1ms"}"#).start().await.unwrap();
    assert_eq!(ask(&timeout, "/slow").await, "500");
}

/// Dispatcher types of the builder stay where the file says only other patterns.
#[tokio::test]
async fn other_patterns_keep_the_dispatcher_types() {
    let app = App::new()
        .filter("f", FilterMapping::paths("/a").on([DispatcherType::Forward]), mark("f"))
        .servlet("a", "/a", get(|_| async { "a" }))
        .servlet("to-a", "/to-a", any(|r: Request| async move { r.dispatcher("/a")?.forward(r).await }));
    let client = TestClient::new(app).web(r#"{"filters":{"f":{"patterns":["/*"]}}}"#).start().await.unwrap();
    assert_eq!(ask(&client, "/a").await, "200  a");
    assert_eq!(ask(&client, "/to-a").await, "200 f a");
}
