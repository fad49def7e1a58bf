//! Conformance: the filter chain (Servlet 6.1, chapter 6), one row for each rule and case.

use wharf_sdk::{
    App, DispatcherType, Error, Filter, FilterMapping, Next, Request, Response, StatusCode, TestClient, any, filter_fn,
    get, layer,
};

use DispatcherType::{Async, Error as ErrorPage, Forward, Include, Request as FromClient};

/// A filter that writes its name before what comes after it.
fn mark(name: &'static str) -> impl Filter {
    filter_fn(move |request: Request, next: Next| async move {
        let response = next.run(request).await?;
        let (status, text) = (response.status_code(), text(response).await);
        Ok(Response::text(format!("{name} {text}")).with_status(status))
    })
}

async fn text(response: Response) -> String {
    let mut body = response.into_http().into_body();
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    String::from_utf8(all).unwrap()
}

fn page(name: &'static str) -> impl wharf_sdk::Servlet {
    get(move |_| async move { name })
}

/// Which filters stand before a path, and in which order (sections 6.2.4, 12.1).
#[tokio::test]
async fn order_and_patterns() {
    let app = || {
        App::new()
            .servlet("one", ["/one", "/both"], page("one"))
            .servlet("two", ["/two/*", "*.html"], page("two"))
            .servlet("root", "", page("root"))
            .servlet("default", "/", page("default"))
    };
    type Build = fn(App) -> App;
    // Path, what answers, rule.
    type Rows = &'static [(&'static str, &'static str, &'static str)];
    let cases: &[(Build, Rows)] = &[
        (
            |app| app.filter("a", "/*", mark("a")).filter("b", "/*", mark("b")),
            &[
                ("/one", "a b one", "6.2.4: in the order of declaration"),
                ("/", "a b root", "/* stands before the root"),
                ("/nothing", "a b default", "/* stands before what the default servlet takes"),
                ("/two/x/y", "a b two", "/* stands before everything"),
            ],
        ),
        (
            |app| app.filter("b", "/*", mark("b")).filter("a", "/*", mark("a")),
            &[("/one", "b a one", "6.2.4: declared the other way round, run the other way round")],
        ),
        (
            |app| app.filter_servlets("s", "one", mark("s")).filter("p", "/*", mark("p")),
            &[
                ("/one", "p s one", "6.2.4: by pattern before by name, whatever was declared first"),
                ("/two/x", "p two", "6.2.4: the name is another servlet's"),
            ],
        ),
        (
            |app| app.filter_servlets("t", ["two", "one"], mark("t")).filter_servlets("s", "one", mark("s")),
            &[
                ("/one", "t s one", "6.2.4: by name in the order of declaration"),
                ("/both", "t s one", "by name, whatever the pattern of the servlet"),
                ("/x.html", "t two", "by name, an extension pattern of the servlet"),
            ],
        ),
        (
            |app| app.filter_servlets("every", "*", mark("e")),
            &[
                ("/one", "e one", "6.2.4: the name * stands for every servlet"),
                ("/nothing", "e default", "6.2.4: the default one too"),
            ],
        ),
        (
            |app| app.filter("exact", "/one", mark("x")),
            &[
                ("/one", "x one", "12.1: exact"),
                ("/both", "one", "12.1: exact fits no other path"),
                ("/one/", "default", "12.1: a slash at the end is another path"),
            ],
        ),
        (
            |app| app.filter("prefix", "/two/*", mark("x")),
            &[
                ("/two", "x two", "12.1: the prefix itself"),
                ("/two/", "x two", "12.1: below the prefix"),
                ("/two/a/b", "x two", "12.1: far below the prefix"),
                ("/twos", "default", "12.1: on a boundary of segments alone"),
            ],
        ),
        (
            |app| app.filter("extension", "*.html", mark("x")),
            &[
                ("/a/b.html", "x two", "12.1: by extension, anywhere"),
                ("/two/b.html", "x two", "12.1: by extension, though the servlet was found by its prefix"),
                ("/one", "one", "12.1: another extension"),
            ],
        ),
        (
            |app| app.filter("root", "", mark("x")),
            &[("/", "x root", "12.1: the context root alone"), ("/one", "one", "12.1: the context root alone")],
        ),
        (
            |app| app.filter("several", ["/one", "*.html"], mark("x")),
            &[("/one", "x one", "6.2.4: several patterns"), ("/q.html", "x two", "6.2.4: several patterns")],
        ),
        (
            |app| {
                app.filter("twice", ["/one", "/*"], mark("x")).filter_mapping("twice", FilterMapping::servlets("one"))
            },
            &[("/one", "x one", "a filter of which several mappings fit runs once")],
        ),
        (
            |app| {
                app.filter("late", "/nowhere", mark("l"))
                    .filter("other", "/*", mark("o"))
                    .filter_mapping("late", "/one")
            },
            &[("/one", "o l one", "6.2.4: the order is that of the mappings")],
        ),
        (
            |app| {
                let both = FilterMapping::paths("/two/*").and_servlets("one");
                app.filter("both", both, mark("b")).filter("p", "/*", mark("p"))
            },
            &[
                ("/two/x", "b p two", "a mapping by pattern and name: its pattern counts among the patterns"),
                ("/one", "p b one", "and its name among the names"),
            ],
        ),
    ];
    for (build, rows) in cases {
        let client = TestClient::new(build(app())).start().await.unwrap();
        for (path, want, rule) in *rows {
            assert_eq!(client.get(path).send().await.text().await, *want, "{rule}: {path}");
        }
    }
}

