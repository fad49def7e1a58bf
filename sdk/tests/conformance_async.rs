//! Conformance: asynchronous processing (Servlet 6.1, section 2.3.3.3), one row for each rule and outcome.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf_sdk::{
    App, AsyncContext, AsyncDropped, AsyncEvent, AsyncListener, AsyncTimeout, ClientGone, DispatchError, Error,
    Request, Response, StatusCode, TestClient, any, get,
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

struct Listener {
    name: &'static str,
    diary: Diary,
    answers: bool,
}

impl AsyncListener for Listener {
    fn on_start_async(&self, event: &AsyncEvent<'_>) {
        assert!(event.request().request_uri().starts_with("/test/"));
        self.diary.note(format!("{}:start", self.name));
    }

    fn on_complete(&self, _: &AsyncEvent<'_>) {
        self.diary.note(format!("{}:complete", self.name));
    }

    fn on_timeout(&self, _: &AsyncEvent<'_>) -> Option<Response> {
        self.diary.note(format!("{}:timeout", self.name));
        self.answers.then(|| Response::text("late").with_status(StatusCode::SERVICE_UNAVAILABLE))
    }

    fn on_error(&self, event: &AsyncEvent<'_>) {
        let error = event.error().expect("an error");
        let what = error.source().map_or(error.message().to_owned(), |source| match source {
            source if source.is::<AsyncTimeout>() => "AsyncTimeout".into(),
            source if source.is::<AsyncDropped>() => "AsyncDropped".into(),
            source if source.is::<ClientGone>() => "ClientGone".into(),
            source => source.to_string(),
        });
        self.diary.note(format!("{}:error({what})", self.name));
    }
}

const SHORT: Duration = Duration::from_millis(1);

/// What is done with the asynchronous context, by name.
async fn act(what: &str, context: AsyncContext) {
    match what {
        "complete" => context.complete("done").unwrap(),
        "status" => context.complete(StatusCode::ACCEPTED).unwrap(),
        "fail" => context.complete(Err::<(), _>(Error::conflict("no"))).unwrap(),
        "drop" => drop(context),
        "dispatch" => context.dispatch("/target").unwrap(),
        "dispatch-relative" => assert!(matches!(context.dispatch("target"), Err(DispatchError::NotAbsolute(_)))),
        "dispatch-nowhere" => assert!(matches!(context.dispatch("/nowhere"), Err(DispatchError::NotFound(_)))),
        "dispatch-failing" => context.dispatch("/failing").unwrap(),
        "dispatch-restart" => context.dispatch("/restart").unwrap(),
        "hold" => {
            let mut context = context;
            context.over().await;
            assert!(context.is_over());
            assert_eq!(context.complete("too late"), Err(DispatchError::Over));
        }
        "attributes" => {
            let mut context = context;
            let text = context.request_mut().text().await.unwrap();
            context.request_mut().set_attribute("text", text);
            context.dispatch("/target").unwrap();
        }
        other => panic!("{other}"),
    }
}

fn app(diary: &Diary, answers: bool, timeout: Option<Duration>) -> App {
    let listener = {
        let diary = diary.clone();
        move |name| Listener { name, diary: diary.clone(), answers: answers && name == "b" }
    };
    let again = listener.clone();
    App::new()
        .servlet(
            "start",
            "/start/*",
            any(move |request: Request| {
                let listener = listener.clone();
                async move {
                    let what = request.path_info().unwrap_or_default().trim_start_matches('/').to_owned();
                    let (context, answer) = request.start_async();
                    context.add_listener(listener("a"))?;
                    context.add_listener(listener("b"))?;
                    if timeout.is_some() {
                        context.set_timeout(timeout)?;
                    }
                    tokio::spawn(async move { act(&what, context).await });
                    answer.await
                }
            }),
        )
        .servlet(
            "target",
            "/target",
            any(|request: Request| async move {
                let text = request.attribute::<String>("text").map(|t| (*t).clone()).unwrap_or_default();
                format!("target {} {text}", request.dispatcher_type())
            }),
        )
        .servlet("failing", "/failing", any(|_| async { Err::<(), _>(Error::conflict("target fails")) }))
        .servlet(
            "restart",
            "/restart",
            any(move |request: Request| {
                let listener = again.clone();
                async move {
                    let (context, answer) = request.start_async();
                    context.add_listener(listener("c"))?;
                    context.complete("again")?;
                    answer.await
                }
            }),
        )
}

