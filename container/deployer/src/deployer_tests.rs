//! The deployer on real folders with real inotify, over a launcher whose applications are text files: `ok NAME` starts,
//! `bad` is refused, `cut` looks cut off, `slow` waits to be let go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wharf_kernel::admin::{AppState, AppStatus, OperationError, Operations};
use wharf_kernel::launch::{Description, Kind, Launched, Launcher, Plan, Retirement, Servlet};
use wharf_kernel::refusal::Code;
use wharf_kernel::routes::{HostSpec, Lookup, Routes};
use wharf_kernel::{Body, Endpoint, Exchange, Gate, Lease, Refusal, ResponseFuture};

use crate::{DeployerConfig, DeployerHandle, Root, start};

const LONG: Duration = Duration::from_secs(20);

#[derive(Default)]
struct World {
    launches: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
    /// Whether retirements end held.
    held: std::sync::atomic::AtomicBool,
}

struct Fake {
    world: Arc<World>,
    retired: Sender<String>,
}

struct Running {
    text: String,
    description: Description,
    gate: Gate,
    world: Arc<World>,
    retired: Sender<String>,
}

struct Answer(u16);

impl Endpoint for Answer {
    fn call(&self, _exchange: Box<Exchange>, _lease: Lease) -> ResponseFuture {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::from_u16(self.0).unwrap();
        Box::pin(std::future::ready(response))
    }
}

impl Launcher for Fake {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        let text = fs::read_to_string(&plan.source).map_err(|e| Refusal::new(Code::Unreadable, e.to_string()))?;
        let sha256 = format!("{:x}", text.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into())));
        match text.trim() {
            "bad" => Err(Refusal::new(Code::NotElf, "bad")),
            t if t.ends_with("end") || t.is_empty() => {
                Ok(Description { sha256, version: text, ..Description::default() })
            }
            _ => Err(Refusal::new(Code::Truncated, "cut off")),
        }
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let now = self.world.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.world.most.fetch_max(now, Ordering::SeqCst);
        if description.version.contains("slow") {
            std::thread::sleep(Duration::from_millis(30));
        }
        self.world.now.fetch_sub(1, Ordering::SeqCst);
        self.world.launches.lock().unwrap().push(format!("{}={}", plan.id, description.version.trim()));
        if description.version.contains("panics") {
            return Err(Refusal::new(Code::StartPanicked, "boom"));
        }
        Ok(Arc::new(Running {
            text: description.version.trim().to_owned(),
            description,
            gate: Gate::new(|| {}),
            world: self.world.clone(),
            retired: self.retired.clone(),
        }))
    }
}