/// Filters see the dispatches that they are for, and no others (section 6.2.5).
#[tokio::test]
async fn dispatcher_types() {
    let rows = [
        // The types of the filter; what it does to a request, a forward, an include, an error page, an async dispatch.
        (&[][..], [true, false, false, false, false], "6.2.5: REQUEST where nothing is said"),
        (&[FromClient], [true, false, false, false, false], "6.2.5: REQUEST"),
        (&[Forward], [false, true, false, false, false], "6.2.5: FORWARD"),
        (&[Include], [false, false, true, false, false], "6.2.5: INCLUDE"),
        (&[ErrorPage], [false, false, false, true, false], "6.2.5: ERROR"),
        (&[Async], [false, false, false, false, true], "6.2.5: ASYNC"),
        (&[FromClient, Forward], [true, true, false, false, false], "6.2.5: two of them"),
        (&[FromClient, Forward, Include, ErrorPage, Async], [true; 5], "6.2.5: all of them"),
    ];
    for (kinds, want, rule) in rows {
        for by_name in [false, true] {
            let mapping = if by_name { FilterMapping::servlets("target") } else { FilterMapping::paths("/target") };
            let app = App::new()
                .filter("f", mapping.on(kinds.iter().copied()), mark("F"))
                .servlet("target", "/target", any(|r: Request| async move { r.dispatcher_type().name() }))
                .servlet(
                    "forward",
                    "/forward",
                    any(|r: Request| async move { r.dispatcher("/target")?.forward(r).await }),
                )
                .servlet(
                    "include",
                    "/include",
                    any(|mut r: Request| async move { r.dispatcher("/target")?.include(&mut r).await?.text().await }),
                )
                .servlet("error", "/error", any(|_| async { StatusCode::GONE }))
                .error_page(StatusCode::GONE, "/target")
                .servlet(
                    "async",
                    "/async",
                    any(|r: Request| async move {
                        let (context, answer) = r.start_async();
                        context.dispatch("/target")?;
                        answer.await
                    }),
                );
            let client = TestClient::new(app).start().await.unwrap();
            for ((path, name), filtered) in [
                ("/target", "REQUEST"),
                ("/forward", "FORWARD"),
                ("/include", "INCLUDE"),
                ("/error", "ERROR"),
                ("/async", "ASYNC"),
            ]
            .into_iter()
            .zip(want)
            {
                let text = client.get(path).send().await.text().await;
                let want = if filtered { format!("F {name}") } else { name.to_owned() };
                assert_eq!(text, want, "{rule}, {path}, by name: {by_name}");
            }
        }
    }
}