/// Every way for an asynchronous request to end: status, content, what the listeners hear.
#[tokio::test]
async fn outcomes() {
    let rows = [
        ("complete", None, false, 200, "done", "a:complete b:complete", "complete()"),
        ("status", None, false, 202, "", "a:complete b:complete", "complete() with a status alone"),
        ("fail", None, false, 409, "no", "a:error(no) b:error(no) a:complete b:complete", "complete() with an error"),
        (
            "drop",
            None,
            false,
            500,
            "",
            "a:error(AsyncDropped) b:error(AsyncDropped) a:complete b:complete",
            "nobody answers",
        ),
        ("dispatch", None, false, 200, "target ASYNC ", "a:complete b:complete", "dispatch(path)"),
        (
            "dispatch-relative",
            None,
            false,
            500,
            "",
            "a:error(asynchronous dispatch to 'target': the path must begin with '/') b:error(asynchronous dispatch to 'target': the path must begin with '/') a:complete b:complete",
            "dispatch() of a relative path",
        ),
        (
            "dispatch-nowhere",
            None,
            false,
            500,
            "",
            "a:error(dispatch to '/nowhere': no servlet takes this path) b:error(dispatch to '/nowhere': no servlet takes this path) a:complete b:complete",
            "dispatch() to no servlet",
        ),
        (
            "dispatch-failing",
            None,
            false,
            409,
            "target fails",
            "a:error(target fails) b:error(target fails) a:complete b:complete",
            "dispatch() to a servlet that fails",
        ),
        (
            "dispatch-restart",
            None,
            false,
            200,
            "again",
            "a:start b:start c:complete a:complete b:complete",
            "startAsync() again tells the listeners before (onStartAsync)",
        ),
        (
            "hold",
            Some(SHORT),
            false,
            500,
            "",
            "a:timeout b:timeout a:error(AsyncTimeout) b:error(AsyncTimeout) a:complete b:complete",
            "a timeout that no listener answers is a 500",
        ),
        (
            "hold",
            Some(SHORT),
            true,
            503,
            "late",
            "a:timeout b:timeout a:complete b:complete",
            "a listener answers on a timeout",
        ),
        ("complete", Some(Duration::ZERO), false, 200, "done", "a:complete b:complete", "a timeout of nothing is none"),
        (
            "attributes",
            None,
            false,
            200,
            "target ASYNC body",
            "a:complete b:complete",
            "the request can be read and written meanwhile",
        ),
    ];
    for (what, timeout, answers, status, text, heard, rule) in rows {
        let diary = Diary::default();
        let client = TestClient::new(app(&diary, answers, timeout)).context_path("/test").start().await.unwrap();
        let response = client.post(&format!("/start/{what}")).body("body").send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {what}");
        assert_eq!(diary.take(), heard, "{rule}: {what}");
    }
}

