//! The order of start and stop, what happens when a part fails, and the chain of filters.

use std::sync::{Arc, Mutex};

use wharf_sdk::{
    App, BoxError, ContextListener, Error, Filter, FilterConfig, Next, Request, Response, Servlet, ServletConfig,
    ServletContext, TestClient, filter_fn, get,
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Error,
    Panic,
}

/// A part of any kind that writes down what is done to it.
struct Part {
    name: &'static str,
    diary: Diary,
    fault: Fault,
}

impl Part {
    fn started(&self, of: &str) -> Result<(), BoxError> {
        self.diary.note(format!("+{of}"));
        match self.fault {
            Fault::None => Ok(()),
            Fault::Error => Err("no space left".into()),
            Fault::Panic => panic!("at the start"),
        }
    }
}

impl ContextListener for Part {
    async fn context_initialized(&self, context: &Arc<ServletContext>) -> Result<(), BoxError> {
        assert_eq!(context.attribute::<u32>().as_deref(), Some(&7));
        self.started(self.name)
    }

    async fn context_destroyed(&self, _: &Arc<ServletContext>) -> Result<(), BoxError> {
        self.diary.note(format!("-{}", self.name));
        if self.name == "l2" { Err("could not flush".into()) } else { Ok(()) }
    }
}

impl Filter for Part {
    async fn init(&self, config: &FilterConfig) -> Result<(), BoxError> {
        self.started(config.filter_name())
    }

    async fn destroy(&self) {
        self.diary.note(format!("-{}", self.name));
    }

    async fn filter(&self, request: Request, next: Next) -> Result<Response, Error> {
        self.diary.note(format!(">{}", self.name));
        let response = next.run(request).await;
        self.diary.note(format!("<{}", self.name));
        response
    }
}

impl Servlet for Part {
    async fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        self.started(config.servlet_name())
    }

    async fn destroy(&self) {
        self.diary.note(format!("-{}", self.name));
        assert_ne!(self.name, "s1", "a panic in destroy harms nobody else");
    }

    async fn get(&self, _: Request) -> Result<Response, Error> {
        self.diary.note(self.name);
        Ok(Response::text(self.name))
    }
}

fn app(diary: &Diary, faulty: &str, fault: Fault) -> App {
    let part = |name: &'static str| {
        let fault = if name == faulty { fault } else { Fault::None };
        Part { name, diary: diary.clone(), fault }
    };
    App::new()
        .attribute(7_u32)
        .listener(part("l1"))
        .listener(part("l2"))
        .filter("f1", "/*", part("f1"))
        .filter_servlets("f2", "s2", part("f2"))
        .filter("f3", "*.html", part("f3"))
        .servlet("s1", "/one", part("s1"))
        .servlet("s2", ["/two", "*.html"], part("s2"))
}

#[tokio::test]
async fn parts_start_in_order_and_stop_in_reverse() {
    let diary = Diary::default();
    let client = TestClient::new(app(&diary, "", Fault::None)).start().await.unwrap();
    assert_eq!(diary.take(), ["+l1", "+l2", "+f1", "+f2", "+f3", "+s1", "+s2"]);
    let context = Arc::clone(client.context());
    let error = client.stop().await.unwrap_err().to_string();
    assert_eq!(diary.take(), ["-s2", "-s1", "-f3", "-f2", "-f1", "-l2", "-l1"]);
    assert!(error.contains("servlet 's1'"), "{error}");
    assert!(context.attribute::<u32>().is_none());
}

#[tokio::test]
async fn a_failed_start_stops_what_was_started() {
    for (faulty, want) in [
        ("l2", &["+l1", "+l2", "-l1"][..]),
        ("f2", &["+l1", "+l2", "+f1", "+f2", "-f1", "-l2", "-l1"]),
        ("s2", &["+l1", "+l2", "+f1", "+f2", "+f3", "+s1", "+s2", "-s1", "-f3", "-f2", "-f1", "-l2", "-l1"]),
    ] {
        let diary = Diary::default();
        let error = TestClient::new(app(&diary, faulty, Fault::Error)).start().await.err().unwrap().to_string();
        assert!(error.ends_with("did not start: no space left"), "{error}");
        assert_eq!(diary.take(), want, "{faulty}");

        let panicking = app(&diary, faulty, Fault::Panic);
        let start = tokio::spawn(async move { TestClient::new(panicking).start().await.is_ok() });
        assert!(start.await.unwrap_err().is_panic());
        assert_eq!(diary.take(), want, "{faulty}");
    }
}

#[tokio::test]
async fn filters_stand_before_paths_and_servlets_in_order() {
    let diary = Diary::default();
    let client = TestClient::new(app(&diary, "", Fault::None)).context_path("/app").start().await.unwrap();
    diary.take();
    for (path, status, want) in [
        ("/one", 200, &[">f1", "s1", "<f1"][..]),
        ("/two", 200, &[">f1", ">f2", "s2", "<f2", "<f1"]),
        ("/a/b.html", 200, &[">f1", ">f3", ">f2", "s2", "<f2", "<f3", "<f1"]),
        ("/nothing", 404, &[">f1", "<f1"]),
    ] {
        assert_eq!(client.get(path).send().await.status(), status, "{path}");
        assert_eq!(diary.take(), want, "{path}");
    }
}

#[tokio::test]
async fn a_filter_may_answer_itself_and_sees_errors() {
    #[derive(Clone)]
    struct User(&'static str);
    let guard = filter_fn(|mut request: Request, next: Next| async move {
        match request.header("authorization") {
            None => Err(Error::unauthorized("who are you?")),
            Some(_) => {
                request.extensions_mut().insert(User("ada"));
                next.run(request).await
            }
        }
    });
    let mend = filter_fn(|request: Request, next: Next| async move {
        match next.run(request).await {
            Err(error) => Ok(Response::text(format!("mended: {error}")).with_status(error.status())),
            fine => fine,
        }
    });
    let app = App::new()
        .filter("mend", "/*", mend)
        .filter("guard", "/private/*", guard)
        .servlet(
            "private",
            "/private/*",
            get(|request: Request| async move { request.extensions().get::<User>().map(|user| user.0) }),
        )
        .servlet("panic", "/panic", get(|_| async { panic!("behind a filter") as &str }));
    let client = TestClient::new(app).start().await.unwrap();
    let refused = client.get("/private/x").send().await;
    assert_eq!((refused.status().as_u16(), &*refused.text().await), (401, "mended: who are you?"));
    assert_eq!(client.get("/private/x").header("authorization", "x").send().await.text().await, "ada");
    assert_eq!(client.get("/panic").send().await.status(), 500);
}