/// The path that filters of a dispatch are compared with is the dispatch's; a named one has none (sections 6.2.5, 9.4).
#[tokio::test]
async fn filters_of_dispatches_see_the_path_of_the_dispatch() {
    let all = [FromClient, Forward, Include, ErrorPage, Async];
    let app = App::new()
        .filter("from", FilterMapping::paths("/from/*").on(all), mark("from"))
        .filter("to", FilterMapping::paths("/to").on(all), mark("to"))
        .filter("every", FilterMapping::paths("/*").on([Forward, Include]), mark("every"))
        .filter("name", FilterMapping::servlets("target").on(all), mark("name"))
        .servlet("target", "/to", page("target"))
        .servlet("f", "/from/f", any(|r: Request| async move { r.dispatcher("/to")?.forward(r).await }))
        .servlet(
            "i",
            "/from/i",
            any(|mut r: Request| async move { r.dispatcher("/to")?.include(&mut r).await?.text().await }),
        )
        .servlet("nf", "/from/nf", any(|r: Request| async move { r.named_dispatcher("target")?.forward(r).await }))
        .servlet(
            "ni",
            "/from/ni",
            any(|mut r: Request| async move { r.named_dispatcher("target")?.include(&mut r).await?.text().await }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    for (path, want, rule) in [
        ("/from/f", "from to every name target", "a forward's path"),
        ("/from/i", "from to every name target", "an include's path, though the request keeps its own"),
        ("/from/nf", "from name target", "a named forward: by name alone"),
        ("/from/ni", "from name target", "a named include: by name alone"),
        ("/to", "to name target", "straight"),
    ] {
        assert_eq!(client.get(path).send().await.text().await, want, "{rule}");
    }
}

/// What a filter may do (section 6.2.1 to 6.2.3).
#[tokio::test]
async fn filters_wrap_replace_block_and_catch() {
    let app = App::new()
        .filter("block", "/blocked", filter_fn(|_, _| async { Ok(Response::status(StatusCode::FORBIDDEN)) }))
        .filter(
            "headers",
            "/wrapped",
            filter_fn(|mut request: Request, next: Next| async move {
                request.headers_mut().insert("x-user", wharf_sdk::http::HeaderValue::from_static("ada"));
                request.set_attribute("lang", String::from("en"));
                next.run(request).await?.header("X-After", "1")
            }),
        )
        .filter(
            "body",
            "/upper",
            filter_fn(|mut request: Request, next: Next| async move {
                let upper = request.text().await?.to_uppercase();
                *request.body_mut() = upper.into();
                next.run(request).await
            }),
        )
        .filter(
            "catch",
            "/fails",
            filter_fn(|request: Request, next: Next| async move {
                match next.run(request).await {
                    Err(error) => Ok(Response::text(format!("caught {}", error.status().as_u16()))),
                    ok => ok,
                }
            }),
        )
        .filter("fails", "/filter-fails", filter_fn(|_, _| async { Err(Error::conflict("filter")) }))
        .filter(
            "panics",
            "/filter-panics",
            filter_fn(|request: Request, _| async move {
                if request.path() == "/filter-panics" {
                    panic!("as asked");
                }
                Ok(Response::status(StatusCode::OK))
            }),
        )
        .servlet("blocked", "/blocked", page("never"))
        .servlet(
            "wrapped",
            "/wrapped",
            any(|request: Request| async move {
                let lang = request.attribute::<String>("lang").map(|l| (*l).clone()).unwrap_or_default();
                format!("{} {lang}", request.header("x-user").unwrap_or_default())
            }),
        )
        .servlet("upper", "/upper", any(|mut request: Request| async move { request.text().await }))
        .servlet("fails", "/fails", any(|_| async { Err::<(), _>(Error::not_found("nothing")) }))
        .servlet("ff", ["/filter-fails", "/filter-panics"], page("never"));
    let client = TestClient::new(app).start().await.unwrap();
    assert_eq!(client.get("/blocked").send().await.status(), 403, "6.2.3: a filter may not go on");
    let wrapped = client.get("/wrapped").send().await;
    assert_eq!(wrapped.header("x-after"), Some("1"), "6.2.2: a filter changes the response");
    assert_eq!(wrapped.text().await, "ada en", "6.2.2: a filter changes the request");
    assert_eq!(client.post("/upper").body("loud").send().await.text().await, "LOUD", "6.2.2: its content too");
    assert_eq!(client.get("/fails").send().await.text().await, "caught 404", "6.2.1: a filter sees errors");
    assert_eq!(client.get("/filter-fails").send().await.status(), 409, "an error of a filter is one of the request");
    assert_eq!(client.get("/filter-panics").send().await.status(), 500, "and so is its panic");
}

/// Init parameters of filters and servlets are their own (sections 6.2.1, 4.2).
#[tokio::test]
async fn init_parameters() {
    struct Shows;
    impl Filter for Shows {
        async fn init(&self, config: &wharf_sdk::FilterConfig) -> Result<(), wharf_sdk::BoxError> {
            let own: Vec<_> = config.init_parameters().collect();
            assert_eq!(own, [("a", "filter"), ("b", "2")]);
            assert_eq!(config.init_parameter("a"), Some("filter"));
            assert_eq!(config.init_parameter("app"), Some("yes"), "those of the application are found after its own");
            assert_eq!(config.init_parameter("none"), None);
            Ok(())
        }
        async fn filter(&self, request: Request, next: Next) -> Result<Response, Error> {
            next.run(request).await
        }
    }
    let app =
        App::new().filter_init("shows", "a", "filter").filter_init("shows", "b", "2").filter("shows", "/*", Shows);
    TestClient::new(app).init("app", "yes").init("a", "application").start().await.unwrap();
}

/// Tower layers stand in the chain as filters do.
#[tokio::test]
async fn tower_layers() {
    use wharf_sdk::http;
    let stamp = |name: &'static str| {
        tower::util::MapResponseLayer::new(move |mut response: http::Response<wharf_sdk::Body>| {
            response.headers_mut().append("x-stamp", http::HeaderValue::from_static(name));
            response
        })
    };
    let asks = tower::util::MapRequestLayer::new(|mut request: http::Request<wharf_sdk::Body>| {
        request.headers_mut().insert("x-asked", http::HeaderValue::from_static("1"));
        request
    });
    let app = App::new()
        .layer(stamp("outer"))
        .filter("some", "/some/*", layer(stamp("inner")))
        .layer(asks)
        .servlet(
            "page",
            "/",
            any(|request: Request| async move {
                // The request is whole after it went through `http` types: path elements, dispatcher, attributes.
                let mapping = request.mapping().map(|m| m.pattern().to_owned()).unwrap_or_default();
                format!("{} {} {mapping}", request.header("x-asked").unwrap_or("0"), request.path())
            }),
        )
        .servlet("fails", "/some/fails", any(|_| async { Err::<(), _>(Error::not_found("nothing")) }))
        .servlet("f", "/some/forward", any(|r: Request| async move { r.dispatcher("/page")?.forward(r).await }));
    let client = TestClient::new(app).start().await.unwrap();
    let stamps = |response: &wharf_sdk::TestResponse| -> Vec<String> {
        let all = response.headers().get_all("x-stamp");
        all.iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let plain = client.get("/page").send().await;
    assert_eq!(stamps(&plain), ["outer"]);
    assert_eq!(plain.text().await, "1 /page /");
    let some = client.get("/some/page").send().await;
    assert_eq!(stamps(&some), ["inner", "outer"], "the inner one answers first");
    let fails = client.get("/some/fails").send().await;
    assert_eq!(
        (fails.status().as_u16(), fails.text().await.as_str()),
        (404, "nothing"),
        "an error passes through layers"
    );
    assert_eq!(client.get("/some/forward").send().await.text().await, "1 /page /");
    // What a layer keeps, it keeps for all requests: one permit, and it comes back.
    let app = App::new().layer(tower::limit::ConcurrencyLimitLayer::new(1)).servlet("page", "/", page("x"));
    let client = TestClient::new(app).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").send().await.text().await, "x");
    }
}