/// Timeouts that the builder sets, for all servlets or one (2.3.3.3: a timeout is an error dispatch with 500).
#[tokio::test]
async fn timeouts_of_servlets() {
    let never = || get(|_| async { std::future::pending::<&'static str>().await });
    let quick = || get(|_| async { "quick" });
    let rows = [
        ("/never", true, false, 500, "timeout", "of the application"),
        ("/quick", true, false, 200, "quick", "in time"),
        ("/long", true, false, 200, "quick", "a longer one of the servlet's"),
        ("/never", false, true, 500, "timeout", "of the servlet"),
        ("/quick", false, true, 200, "quick", "of another servlet"),
    ];
    for (path, of_app, of_servlet, status, text, rule) in rows {
        let mut app = App::new()
            .servlet("never", "/never", never())
            .servlet("quick", "/quick", quick())
            .servlet(
                "long",
                "/long",
                get(|_| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    "quick"
                }),
            )
            .servlet_timeout("long", Duration::from_secs(60))
            .error_page_for::<AsyncTimeout>(any(|_| async { "timeout" }));
        if of_app {
            app = app.async_timeout(SHORT);
        }
        if of_servlet {
            app = app.servlet_timeout("never", SHORT);
        }
        let client = TestClient::new(app).start().await.unwrap();
        let response = client.get(path).send().await;
        assert_eq!((response.status().as_u16(), response.text().await.as_str()), (status, text), "{rule}: {path}");
    }
    // A servlet's zero takes it out of the application's.
    let app = App::new()
        .servlet(
            "slow",
            "/slow",
            get(|_| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                "slow"
            }),
        )
        .async_timeout(SHORT)
        .servlet_timeout("slow", Duration::ZERO);
    let client = TestClient::new(app).start().await.unwrap();
    assert_eq!(client.get("/slow").send().await.text().await, "slow");
}

