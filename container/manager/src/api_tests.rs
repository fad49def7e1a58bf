//! The admin API over a deployer that only remembers what it was asked.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Request;
use tower::ServiceExt;
use wharf_kernel::Refusal;
use wharf_kernel::admin::AppState;
use wharf_kernel::launch::Kind;
use wharf_kernel::refusal::Code;

use super::*;

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn note(&self, what: &str, name: &str) -> Result<AppStatus, OperationError> {
        self.0.lock().unwrap().push(format!("{what} {name}"));
        match name {
            "gone" => Err(OperationError::NotFound(name.into())),
            "bad" => Err(OperationError::Refused(Box::new(Refusal::new(Code::NotElf, "bad.so")))),
            _ => Ok(AppStatus {
                name: name.into(),
                host: "default".into(),
                context_path: "/".into(),
                version: String::new(),
                kind: Kind::Module,
                source: String::new(),
                state: AppState::Serving,
                error: None,
                load: wharf_kernel::admin::Load::default(),
                generations: Vec::new(),
            }),
        }
    }
}

impl Operations for Recorder {
    fn list(&self) -> Vec<AppStatus> {
        self.note("list", "").into_iter().collect()
    }
    fn deploy(&self, name: &str, file: &mut dyn Read) -> Result<AppStatus, OperationError> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| OperationError::Failed(e.to_string()))?;
        self.note(&format!("deploy {text}"), name)
    }
    fn undeploy(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.note("undeploy", name)
    }
    fn start(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.note("start", name)
    }
    fn stop(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.note("stop", name)
    }
    fn reload(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.note("reload", name)
    }
    fn rollback(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.note("rollback", name)
    }
    fn is_ready(&self) -> bool {
        true
    }
}

#[test]
fn every_resource() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (method, path, body, status, asked, answer) in [
        ("GET", "/v1/apps", "", 200, "list ", "\"serving\""),
        ("GET", "/v1/apps/x", "", 404, "list ", "wharf list"),
        ("POST", "/v1/apps?name=shop%23%232", "elf", 201, "deploy elf shop##2", "shop##2"),
        ("POST", "/v1/apps?name=bad", "elf", 422, "deploy elf bad", "W0202"),
        ("POST", "/v1/apps", "elf", 400, "", "name"),
        ("DELETE", "/v1/apps/a%23b", "", 200, "undeploy a#b", "a#b"),
        ("DELETE", "/v1/apps/gone", "", 404, "undeploy gone", "no application 'gone'"),
        ("POST", "/v1/apps/x/start", "", 200, "start x", ""),
        ("POST", "/v1/apps/x/stop", "", 200, "stop x", ""),
        ("POST", "/v1/apps/x/reload", "", 200, "reload x", ""),
        ("POST", "/v1/apps/x/rollback", "", 200, "rollback x", ""),
        ("POST", "/v1/apps/x/explode", "", 404, "", "no operation 'explode'"),
        ("GET", "/v1/apps/x/stop", "", 405, "", "method"),
        ("GET", "/v1/metrics", "", 200, "", "up 1"),
        ("GET", "/v1/resources", "", 200, "", "[]"),
        ("GET", "/v1/info", "", 200, "", "http://h"),
        ("GET", "/livez", "", 200, "", "ok"),
        ("GET", "/readyz", "", 503, "", "starting"),
        ("POST", "/v1/shutdown", "", 202, "", ""),
        ("GET", "/nothing", "", 404, "", "no such resource"),
    ] {
        let recorder = Arc::new(Recorder::default());
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        let manager = Manager {
            operations: recorder.clone(),
            metrics: Arc::new(|| "up 1\n".into()),
            ready: Arc::new(|| false),
            shutdown: Arc::new(move || flag.store(true, Ordering::SeqCst)),
            backends: Arc::new(NoProxies),
            resources: Arc::new(Vec::new),
            info: Arc::new(Info {
                version: "0".into(),
                pid: 1,
                listening: vec!["http://h".into()],
                deploy_dirs: Vec::new(),
            }),
        };
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        let (got, text) = runtime.block_on(async {
            let response = router(manager).oneshot(request).await.unwrap();
            let got = response.status().as_u16();
            let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (got, String::from_utf8(text.to_vec()).unwrap())
        });
        assert_eq!(got, status, "{method} {path}: {text}");
        assert_eq!(recorder.0.lock().unwrap().join(","), asked, "{method} {path}");
        assert!(text.contains(answer), "{method} {path}: {text}");
        assert_eq!(stopped.load(Ordering::SeqCst), path == "/v1/shutdown");
        if status >= 400 {
            let problem: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(problem.status, status);
        }
    }
}

struct NoProxies;

impl Backends for NoProxies {
    fn list(&self, _: &AppId) -> Option<Vec<BackendStatus>> {
        None
    }

    fn set_drained(&self, _: &AppId, _: &str, _: bool) -> bool {
        false
    }
}