impl Launched for Running {
    fn description(&self) -> &Description {
        &self.description
    }
    fn endpoint(&self) -> Arc<dyn Endpoint> {
        Arc::new(Answer(if self.text.contains("sick") { 500 } else { 204 }))
    }
    fn servlets(&self) -> &[Servlet] {
        &[]
    }
    fn gate(&self) -> &Gate {
        &self.gate
    }
    fn live_bytes(&self) -> Option<u64> {
        None
    }
    fn retire(&self, _drain_timeout: Duration) -> Retirement {
        assert!(self.gate.try_lease().is_none(), "retired with an open gate");
        self.retry_retire()
    }
    fn retry_retire(&self) -> Retirement {
        if self.world.held.load(Ordering::SeqCst) {
            return Retirement { held_by: vec!["thread 'poller'".into()], ..Retirement::default() };
        }
        let _ = self.retired.send(self.text.clone());
        Retirement { unmapped: true, ..Retirement::default() }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    deployer: DeployerHandle,
    routes: Arc<Routes>,
    world: Arc<World>,
    retired: Receiver<String>,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, |_| {})
    }

    fn with(files: &[(&str, &str)], change: impl FnOnce(&mut DeployerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let deploy = dir.path().join("deploy");
        fs::create_dir(&deploy).unwrap();
        for (name, text) in files {
            fs::create_dir_all(deploy.join(name).parent().unwrap()).unwrap();
            fs::write(deploy.join(name), text).unwrap();
        }
        let mut config = DeployerConfig {
            guards: None,
            roots: vec![Root { host: "default".into(), dir: deploy, prefix: String::new() }],
            state_dir: dir.path().join("state"),
            // Long, so that the tests show that events arrive.
            poll_interval: Duration::from_secs(60),
            parallel: 4,
            trial_timeout: LONG,
            start_timeout: LONG,
            stop_timeout: LONG,
            drain_timeout: LONG,
            keep_versions: 3,
            retire_old_versions: false,
            runtime_threads: 1,
            blocking_threads: 1,
            share: wharf_kernel::Share::default(),
        };
        change(&mut config);
        let world = Arc::new(World::default());
        let (sender, retired) = channel();
        let launcher = Arc::new(Fake { world: world.clone(), retired: sender });
        let routes = Arc::new(Routes::default());
        let deployer =
            start(config, vec![(Kind::Module, launcher)], routes.clone(), vec![HostSpec::fallback()]).unwrap();
        assert!(deployer.wait_ready(LONG));
        Self { dir, deployer, routes, world, retired }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("deploy").join(name)
    }

    /// Puts a file in as a careful tool does.
    fn drop(&self, name: &str, text: &str) {
        let temporary = self.path(&format!("{name}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    fn app(&self, name: &str) -> AppStatus {
        self.deployer.list().into_iter().find(|a| a.name == name).unwrap_or_else(|| panic!("no application {name}"))
    }

    /// Waits for a change that only events can bring about.
    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < LONG, "never: {what}; {:#?}", self.deployer.list());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn serving(&self, path: &str) -> Option<u64> {
        match self.routes.load().find("", path) {
            Lookup::Found(route, _) => Some(route.generation),
            _ => None,
        }
    }

    fn launches(&self) -> Vec<String> {
        self.world.launches.lock().unwrap().clone()
    }
}

#[test]
fn a_renamed_file_replaces_the_old_one_and_a_removed_one_goes() {
    let bench = Bench::new(&[("shop.so", "one end"), ("ROOT.so", "root end"), ("note.txt", "x"), (".x.so", "bad")]);
    let first = bench.serving("/shop/x").unwrap();
    assert!(bench.serving("/").is_some());
    bench.drop("shop.so", "two end");
    bench.until("the new one serves", |b| b.serving("/shop").is_some_and(|g| g > first));
    assert_eq!(bench.retired.recv_timeout(LONG).unwrap(), "one end");
    fs::remove_file(bench.path("shop.so")).unwrap();
    assert_eq!(bench.retired.recv_timeout(LONG).unwrap(), "two end");
    bench.until("it is unlisted", |b| b.deployer.list().len() == 1);
    // Nothing but the root is left to answer.
    assert_eq!(bench.serving("/shop"), bench.serving("/"));
}

#[test]
fn a_failure_at_any_stage_keeps_the_old_one_and_is_tried_again_only_after_a_change() {
    for (text, code) in [
        ("bad", Code::NotElf),
        ("panics end", Code::StartPanicked),
        ("sick end", Code::Unhealthy),
        ("cut", Code::Truncated),
    ] {
        let bench = Bench::new(&[("shop.so", "one end"), ("shop.toml", "health = \"/\"")]);
        let first = bench.serving("/shop").unwrap();
        bench.drop("shop.so", text);
        bench.until("the failure is reported", |b| b.app("shop").error.is_some());
        let app = bench.app("shop");
        assert_eq!(app.error.unwrap().code, code);
        assert_eq!((app.state, bench.serving("/shop")), (AppState::Serving, Some(first)));
        let tried = bench.launches();
        assert!(bench.deployer.wait_settled(LONG));
        assert!(bench.deployer.wait_settled(LONG));
        assert_eq!(bench.launches(), tried);
        bench.drop("shop.so", "three end");
        bench.until("the good one serves", |b| b.serving("/shop").is_some_and(|g| g > first));
        assert_eq!(bench.app("shop").error, None);
    }
}

#[test]
fn a_side_car_changes_the_place_and_the_parameters() {
    let bench = Bench::new(&[("shop.so", "one end"), ("lonely.toml", "")]);
    fs::write(bench.path("shop.toml"), "context_path = \"/store\"").unwrap();
    bench.until("it moved", |b| b.serving("/store").is_some());
    assert_eq!(bench.serving("/shop"), None);
    fs::write(bench.path("shop.toml"), "contxt_path = \"/x\"").unwrap();
    bench.until("the error shows", |b| b.app("shop").error.is_some());
    let error = bench.app("shop").error.unwrap();
    assert_eq!(error.code, Code::BadAppToml);
    assert!(error.what.contains("did you mean 'context_path'?"), "{error}");
    assert!(bench.serving("/store").is_some());
    fs::write(bench.path("shop.toml"), "enabled = false").unwrap();
    bench.until("it is disabled", |b| b.app("shop").state == AppState::Disabled);
    assert_eq!(bench.serving("/store"), None);
}

#[test]
fn a_file_that_is_copied_slowly_is_waited_for() {
    use std::io::Write;
    let bench = Bench::new(&[("shop.so", "one end")]);
    let first = bench.serving("/shop");
    fs::remove_file(bench.path("shop.so")).unwrap();
    bench.until("it is gone", |b| b.serving("/shop").is_none() && first.is_some());
    let mut file = fs::File::create(bench.path("shop.so")).unwrap();
    // Slower than a file settles, faster than one is given up.
    for part in ["par", "t by ", "part "] {
        file.write_all(part.as_bytes()).unwrap();
        file.flush().unwrap();
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(bench.app("shop").error, None);
    }
    file.write_all(b"end").unwrap();
    drop(file);
    bench.until("it serves", |b| b.serving("/shop").is_some());
    assert_eq!(bench.launches().last().unwrap(), "/shop=part by part end");
    assert_eq!(bench.deployer.stats().failed.load(Ordering::Relaxed), 0);
}

#[test]
fn starts_are_bounded_and_follow_the_load_order() {
    let mut files: Vec<(String, String)> = Vec::new();
    for n in 0..12 {
        files.push((format!("a{n}.so"), "slow end".into()));
        files.push((format!("a{n}.toml"), format!("order = {}", n % 3)));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let bench = Bench::with(&files, |c| c.parallel = 3);
    assert_eq!(bench.world.most.load(Ordering::SeqCst), 3);
    let order: Vec<u32> = bench
        .launches()
        .iter()
        .map(|l| l.trim_start_matches("/a").split('=').next().unwrap().parse::<u32>().unwrap() % 3)
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn versions_live_side_by_side_or_make_place() {
    for retire in [false, true] {
        let bench = Bench::with(&[("shop##1.so", "one end")], |c| c.retire_old_versions = retire);
        let first = bench.serving("/shop").unwrap();
        bench.drop("shop##2.so", "two end");
        bench.until("the newer serves", |b| b.serving("/shop").is_some_and(|g| g > first));
        if retire {
            assert_eq!(bench.retired.recv_timeout(LONG).unwrap(), "one end");
            assert_eq!(bench.app("shop##1").state, AppState::Superseded);
        } else {
            assert_eq!(bench.app("shop##1").state, AppState::Serving);
        }
        fs::remove_file(bench.path("shop##2.so")).unwrap();
        bench.until("the older serves again", |b| {
            b.serving("/shop").is_some() && b.app("shop##1").state == AppState::Serving && b.deployer.list().len() == 1
        });
    }
}

#[test]
fn what_is_no_application_is_refused_with_its_code() {
    use std::os::unix::fs::PermissionsExt;
    let bench =
        Bench::new(&[("a.so", "one end"), ("b.so", "two end"), ("b.toml", "context_path = \"/a\""), ("empty/x", "")]);
    std::os::unix::fs::symlink(bench.path("a.so"), bench.path("link.so")).unwrap();
    bench.drop("a..so", "x end");
    bench.drop("open.so", "x end");
    fs::set_permissions(bench.path("open.so"), fs::Permissions::from_mode(0o646)).unwrap();
    assert!(bench.deployer.wait_settled(LONG));
    let codes: BTreeMap<String, Option<Code>> =
        bench.deployer.list().into_iter().map(|a| (a.name, a.error.map(|e| e.code))).collect();
    assert_eq!(codes["a"], None);
    assert_eq!(codes["b"], Some(Code::Duplicate));
    assert_eq!(codes["empty"], Some(Code::NoAppToml));
    assert_eq!(codes["link"], Some(Code::NotRegular));
    assert_eq!(codes["open"], Some(Code::WorldWritable));
    // The place becomes free: the other one takes it without a change of its own.
    fs::remove_file(bench.path("a.so")).unwrap();
    bench.until("b serves", |b| b.app("b").state == AppState::Serving);
    fs::set_permissions(bench.path("open.so"), fs::Permissions::from_mode(0o644)).unwrap();
    bench.until("open serves", |b| b.app("open").state == AppState::Serving);
}

#[test]
fn operations() {
    let bench = Bench::new(&[]);
    let deploy = |text: &str| bench.deployer.deploy("shop", &mut text.as_bytes());
    assert_eq!(deploy("one end").unwrap().state, AppState::Serving);
    assert_eq!(deploy("two end").unwrap().state, AppState::Serving);
    assert!(matches!(deploy("bad"), Err(OperationError::Refused(r)) if r.code == Code::NotElf));
    // The newest is bad: back to what still serves; then to the one before; then there is none.
    assert_eq!(bench.deployer.rollback("shop").unwrap().error, None);
    assert_eq!(fs::read_to_string(bench.path("shop.so")).unwrap(), "two end");
    bench.deployer.rollback("/shop").unwrap();
    assert_eq!(fs::read_to_string(bench.path("shop.so")).unwrap(), "one end");
    assert!(matches!(bench.deployer.rollback("shop"), Err(OperationError::Conflict(_))));
    let before = bench.serving("/shop").unwrap();
    bench.deployer.reload("shop").unwrap();
    assert!(bench.serving("/shop").unwrap() > before);
    assert_eq!(bench.deployer.stop("shop").unwrap().state, AppState::Stopped);
    assert!(matches!(bench.routes.load().find("", "/shop"), Lookup::Suspended(_)));
    assert!(matches!(bench.deployer.reload("shop"), Err(OperationError::Conflict(_))));
    assert_eq!(bench.deployer.start("shop").unwrap().state, AppState::Serving);
    assert!(bench.serving("/shop").is_some());
    bench.deployer.undeploy("shop").unwrap();
    assert!(!bench.path("shop.so").exists());
    assert_eq!(bench.serving("/shop"), None);
    assert!(matches!(bench.deployer.start("shop"), Err(OperationError::NotFound(_))));
    assert!(matches!(bench.deployer.deploy("../x", &mut "x".as_bytes()), Err(OperationError::Invalid(_))));
}

#[test]
fn a_held_generation_is_listed_and_looked_at_again() {
    let bench = Bench::new(&[("shop.so", "one end")]);
    bench.world.held.store(true, Ordering::SeqCst);
    bench.drop("shop.so", "two end");
    bench.until("it is held", |b| b.app("shop").generations.iter().any(|g| g.held_by == ["thread 'poller'"]));
    assert_eq!(bench.deployer.stats().held.load(Ordering::Relaxed), 1);
    bench.world.held.store(false, Ordering::SeqCst);
    assert_eq!(bench.retired.recv_timeout(LONG).unwrap(), "one end");
    bench.until("nothing is held", |b| b.deployer.stats().held.load(Ordering::Relaxed) == 0);
}

#[test]
fn at_the_end_everything_is_retired() {
    let bench = Bench::new(&[("a.so", "a end"), ("b.so", "b end")]);
    assert!(bench.deployer.shutdown(Duration::ZERO).is_empty());
    let mut gone: Vec<String> = bench.retired.try_iter().collect();
    gone.sort();
    assert_eq!(gone, ["a end", "b end"]);
    assert_eq!(bench.serving("/a"), None);
    assert!(bench.deployer.list().is_empty());
}

#[test]
fn a_missing_folder_is_made_and_a_vanished_one_changes_nothing() {
    let bench = Bench::new(&[("shop.so", "one end")]);
    let first = bench.serving("/shop");
    fs::rename(bench.path(""), bench.dir.path().join("away")).unwrap();
    assert!(bench.deployer.wait_settled(LONG));
    assert_eq!(bench.serving("/shop"), first);
    fs::rename(bench.dir.path().join("away"), bench.path("")).unwrap();
    assert!(bench.deployer.wait_settled(LONG));
    bench.drop("shop.so", "two end");
    bench.until("the new one serves", |b| b.serving("/shop") > first);
    assert!(Path::new(&bench.app("shop").source).exists());
}

/// A small generator of numbers (xorshift): the order of operations must differ, not be secret.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn operations_from_all_sides_leave_a_consistent_state() {
    let bench = Bench::new(&[]);
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let deployer = bench.deployer.clone();
            let dir = bench.path("");
            scope.spawn(move || {
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for n in 0..60 {
                    let name = format!("app{}", random(&mut state) % 3);
                    let mut good = format!("{seed} {n} end");
                    if random(&mut state).is_multiple_of(5) {
                        good = "bad".into();
                    }
                    // What each says depends on the others; that it answers at all, and the end, do not.
                    match random(&mut state) % 7 {
                        0 | 1 => drop(deployer.deploy(&name, &mut good.as_bytes())),
                        2 => drop(deployer.undeploy(&name)),
                        3 => drop(deployer.stop(&name)),
                        4 => drop(deployer.start(&name)),
                        5 => drop(deployer.reload(&name)),
                        _ => {
                            let temporary = dir.join(format!("{name}-{seed}.tmp"));
                            fs::write(&temporary, &good).unwrap();
                            fs::rename(temporary, dir.join(format!("{name}.so"))).unwrap();
                        }
                    }
                }
            });
        }
    });
    assert!(bench.deployer.wait_settled(LONG));
    bench.until("all that is replaced has gone", |b| b.deployer.list().iter().all(|a| a.generations.len() <= 1));
    for n in 0..3 {
        let (name, path) = (format!("app{n}"), format!("/app{n}"));
        let app = bench.deployer.list().into_iter().find(|a| a.name == name);
        let file = fs::read_to_string(bench.path(&format!("{name}.so"))).ok();
        let serving = bench.serving(&path);
        assert_eq!(app.is_some(), file.is_some(), "{name}");
        let Some(app) = app else {
            assert_eq!(serving, None);
            continue;
        };
        match app.state {
            AppState::Serving => assert_eq!(serving, app.generations.first().map(|g| g.generation)),
            AppState::Stopped | AppState::Failed => assert_eq!(serving, None, "{app:?}"),
            other => panic!("{name} is {other:?} at the end"),
        }
        if app.state == AppState::Serving && app.error.is_none() {
            assert_eq!(Some(app.generations[0].package_version.as_str()), file.as_deref());
        }
    }
    let served = bench.deployer.stats().served.load(Ordering::Relaxed);
    bench.deployer.shutdown(Duration::ZERO);
    assert_eq!(bench.retired.try_iter().count() as u64, bench.deployer.stats().retired.load(Ordering::Relaxed));
    assert!(bench.deployer.stats().retired.load(Ordering::Relaxed) >= served);
}