/// Listeners of the application hear of every request.
#[tokio::test]
async fn listeners_of_the_application() {
    let rows = [
        ("/ok", 200, "x:complete", "a request that is answered"),
        ("/fails", 409, "x:error(no) x:complete", "one that fails"),
        ("/panics", 500, "x:error(the application panicked) x:complete", "one that panics"),
        ("/never", 503, "x:timeout x:complete", "one that takes too long, answered by the listener"),
        ("/started", 200, "x:start x:complete", "one that calls startAsync"),
        ("/held", 503, "x:start x:timeout x:complete", "one whose context takes too long"),
    ];
    for (path, status, heard, rule) in rows {
        let diary = Diary::default();
        let app = App::new()
            .async_listener(Listener { name: "x", diary: diary.clone(), answers: false })
            .async_listener(Answers)
            .servlet("ok", "/ok", get(|_| async { "ok" }))
            .servlet("fails", "/fails", get(|_| async { Err::<(), _>(Error::conflict("no")) }))
            .servlet(
                "panics",
                "/panics",
                get(|_| async {
                    if true {
                        panic!("as asked")
                    }
                }),
            )
            .servlet("never", "/never", get(|_| async { std::future::pending::<&'static str>().await }))
            .servlet_timeout("never", SHORT)
            .servlet(
                "started",
                "/started",
                get(|request: Request| async move {
                    let (context, answer) = request.start_async();
                    context.complete("started")?;
                    answer.await
                }),
            )
            .servlet(
                "held",
                "/held",
                get(|request: Request| async move {
                    let (context, answer) = request.start_async();
                    context.set_timeout(Some(SHORT))?;
                    let response = answer.await;
                    drop(context);
                    response
                }),
            );
        let client = TestClient::new(app).context_path("/test").start().await.unwrap();
        assert_eq!(client.get(path).send().await.status(), status, "{rule}");
        assert_eq!(diary.take(), heard, "{rule}");
    }
}

struct Answers;

impl AsyncListener for Answers {
    fn on_timeout(&self, _: &AsyncEvent<'_>) -> Option<Response> {
        Some(Response::status(StatusCode::SERVICE_UNAVAILABLE))
    }
}

/// A request whose future is dropped has lost its client: destructors run, listeners and watchers are told.
#[tokio::test]
async fn a_client_that_goes_away_is_seen() {
    struct Dropped(Diary);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.note("dropped");
        }
    }
    let diary = Diary::default();
    let (of_servlet, of_listener) = (diary.clone(), diary.clone());
    let (ended, mut told) = tokio::sync::mpsc::unbounded_channel();
    let started = Arc::new(tokio::sync::Notify::new());
    let begun = Arc::clone(&started);
    let app = App::new()
        .async_listener(Listener { name: "x", diary: diary.clone(), answers: false })
        .servlet(
            "waits",
            "/waits",
            get(move |request: Request| {
                let (diary, ended, begun) = (of_servlet.clone(), ended.clone(), begun.clone());
                async move {
                    let _dropped = Dropped(diary);
                    let mut cancelled = request.cancelled();
                    assert!(!cancelled.is_cancelled());
                    tokio::spawn(async move { ended.send(cancelled.wait().await).unwrap() });
                    begun.notify_one();
                    std::future::pending::<Response>().await
                }
            }),
        )
        .servlet(
            "async",
            "/async",
            get(move |request: Request| {
                let listener = Listener { name: "a", diary: of_listener.clone(), answers: false };
                async move {
                    let (context, answer) = request.start_async();
                    context.add_listener(listener)?;
                    context.set_timeout(None)?;
                    tokio::spawn(async move { act("hold", context).await });
                    answer.await
                }
            }),
        )
        .servlet(
            "answers",
            "/answers",
            get(|request: Request| async move {
                let mut cancelled = request.cancelled();
                let task = tokio::spawn(async move { cancelled.wait().await });
                // The task ends when the response is ready.
                request.context().set_attribute(Mutex::new(Some(task)));
                "answered"
            }),
        );
    let client = TestClient::new(app).context_path("/test").start().await.unwrap();
    tokio::select! {
        _ = client.get("/waits").send() => panic!("it never answers"),
        () = started.notified() => {}
    }
    assert_eq!(told.recv().await, Some(true), "request.cancelled()");
    assert_eq!(
        diary.take(),
        "dropped x:error(ClientGone) x:complete",
        "the future goes first, then the listeners hear"
    );
    tokio::select! {
        biased;
        _ = client.get("/async").send() => panic!("it never answers"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(
        diary.take(),
        "x:start a:error(ClientGone) a:complete x:error(ClientGone) x:complete",
        "listeners of the context and of the application"
    );
    assert_eq!(client.get("/answers").send().await.text().await, "answered");
    let task = client.context().attribute::<Mutex<Option<tokio::task::JoinHandle<bool>>>>().unwrap();
    let task = task.lock().unwrap().take().unwrap();
    assert!(!task.await.unwrap(), "a request that was answered was not cancelled");
}

/// After the handler waits, timeout and listeners can't be changed (2.3.3.3: IllegalStateException).
#[tokio::test]
async fn too_late_to_change() {
    let app = App::new().servlet(
        "late",
        "/late",
        get(|request: Request| async move {
            let (context, answer) = request.start_async();
            let waiting = tokio::spawn(async move { answer.await.map(|r| r.status_code()) });
            while context.set_timeout(None).is_ok() {
                tokio::task::yield_now().await;
            }
            assert_eq!(context.set_timeout(Some(SHORT)), Err(DispatchError::Over));
            assert_eq!(context.add_listener(Answers), Err(DispatchError::Over));
            context.complete("x")?;
            waiting.await??;
            Ok("late")
        }),
    );
    let client = TestClient::new(app).start().await.unwrap();
    assert_eq!(client.get("/late").send().await.text().await, "late");
}

/// `dispatch()` without a path goes to the request's own (2.3.3.3).
#[tokio::test]
async fn dispatch_again() {
    let app = App::new().servlet(
        "again",
        "/again/*",
        get(|request: Request| async move {
            if request.async_from().is_some() {
                return Ok(Response::text(format!("{} {}", request.dispatcher_type(), request.request_uri())));
            }
            let (context, answer) = request.start_async();
            context.dispatch_again()?;
            answer.await
        }),
    );
    let client = TestClient::new(app).context_path("/test").start().await.unwrap();
    assert_eq!(client.get("/again/x;v=1?a=b").send().await.text().await, "ASYNC /test/again/x;v=1");
}
