//! Conformance: request dispatchers (Servlet 6.1, chapter 9 and section 2.3.3), one row for each rule and case.

use std::sync::{Arc, Mutex};

use wharf_sdk::{
    App, DispatchError, DispatchPath, DispatcherType, Error, MAX_DISPATCH_DEPTH, Request, Response, ServletMapping,
    StatusCode, TestClient, any, get,
};

fn null(text: Option<&str>) -> String {
    text.unwrap_or("NULL").to_owned()
}

fn mapping(mapping: Option<&ServletMapping>) -> String {
    let mapping = mapping.expect("a mapping");
    format!("{} {} {} {}", mapping.mapping_match(), mapping.pattern(), mapping.match_value(), mapping.servlet_name())
}

/// URI, context path, servlet path, path info, query, mapping: of the request, then of the dispatch's attributes.
fn report(request: &Request) -> (String, String) {
    let own = format!(
        "{} {} {} {} {} {}",
        request.request_uri(),
        request.context_path(),
        request.servlet_path(),
        null(request.path_info()),
        null(request.query()),
        mapping(request.mapping().as_ref())
    );
    let (of, path): (&str, Option<&DispatchPath>) = match request.dispatcher_type() {
        DispatcherType::Forward => ("forward", request.forwarded_from()),
        DispatcherType::Include => ("include", request.included_as()),
        DispatcherType::Async => ("async", request.async_from()),
        other => panic!("{other}"),
    };
    let path = path.expect("the attributes are there");
    // By name they are the same as with types.
    let text = |name: &str| request.attribute::<String>(&format!("jakarta.servlet.{of}.{name}")).map(|v| (*v).clone());
    assert_eq!(text("request_uri").as_deref(), Some(path.request_uri()));
    assert_eq!(text("context_path").as_deref(), Some(path.context_path()));
    assert_eq!(text("servlet_path").as_deref(), Some(path.servlet_path()));
    assert_eq!(text("path_info").as_deref(), path.path_info());
    assert_eq!(text("query_string").as_deref(), path.query());
    let by_name = request.attribute::<ServletMapping>(&format!("jakarta.servlet.{of}.mapping"));
    assert_eq!(by_name.as_deref(), path.mapping());
    let attributes = format!(
        "{} {} {} {} {} {}",
        path.request_uri(),
        path.context_path(),
        path.servlet_path(),
        null(path.path_info()),
        null(path.query()),
        mapping(path.mapping())
    );
    (own, attributes)
}

type Seen = Arc<Mutex<Option<(String, String)>>>;

async fn dispatch(kind: DispatcherType, path: &'static str, mut request: Request) -> Result<Response, Error> {
    let found = request.dispatcher(path);
    match kind {
        DispatcherType::Async => {
            let (context, answer) = request.start_async();
            match context.dispatch(path) {
                Ok(()) => answer.await,
                Err(DispatchError::NotAbsolute(_)) => Ok(Response::text("ASYNC-IAE")),
                Err(error) => Err(error.into()),
            }
        }
        _ if found.is_err() => Ok(Response::text("RD-NULL")),
        DispatcherType::Forward => found?.forward(request).await,
        _ => Ok(Response::text(found?.include(&mut request).await?.text().await?)),
    }
}

struct Row {
    start: (&'static str, &'static str),
    kind: DispatcherType,
    to: (&'static str, &'static str),
    /// What the target sees of the request and of the dispatch, or what comes instead.
    want: Result<(&'static str, &'static str), &'static str>,
}

fn row(
    start: (&'static str, &'static str),
    kind: DispatcherType,
    to: (&'static str, &'static str),
    own: &'static str,
    attributes: &'static str,
) -> Row {
    Row { start, kind, to, want: Ok((own, attributes)) }
}

async fn run(row: &Row) {
    let seen = Seen::default();
    let (kind, path) = (row.kind, row.to.1);
    let target = {
        let seen = Arc::clone(&seen);
        any(move |request: Request| {
            *seen.lock().unwrap() = Some(report(&request));
            async { "OK" }
        })
    };
    let mut app = App::new().servlet("rd", row.start.0, any(move |request| dispatch(kind, path, request)));
    app = app.servlet("target", row.to.0, target);
    if row.to.0 == "*.html" {
        app = app.welcome_files("index.html");
    }
    let client = TestClient::new(app).context_path("/test").start().await.unwrap();
    let shown = format!("{} {kind} {} {path}", row.start.1, row.to.0);
    let body = client.get(row.start.1).send().await.text().await;
    match row.want {
        Err(want) => assert_eq!(body, want, "{shown}"),
        Ok((own, attributes)) => {
            assert_eq!(body, "OK", "{shown}");
            let seen = seen.lock().unwrap().take();
            assert_eq!(seen, Some((own.into(), attributes.into())), "{shown}");
        }
    }
}

