//! A CGI application as the pipeline sees it: whom a program takes a client for, and how a generation is let go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use wharf_gateway::Cgi;
use wharf_kernel::launch::{Kind, Launched, Launcher, Plan};
use wharf_kernel::options::{CgiOptions, Options};
use wharf_kernel::{
    AppId, Authenticated, Body, Connection, ContextPath, Exchange, PathElements, ResponseFuture, Version,
};

fn plan(root: &Path, cgi: CgiOptions) -> Plan {
    Plan {
        id: AppId { host: "default".into(), path: ContextPath::parse("/app").unwrap(), version: Version::default() },
        kind: Kind::Cgi,
        source: root.to_owned(),
        folder: None,
        init: Default::default(),
        generation: 1,
        trial_timeout: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        stop_timeout: Duration::from_secs(1),
        runtime_threads: 1,
        blocking_threads: 1,
        options: Arc::new(Options { cgi: Some(cgi), ..Options::default() }),
    }
}

fn call(app: &Arc<dyn Launched>, path: &str, user: Option<&str>) -> ResponseFuture {
    let target = format!("/app{path}");
    let mut request = Request::builder().uri(&target).body(Body::empty()).unwrap();
    if let Some(user) = user {
        request.extensions_mut().insert(Authenticated::new(user, "Basic", []));
    }
    let path: Arc<str> = target.split('?').next().unwrap().into();
    let exchange = Exchange {
        request,
        path: PathElements::new(path.clone(), &path, &ContextPath::parse("/app").unwrap(), None),
        authority: "a".into(),
        connection: Arc::new(Connection::new(Some("192.0.2.1:1".parse().unwrap()), None, false)),
        id: "1".into(),
        session: wharf_kernel::session::SessionSlot::default(),
    };
    app.endpoint().call(Box::new(exchange), app.gate().try_lease().unwrap())
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

fn script(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
    std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_program_learns_who_was_authenticated_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let show = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n%s' \"${REMOTE_USER-nobody} ${AUTH_TYPE-none}\"\n";
    script(folder.path(), "who.cgi", show);
    let cgi = Cgi::default();
    let app = cgi.launch(&plan(folder.path(), CgiOptions::default())).unwrap();
    for (user, expected) in [(None, "nobody none"), (Some("ann"), "ann Basic")] {
        let response = call(&app, "/who.cgi", user).await;
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, expected));
    }
}

/// Git's own server lets nobody write but those whom the container has authenticated.
#[tokio::test]
async fn git_refuses_a_push_of_nobody_and_takes_one_of_somebody() {
    let backend = Path::new("/usr/lib/git-core/git-http-backend");
    if !backend.exists() {
        assert!(std::env::var_os("WHARF_REQUIRE_ALL").is_none_or(|v| v != "1"), "{} is missing", backend.display());
        println!("skipped: {} is missing", backend.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made =
        std::process::Command::new("git").args(["init", "--quiet", "--bare"]).arg(folder.path().join("x.git")).status();
    assert!(made.unwrap().success());
    let root = folder.path().to_str().unwrap().to_owned();
    let options = CgiOptions {
        program: Some(backend.to_owned()),
        env: [("GIT_PROJECT_ROOT".to_owned(), root), ("GIT_HTTP_EXPORT_ALL".to_owned(), "1".to_owned())].into(),
        ..CgiOptions::default()
    };
    let cgi = Cgi::default();
    let app = cgi.launch(&plan(folder.path(), options)).unwrap();
    for (service, user, status) in
        [("git-receive-pack", None, 403), ("git-receive-pack", Some("ann"), 200), ("git-upload-pack", None, 200)]
    {
        let path = format!("/x.git/info/refs?service={service}");
        let response = call(&app, &path, user).await;
        assert_eq!(response.status().as_u16(), status, "{service} {user:?}");
        let body = text(response).await;
        assert!(status != 200 || body.contains(&format!("# service={service}")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_not_drained_in_time_takes_its_programs_with_it() {
    let folder = tempfile::tempdir().unwrap();
    script(
        folder.path(),
        "hang.cgi",
        "#!/bin/sh\ntrap '' TERM\necho $$ > pid.part\nmv pid.part pid\nwhile :; do sleep 1000; done\n",
    );
    let options = CgiOptions { kill_timeout: Duration::from_millis(100), ..CgiOptions::default() };
    let cgi = Cgi::default();
    let app = cgi.launch(&plan(folder.path(), options)).unwrap();
    let running = tokio::spawn(call(&app, "/hang.cgi", None));
    let pid = loop {
        match std::fs::read_to_string(folder.path().join("pid")) {
            Ok(pid) => break pid,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let retired = tokio::task::spawn_blocking({
        let app = app.clone();
        move || app.retire(Duration::ZERO)
    });
    retired.await.unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "not even a zombie is left");
    let response = running.await.unwrap();
    // 502, or 503 where the end came before its start was noticed.
    assert!(matches!(response.status().as_u16(), 502 | 503), "{}", response.status());
    drop(response);
    // The last lease goes with what served the program's pipes, on another thread.
    let let_go = async {
        while !app.retry_retire().held_by.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), let_go).await.expect("nothing holds it");
    assert!(app.gate().try_lease().is_none());
}
