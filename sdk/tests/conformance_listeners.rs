//! Conformance: events and listeners (Servlet 6.1, chapter 11), one row for each rule and case.

use std::sync::{Arc, Mutex};

use wharf_sdk::{
    App, BoxError, ContextAttributeEvent, ContextAttributeListener, ContextListener, DispatcherType, Error,
    FilterMapping, Next, Request, RequestAttributeEvent, RequestAttributeListener, RequestEvent, RequestListener,
    Response, ServletContext, StatusCode, TestClient, any, filter_fn, get,
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(" ")
    }
}

#[derive(Clone)]
struct Part(&'static str, Diary);

impl RequestListener for Part {
    fn request_initialized(&self, event: &RequestEvent) -> Result<(), BoxError> {
        self.1.note(format!("+{}", self.0));
        match (self.0, event.request_uri()) {
            ("r2", "/test/listener-fails") => Err("not today".into()),
            ("r2", "/test/listener-panics") => panic!("as asked"),
            _ => {
                event.set_attribute(self.0, event.method().to_string());
                Ok(())
            }
        }
    }

    fn request_destroyed(&self, event: &RequestEvent) {
        let seen = event.attribute::<u32>("set.by.servlet").map_or(String::new(), |n| format!("({n})"));
        self.1.note(format!("-{}{seen}", self.0));
        assert!(self.0 != "r3" || event.request_uri() != "/test/destroy-panics", "a panic harms nobody else");
    }
}

fn app(diary: &Diary) -> App {
    let part = |name| Part(name, diary.clone());
    let note = |diary: &Diary, text: &'static str| {
        let diary = diary.clone();
        move || diary.note(text)
    };
    let (filter, servlet, page) = (note(diary, "filter"), note(diary, "servlet"), note(diary, "page"));
    App::new()
        .request_listener(part("r1"))
        .request_listener(part("r2"))
        .request_listener(part("r3"))
        .filter(
            "filter",
            FilterMapping::paths("/*").on([DispatcherType::Request]),
            filter_fn(move |request: Request, next: Next| {
                filter();
                next.run(request)
            }),
        )
        .servlet(
            "servlet",
            "/ok",
            any(move |mut request: Request| {
                servlet();
                async move {
                    request.set_attribute("set.by.servlet", 7_u32);
                    request.attribute::<String>("r1").map(|v| (*v).clone())
                }
            }),
        )
        .servlet("forward", "/forward", any(|r: Request| async move { r.dispatcher("/ok")?.forward(r).await }))
        .servlet(
            "include",
            "/include",
            any(|mut r: Request| async move { r.dispatcher("/ok")?.include(&mut r).await?.text().await }),
        )
        .servlet("fails", "/fails", any(|_| async { Err::<(), _>(Error::conflict("no")) }))
        .servlet(
            "panics",
            "/panics",
            any(|_| async {
                if true {
                    panic!("as asked")
                }
            }),
        )
        .servlet("gone", "/gone", any(|_| async { StatusCode::GONE }))
        .servlet("dp", "/destroy-panics", any(|_| async { "fine" }))
        .servlet("never", "/never", any(|_| std::future::pending::<Response>()))
        .error_page(
            StatusCode::GONE,
            any(move |_| {
                page();
                async { "page" }
            }),
        )
}