const FORWARD: DispatcherType = DispatcherType::Forward;
const INCLUDE: DispatcherType = DispatcherType::Include;
const ASYNC: DispatcherType = DispatcherType::Async;

/// What Tomcat's tests hold of dispatchers, encoded paths on (sections 9.1, 9.3.1, 9.4.2, 9.7.2, 10.10, 12.3).
#[tokio::test]
async fn paths_and_attributes_of_dispatches() {
    let start = "/test/start /test /start NULL NULL EXACT /start start rd";
    let target = "/test/target /test /target NULL NULL EXACT /target target target";
    let s = ("/start", "/start");
    let parameter = ("/start", "/start;abcde=fghij");
    let p_start = "/test/start;abcde=fghij /test /start NULL NULL EXACT /start start rd";
    let in_path = ("/start", ";abcde=fghij/start");
    let under = ("/start/*", "/start/foo");
    let u_start = "/test/start/foo /test /start /foo NULL PATH /start/* foo rd";
    let pu_start = "/test/start;abcde=fghij/foo /test /start /foo NULL PATH /start/* foo rd";
    let t_param = "/test/target;abcde=fghij /test /target NULL NULL EXACT /target target target";
    let index = "/test/ /test /index.html NULL NULL EXTENSION *.html index target";
    let index_param = "/test/;abcde=fghij /test /index.html NULL NULL EXTENSION *.html index target";
    let up = "/test/start/../target /test /target NULL NULL EXACT /target target target";
    let t = |path| ("/target", path);
    let w = |path| ("*.html", path);
    let fail = |start, kind, to, what| Row { start, kind, to, want: Err(what) };
    for row in [
        row(s, INCLUDE, t("/target"), start, target),
        row(s, ASYNC, t("/target"), target, start),
        row(s, FORWARD, t("/target"), target, start),
        row(
            ("/start", "/start?abcde=fghij"),
            FORWARD,
            t("/target?zyxwv=utsrq"),
            "/test/target /test /target NULL zyxwv=utsrq EXACT /target target target",
            "/test/start /test /start NULL abcde=fghij EXACT /start start rd",
        ),
        row(
            ("/start", "/start?abcde=fghij"),
            INCLUDE,
            t("/target?zyxwv=utsrq"),
            "/test/start /test /start NULL abcde=fghij EXACT /start start rd",
            "/test/target /test /target NULL zyxwv=utsrq EXACT /target target target",
        ),
        row(
            ("/start", "/start?abcde=fghij"),
            ASYNC,
            t("/target?zyxwv=utsrq"),
            "/test/target /test /target NULL zyxwv=utsrq EXACT /target target target",
            "/test/start /test /start NULL abcde=fghij EXACT /start start rd",
        ),
        row(parameter, INCLUDE, t("/target"), p_start, target),
        row(parameter, ASYNC, t("/target"), target, p_start),
        row(parameter, FORWARD, t("/target"), target, p_start),
        row(
            in_path,
            FORWARD,
            t("/target"),
            target,
            "/test;abcde=fghij/start /test /start NULL NULL EXACT /start start rd",
        ),
        row(
            in_path,
            INCLUDE,
            t("/target"),
            "/test;abcde=fghij/start /test /start NULL NULL EXACT /start start rd",
            target,
        ),
        row(
            in_path,
            ASYNC,
            t("/target"),
            target,
            "/test;abcde=fghij/start /test /start NULL NULL EXACT /start start rd",
        ),
        row(s, INCLUDE, t("/target;abcde=fghij"), start, t_param),
        row(s, ASYNC, t("/target;abcde=fghij"), t_param, start),
        row(s, FORWARD, t("/target;abcde=fghij"), t_param, start),
        row(
            parameter,
            FORWARD,
            t(";klmno=pqrst/target;uvwxy=z0123"),
            "/test/;klmno=pqrst/target;uvwxy=z0123 /test /target NULL NULL EXACT /target target target",
            p_start,
        ),
        row(under, INCLUDE, t("../target"), u_start, up),
        row(under, FORWARD, t("../target"), up, u_start),
        fail(under, ASYNC, t("../target"), "ASYNC-IAE"),
        row(
            ("/start/*", "/start;abcde=fghij/foo"),
            FORWARD,
            t("../target;klmno=pqrst"),
            "/test/start/../target;klmno=pqrst /test /target NULL NULL EXACT /target target target",
            pu_start,
        ),
        fail(under, INCLUDE, t("../../target"), "RD-NULL"),
        fail(under, FORWARD, t("../../target"), "RD-NULL"),
        fail(under, ASYNC, t("../../target"), "ASYNC-IAE"),
        fail(s, FORWARD, t("/does-not-exist"), "RD-NULL"),
        fail(s, INCLUDE, t("/does-not-exist"), "RD-NULL"),
        row(s, INCLUDE, w("/"), start, index),
        row(s, ASYNC, w("/"), index, start),
        row(s, FORWARD, w("/"), index, start),
        row(
            ("/start", "/start?abcde=fghij"),
            FORWARD,
            w("/?zyxwv=utsrq"),
            "/test/ /test /index.html NULL zyxwv=utsrq EXTENSION *.html index target",
            "/test/start /test /start NULL abcde=fghij EXACT /start start rd",
        ),
        row(parameter, INCLUDE, w("/"), p_start, index),
        row(parameter, ASYNC, w("/"), index, p_start),
        row(in_path, FORWARD, w("/"), index, "/test;abcde=fghij/start /test /start NULL NULL EXACT /start start rd"),
        row(s, INCLUDE, w("/;abcde=fghij"), start, index_param),
        row(s, ASYNC, w("/;abcde=fghij"), index_param, start),
        // A path as people write it is percent-encoded, and mapped decoded.
        row(
            s,
            FORWARD,
            ("/caf\u{e9} x", "/caf\u{e9} x"),
            "/test/caf%C3%A9%20x /test /caf\u{e9} x NULL NULL EXACT /caf\u{e9} x caf\u{e9} x target",
            start,
        ),
        row(s, FORWARD, ("/a b", "/a%20b"), "/test/a%20b /test /a b NULL NULL EXACT /a b a b target", start),
        row(s, FORWARD, ("/t/*", "//t//x/./y"), "/test//t//x/./y /test /t /x/y NULL PATH /t/* x/y target", start),
    ] {
        run(&row).await;
    }
}

/// What can be no path of a dispatch (section 9.1: null is returned), and how relative ones are read.
#[tokio::test]
async fn paths_that_lead_nowhere_and_paths_that_are_relative() {
    let page = |name: &'static str| get(move |_| async move { name });
    let app = App::new()
        .servlet(
            "from",
            "/a/b/*",
            any(|request: Request| async move {
                let path = request.header("x-path").unwrap_or_default().to_owned();
                match request.dispatcher(&path) {
                    Err(error) => Ok(Response::text(match error {
                        DispatchError::Path(_) => "path",
                        DispatchError::NotFound(_) => "none",
                        _ => "other",
                    })),
                    Ok(dispatcher) => dispatcher.forward(request).await,
                }
            }),
        )
        .servlet("c", "/a/b/c", page("abc"))
        .servlet("x", "/x", page("x"))
        .servlet("ac", "/a/c", page("ac"))
        .servlet("dot", "*.html", page("html"));
    let client = TestClient::new(app).start().await.unwrap();
    for (from, path, want, rule) in [
        ("/a/b/y", "c", "abc", "relative to the folder of the request"),
        ("/a/b/y/z", "../c", "abc", "one folder up"),
        ("/a/b/y", "./c", "abc", "a dot is nothing"),
        ("/a/b/y", "../c", "ac", "out of the servlet path"),
        ("/a/b/y", "../../x", "x", "up to the context root"),
        ("/a/b/y", "../../../x", "path", "never above the context root"),
        ("/a/b/y", "/../x", "path", "nor from the root"),
        ("/a/b/y", "/a/../x", "x", "dot segments within are resolved"),
        ("/a/b/y", "/x/", "none", "a slash at the end counts"),
        ("/a/b/y", "/nothing", "none", "no servlet"),
        ("/a/b/y", "/%2e%2e/x", "path", "encoded dot segments are refused"),
        ("/a/b/y", "/a%2fx", "path", "an encoded slash is refused"),
        ("/a/b/y", "/a%5cx", "path", "an encoded backslash is refused"),
        ("/a/b/y", "/a\\x", "path", "a backslash is refused"),
        ("/a/b/y", "/%zz", "path", "a broken escape is refused"),
        ("/a/b/y", "/%ff", "path", "what is not UTF-8 is refused"),
        ("/a/b/y", "/%00", "path", "a control character is refused"),
        ("/a/b/y", "/x#f", "path", "a fragment is refused"),
        ("/a/b/y", "/x?a=%2e%2e/", "x", "the query is none of the path"),
        ("/a/b/y", "/deep/er/page.html", "html", "by extension"),
        ("/a/b/y", "page.html", "path?", "a prefix pattern goes before an extension, and is a loop"),
    ] {
        let response = client.get(from).header("x-path", path).send().await;
        if want == "path?" {
            assert_eq!(response.status(), 500, "{rule}: {path}");
        } else {
            assert_eq!(response.text().await, want, "{rule}: {path}");
        }
    }
}