/// The order of request listeners around filters, servlets, dispatches and error pages.
#[tokio::test]
async fn request_listeners() {
    let rows = [
        ("/ok", 200, "GET", "+r1 +r2 +r3 filter servlet -r3(7) -r2(7) -r1(7)", "11.3.3: in order, and in reverse"),
        ("/forward", 200, "GET", "+r1 +r2 +r3 filter servlet -r3(7) -r2(7) -r1(7)", "once, whatever is dispatched"),
        ("/include", 200, "GET", "+r1 +r2 +r3 filter servlet -r3(7) -r2(7) -r1(7)", "once, whatever is included"),
        ("/fails", 409, "no", "+r1 +r2 +r3 filter -r3 -r2 -r1", "also when the request fails"),
        ("/panics", 500, "", "+r1 +r2 +r3 filter -r3 -r2 -r1", "also when it panics"),
        ("/gone", 410, "page", "+r1 +r2 +r3 filter page -r3 -r2 -r1", "after the error page"),
        ("/nothing", 404, "", "+r1 +r2 +r3 filter -r3 -r2 -r1", "also when nothing takes the path"),
        (
            "/listener-fails",
            500,
            "",
            "+r1 +r2 -r1",
            "11.6: a listener that fails ends the request; those before are told",
        ),
        ("/listener-panics", 500, "", "+r1 +r2 -r1", "11.6: a listener that panics"),
        (
            "/destroy-panics",
            200,
            "fine",
            "+r1 +r2 +r3 filter -r3 -r2 -r1",
            "11.6: a panic in destroyed harms nobody else",
        ),
    ];
    let diary = Diary::default();
    let client = TestClient::new(app(&diary)).context_path("/test").start().await.unwrap();
    for (path, status, text, heard, rule) in rows {
        let response = client.get(path).send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {path}");
        assert_eq!(diary.take(), heard, "{rule}: {path}");
    }
    tokio::select! {
        biased;
        _ = client.get("/never").send() => panic!("it never answers"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(diary.take(), "+r1 +r2 +r3 filter -r3 -r2 -r1", "also when the client goes away");
}

impl ContextAttributeListener for Part {
    fn attribute_added(&self, event: &ContextAttributeEvent<'_>) {
        self.1.note(format!("{}+{:?}", self.0, event.value::<u32>()));
    }

    fn attribute_removed(&self, event: &ContextAttributeEvent<'_>) {
        self.1.note(format!("{}-{:?}", self.0, event.value::<u32>()));
    }

    fn attribute_replaced(&self, event: &ContextAttributeEvent<'_>) {
        let now = event.context().attribute::<u32>().map_or(0, |v| *v);
        self.1.note(format!("{}*{:?}->{now}", self.0, event.value::<u32>()));
    }
}

impl RequestAttributeListener for Part {
    fn attribute_added(&self, event: &RequestAttributeEvent<'_>) {
        self.1.note(format!("{}+{}={:?}", self.0, event.name(), event.value::<u32>()));
    }

    fn attribute_removed(&self, event: &RequestAttributeEvent<'_>) {
        self.1.note(format!("{}-{}={:?}", self.0, event.name(), event.value::<u32>()));
    }

    fn attribute_replaced(&self, event: &RequestAttributeEvent<'_>) {
        self.1.note(format!("{}*{}={:?}", self.0, event.name(), event.value::<u32>()));
    }
}

struct Sets(Diary);

impl ContextListener for Sets {
    async fn context_initialized(&self, context: &Arc<ServletContext>) -> Result<(), BoxError> {
        self.0.note("init");
        context.set_attribute(1_u32);
        Ok(())
    }

    async fn context_destroyed(&self, context: &Arc<ServletContext>) -> Result<(), BoxError> {
        self.0.note("destroy");
        context.remove_attribute::<u32>();
        Ok(())
    }
}

/// Attributes of the context and of requests (sections 4.4, 3.7, 11.2): the old value when one is replaced or removed.
#[tokio::test]
async fn attribute_listeners() {
    let diary = Diary::default();
    let part = |name| Part(name, diary.clone());
    let app = App::new()
        .attribute(String::from("before"))
        .listener(Sets(diary.clone()))
        .context_attribute_listener(part("c1"))
        .context_attribute_listener(part("c2"))
        .request_attribute_listener(part("q1"))
        .request_attribute_listener(part("q2"))
        .servlet(
            "context",
            "/context",
            any(|request: Request| async move {
                let context = request.context();
                context.set_attribute(2_u32);
                context.remove_attribute::<u32>();
                context.remove_attribute::<u32>();
                context.set_attribute(3_u32);
                "x"
            }),
        )
        .servlet(
            "request",
            "/request",
            any(|mut request: Request| async move {
                assert!(!request.set_attribute("a", 1_u32));
                assert!(request.set_attribute("a", 2_u32));
                assert!(request.remove_attribute("a"));
                assert!(!request.remove_attribute("a"));
                assert!(!request.remove_attribute("never"));
                "x"
            }),
        );
    let client = TestClient::new(app).start().await.unwrap();
    assert_eq!(diary.take(), "init c1+Some(1) c2+Some(1)", "11.2.2: from the first context listener on");
    client.get("/context").send().await;
    assert_eq!(
        diary.take(),
        "c1*Some(1)->2 c2*Some(1)->2 c1-Some(2) c2-Some(2) c1+Some(3) c2+Some(3)",
        "11.2.2: in the order in which they were registered"
    );
    client.get("/request").send().await;
    assert_eq!(diary.take(), "q1+a=Some(1) q2+a=Some(1) q1*a=Some(1) q2*a=Some(1) q1-a=Some(2) q2-a=Some(2)", "11.2.2");
    client.stop().await.unwrap();
    assert_eq!(diary.take(), "destroy c1-Some(3) c2-Some(3)", "11.2.2: until the last context listener");
}

/// Attributes of a request (section 3.7).
#[tokio::test]
async fn request_attributes() {
    let app = App::new().servlet(
        "s",
        "/",
        get(|mut request: Request| async move {
            assert_eq!(request.attribute_names(), Vec::<String>::new(), "none at first");
            assert!(request.attribute::<u32>("a").is_none());
            request.set_attribute("b", 1_u32);
            request.set_attribute("a", "text");
            assert_eq!(request.attribute_names(), ["a", "b"]);
            assert_eq!(request.attribute::<&str>("a").as_deref(), Some(&"text"));
            assert!(request.attribute::<String>("a").is_none(), "of another type");
            assert_eq!(request.attribute::<u32>("b").as_deref(), Some(&1));
            request.set_attribute("b", String::from("other"));
            assert_eq!(request.attribute::<String>("b").as_deref().map(String::as_str), Some("other"));
            request.remove_attribute("b");
            assert_eq!(request.attribute_names(), ["a"]);
            request.set_attribute("jakarta.servlet.forward.request_uri", 1_u8);
            assert_eq!(request.attribute::<u8>("jakarta.servlet.forward.request_uri").as_deref(), Some(&1));
            "fine"
        }),
    );
    let client = TestClient::new(app).start().await.unwrap();
    assert_eq!(client.get("/").send().await.text().await, "fine");
    assert_eq!(client.get("/").send().await.text().await, "fine", "of one request alone");
}