fn names(request: &Request) -> impl Fn(&str) -> String + '_ {
    |name| request.parameter(name).unwrap_or_else(|| "-".into())
}

/// Parameters of the dispatcher's path come before those of the request (section 9.1.1).
#[tokio::test]
async fn parameters_are_merged_the_newest_first() {
    let show = any(|mut request: Request| async move {
        let first = names(&request)("a");
        let all: Vec<String> = {
            let parameters = request.parameters().await?;
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        Ok(Response::text(format!("{first} {}", all.join("&"))))
    });
    let app = App::new()
        .servlet("show", "/show", show)
        .servlet(
            "forward",
            "/forward",
            any(|r: Request| async move { r.dispatcher("/show?a=new&b=1")?.forward(r).await }),
        )
        .servlet("twice", "/twice", any(|r: Request| async move { r.dispatcher("/forward?a=mid")?.forward(r).await }))
        .servlet("plain", "/plain", any(|r: Request| async move { r.dispatcher("/show")?.forward(r).await }))
        .servlet(
            "include",
            "/include",
            any(|mut r: Request| async move {
                let inside = r.dispatcher("/show?a=new")?.include(&mut r).await?.text().await?;
                let after = names(&r)("a");
                Ok(Response::text(format!("{inside} then {after}")))
            }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    for (path, want, rule) in [
        ("/forward", "new a=new&b=1", "only the dispatcher's"),
        ("/forward?a=old&c=2", "new a=new&b=1&a=old&c=2", "the dispatcher's first, the request's after them"),
        ("/twice?a=old", "new a=new&b=1&a=mid&a=old", "each dispatch goes before the last"),
        ("/plain?a=old", "old a=old", "a dispatcher without a query leaves them"),
        ("/include?a=old", "new a=new&a=old then old", "an include's are gone after it (section 9.1.1)"),
        ("/include", "new a=new then -", "an include's are gone after it (section 9.1.1)"),
    ] {
        assert_eq!(client.get(path).send().await.text().await, want, "{rule}");
    }
    // Those of a form in the content are last (section 3.1).
    let form = client.post("/forward?a=old").form(&[("a", "form")]).send().await.text().await;
    assert_eq!(form, "new a=new&b=1&a=old&a=form");
    let form = client.post("/include?a=old").form(&[("a", "form")]).send().await.text().await;
    assert_eq!(form, "new a=new&a=old&a=form then old", "an included servlet may read the content");
}

/// A named dispatch leaves paths and sets no attributes (sections 9.3.1 and 9.4.2).
#[tokio::test]
async fn named_dispatches() {
    let show = any(|request: Request| async move {
        let attributes = request.attribute_names().len();
        let forwarded = request.forwarded_from().is_some() || request.included_as().is_some();
        Ok(Response::text(format!(
            "{} {} {} {attributes} {forwarded}",
            request.dispatcher_type(),
            request.servlet_path(),
            request.servlet_name().unwrap_or_default()
        )))
    });
    let app = App::new()
        .named_servlet("hidden", show)
        .servlet("forward", "/forward", any(|r: Request| async move { r.named_dispatcher("hidden")?.forward(r).await }))
        .servlet(
            "include",
            "/include",
            any(|mut r: Request| async move { r.named_dispatcher("hidden")?.include(&mut r).await?.text().await }),
        )
        .servlet("none", "/none", any(|r: Request| async move { r.named_dispatcher("hiden")?.forward(r).await }))
        .servlet(
            "context",
            "/context",
            any(|r: Request| async move { r.context().clone().named_dispatcher("hidden")?.forward(r).await }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    for (path, want, rule) in [
        ("/forward", "FORWARD /forward hidden 0 false", "section 9.4.2"),
        ("/include", "INCLUDE /include hidden 0 false", "section 9.3.1"),
        ("/context", "FORWARD /context hidden 0 false", "section 9.1"),
    ] {
        assert_eq!(client.get(path).send().await.text().await, want, "{rule}");
    }
    assert_eq!(client.get("/none").send().await.status(), 500);
    assert_eq!(client.get("/hidden").send().await.status(), 404, "no path leads to it");
}

/// What an included servlet can't do (section 9.3), and what a forward throws away (section 9.4).
#[tokio::test]
async fn an_include_gives_content_and_a_forward_takes_over() {
    let part = any(|mut request: Request| async move {
        request.set_attribute("from.part", 7_u32);
        let read = request.bytes().await?.len();
        Response::text(format!("part {} {read}", request.method()))
            .with_status(StatusCode::IM_A_TEAPOT)
            .header("X-Part", "1")
    });
    let app = App::new()
        .servlet("part", "/part", part)
        .servlet("fails", "/fails", any(|_| async { Err::<(), _>(Error::conflict("no")) }))
        .servlet("gone", "/", any(|_| async { StatusCode::NOT_FOUND }))
        .servlet(
            "page",
            "/page/*",
            any(|mut request: Request| async move {
                let what = request.path_info().unwrap_or_default().to_owned();
                let part = request.dispatcher(&what)?.include(&mut request).await?.text().await?;
                let seen = request.attribute::<u32>("from.part").map_or(0, |v| *v);
                Response::text(format!("[{part}] {seen} {}", request.included_as().is_some())).header("X-Page", "1")
            }),
        )
        .servlet(
            "twice",
            "/twice",
            any(|mut request: Request| async move {
                let dispatcher = request.dispatcher("/part")?;
                let one = dispatcher.include(&mut request).await?.text().await?;
                let two = dispatcher.include(&mut request).await?.text().await?;
                Ok(Response::text(format!("{one}, {two}")))
            }),
        )
        .servlet(
            "forward",
            "/forward/*",
            any(|request: Request| async move {
                let what = request.path_info().unwrap_or_default().to_owned();
                request.dispatcher(&what)?.forward(request).await
            }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    let page = client.get("/page/part").send().await;
    assert_eq!((page.status().as_u16(), page.header("x-part"), page.header("x-page")), (200, None, Some("1")));
    assert_eq!(page.text().await, "[part GET 0] 7 false", "attributes are shared, those of the include gone after it");
    let posted = client.post("/page/part").body("four").send().await;
    assert_eq!(posted.text().await, "[part POST 4] 7 false");
    assert_eq!(client.post("/twice").body("four").send().await.text().await, "part POST 4, part POST 0");
    assert_eq!(client.get("/page/fails").send().await.status(), 409, "errors pass (section 9.5)");
    let missing = client.get("/page/nothing").send().await;
    assert_eq!(missing.status(), 500, "an include that the default servlet can't find is an error (section 9.3)");
    let forward = client.get("/forward/part").send().await;
    assert_eq!((forward.status().as_u16(), forward.header("x-part")), (418, Some("1")), "section 9.4");
    assert_eq!(client.get("/forward/fails").send().await.status(), 409, "section 9.5");
    assert_eq!(client.get("/forward/nothing").send().await.status(), 404);
    assert_eq!(client.request(wharf_sdk::Method::HEAD, "/page/part").send().await.status(), 200);
}

/// After several dispatches the attributes of a forward are those of the first (section 9.4.2), those of an include those
/// of the last (section 9.3.1).
#[tokio::test]
async fn nested_dispatches() {
    let end = any(|request: Request| async move {
        let of = |path: Option<&DispatchPath>| path.map_or("-".to_owned(), |path| path.request_uri().to_owned());
        Ok(Response::text(format!(
            "{} {} forward:{} include:{}",
            request.dispatcher_type(),
            request.request_uri(),
            of(request.forwarded_from()),
            of(request.included_as())
        )))
    });
    let forward = |to: &'static str| any(move |r: Request| async move { r.dispatcher(to)?.forward(r).await });
    let include = |to: &'static str| {
        any(move |mut r: Request| async move { r.dispatcher(to)?.include(&mut r).await?.text().await })
    };
    let app = App::new()
        .servlet("end", "/end", end)
        .servlet("f", "/f", forward("/end"))
        .servlet("ff", "/ff", forward("/f"))
        .servlet("fi", "/fi", forward("/i"))
        .servlet("i", "/i", include("/end"))
        .servlet("ii", "/ii", include("/i"))
        .servlet("if", "/if", include("/f"))
        .servlet("folder", "/folder/page", forward("inner/x"))
        .servlet("inner", "/folder/inner/x", forward("../../end"))
        .servlet("folder-i", "/folder/ipage", include("inner/y"))
        .servlet("inner-i", "/folder/inner/y", include("../../end"));
    let client = TestClient::new(app).start().await.unwrap();
    for (path, want, rule) in [
        ("/f", "FORWARD /end forward:/f include:-", "section 9.4.2"),
        ("/ff", "FORWARD /end forward:/ff include:-", "section 9.4.2: of the first in the chain"),
        ("/fi", "INCLUDE /i forward:/fi include:/end", "an include after a forward sees both"),
        ("/i", "INCLUDE /i forward:- include:/end", "section 9.3.1"),
        ("/ii", "INCLUDE /ii forward:- include:/end", "section 9.3.1: of the last include"),
        ("/if", "FORWARD /end forward:/if include:/f", "a forward within an include"),
        (
            "/folder/page",
            "FORWARD /folder/inner/../../end forward:/folder/page include:-",
            "relative to the forward's path",
        ),
        (
            "/folder/ipage",
            "INCLUDE /folder/ipage forward:- include:/folder/inner/../../end",
            "relative to the include's path",
        ),
    ] {
        assert_eq!(client.get(path).send().await.text().await, want, "{rule}: {path}");
    }
}

/// A loop is an error of the request, not the end of the process.
#[tokio::test]
async fn loops_end_with_an_error() {
    let depth = Arc::new(Mutex::new(0_usize));
    let counted = |depth: &Arc<Mutex<usize>>| {
        let depth = Arc::clone(depth);
        move || *depth.lock().unwrap() += 1
    };
    let (one, two, three, four) = (counted(&depth), counted(&depth), counted(&depth), counted(&depth));
    let app = App::new()
        .servlet(
            "f",
            "/f",
            any(move |r: Request| {
                one();
                async move { r.dispatcher("/f")?.forward(r).await }
            }),
        )
        .servlet(
            "i",
            "/i",
            any(move |mut r: Request| {
                two();
                async move { r.dispatcher("/i")?.include(&mut r).await?.text().await }
            }),
        )
        .servlet(
            "n",
            "/n",
            any(move |r: Request| {
                three();
                async move { r.named_dispatcher("n")?.forward(r).await }
            }),
        )
        .servlet(
            "a",
            "/a",
            any(move |r: Request| {
                four();
                async move {
                    let (context, answer) = r.start_async();
                    context.dispatch("/a")?;
                    answer.await
                }
            }),
        )
        .servlet("ok", "/ok", any(|_| async { "ok" }));
    let client = TestClient::new(app).start().await.unwrap();
    for path in ["/f", "/i", "/n", "/a"] {
        *depth.lock().unwrap() = 0;
        assert_eq!(client.get(path).send().await.status(), 500, "{path}");
        assert_eq!(*depth.lock().unwrap(), MAX_DISPATCH_DEPTH + 1, "{path}");
        assert_eq!(client.get("/ok").send().await.text().await, "ok");
    }
}

/// `ServletContext.getRequestDispatcher` takes absolute paths alone (section 9.1).
#[tokio::test]
async fn the_context_dispatches_from_its_root() {
    let app = App::new().servlet("x", "/x", get(|_| async { "x" }));
    let client = TestClient::new(app).context_path("/test").start().await.unwrap();
    let context = client.context();
    assert!(context.dispatcher("/x").is_ok());
    for (path, want) in [
        ("x", DispatchError::NotAbsolute("x".into())),
        ("", DispatchError::NotAbsolute(String::new())),
        ("../x", DispatchError::NotAbsolute("../x".into())),
        ("/y", DispatchError::NotFound("/y".into())),
        // Another context is out of reach: the path is one within this context.
        ("/test/x", DispatchError::NotFound("/test/x".into())),
    ] {
        assert_eq!(context.dispatcher(path).unwrap_err(), want);
    }
    assert!(matches!(context.dispatcher("/../x"), Err(DispatchError::Path(_))));
}
