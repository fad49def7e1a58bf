//! Modules come and go on threads that live on: loaded, used and truly unloaded, many times, in one process.
//!
//! Has a `main` of its own, for it must also be the child that does the trial load.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use wharf_kernel::launch::{Kind, Launched, Launcher, Plan};
use wharf_kernel::refusal::Code;
use wharf_kernel::workers::Workers;
use wharf_kernel::{AppId, Body, Connection, ContextPath, Exchange, PathElements, Version};
use wharf_mapping::{Match, MatchKind};
use wharf_module::{ModuleConfig, ModuleLauncher, trial};

/// As in the container.
#[global_allocator]
static ALLOCATOR: wharf_module::Allocator = wharf_module::Allocator;

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>;

/// Two threads that live as long as the process, each with a runtime of its own, as the container's workers.
struct Pool(Vec<Mutex<Sender<Job>>>);

impl Pool {
    fn start() -> Arc<Self> {
        let spawn = |i: usize| {
            let (sender, jobs) = channel::<Job>();
            let run = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                jobs.into_iter().for_each(|job| job(&runtime));
            };
            std::thread::Builder::new().name(format!("worker-{i}")).spawn(run).unwrap();
            Mutex::new(sender)
        };
        Arc::new(Self((0..2).map(spawn).collect()))
    }

    fn run<T: Send + 'static>(
        &self,
        worker: usize,
        job: impl FnOnce(&tokio::runtime::Runtime) -> T + Send + 'static,
    ) -> T {
        let (sender, done) = channel();
        let job = Box::new(move |runtime: &tokio::runtime::Runtime| sender.send(job(runtime)).unwrap());
        self.0[worker].lock().unwrap().send(job).unwrap();
        done.recv().unwrap()
    }

    /// GET on a worker: status and content.
    fn get(&self, worker: usize, app: &Arc<dyn Launched>, path: &str, servlet: usize) -> (u16, String) {
        let lease = app.gate().try_lease().expect("an open gate");
        let (endpoint, path) = (app.endpoint(), path.to_owned());
        let found =
            Match { servlet, pattern: 0, servlet_path_len: path.len(), has_path_info: false, kind: MatchKind::Exact };
        self.run(worker, move |runtime| {
            runtime.block_on(async {
                let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
                let exchange = Box::new(Exchange {
                    session: wharf_kernel::session::SessionSlot::default(),
                    request: http::Request::get(path.as_str()).header("x-test", "1").body(Body::empty()).unwrap(),
                    path: PathElements::new(path.as_str(), &path, &ContextPath::root(), Some(found)),
                    authority: "localhost".into(),
                    connection: Arc::new(Connection::new(Some(peer), Some(peer), false)),
                    id: "test-1".into(),
                });
                let response = endpoint.call(exchange, lease).await;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                (status, String::from_utf8_lossy(&body).into_owned())
            })
        })
    }
}

impl Workers for Pool {
    fn on_each(&self, task: Arc<dyn Fn() + Send + Sync>, done: Arc<dyn Fn(&str) + Send + Sync>) {
        for (i, worker) in self.0.iter().enumerate() {
            let (task, done) = (task.clone(), done.clone());
            let job = Box::new(move |_: &tokio::runtime::Runtime| {
                task();
                done(&format!("worker-{i}"));
            });
            worker.lock().unwrap().send(job).unwrap();
        }
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn names(&self) -> Vec<String> {
        (0..self.0.len()).map(|i| format!("worker-{i}")).collect()
    }
}

fn fixtures() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // What a build script may look at, so that it does not run again because this test is what runs cargo.
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    std::env::vars().filter(|(name, _)| of_package(name)).for_each(|(name, _)| _ = cargo.env_remove(name));
    let built = cargo
        .args(["build", "--quiet", "-p", "chameleon", "-p", "redeploy-a", "-p", "redeploy-b"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the fixtures do not build");
    // This test's executable is target/debug/deps/unloading-…
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned()
}

fn plan(source: PathBuf, generation: u64, init: &[(&str, &str)]) -> Plan {
    Plan {
        id: AppId { host: "default".into(), path: ContextPath::root(), version: Version::default() },
        kind: Kind::Module,
        source,
        folder: None,
        init: init.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        generation,
        trial_timeout: Duration::from_secs(5),
        start_timeout: Duration::from_secs(5),
        stop_timeout: Duration::from_secs(2),
        runtime_threads: 1,
        blocking_threads: 2,
        options: Arc::default(),
    }
}

fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap()
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Bench {
    pool: Arc<Pool>,
    launcher: ModuleLauncher,
    libraries: PathBuf,
}

impl Bench {
    fn library(&self, name: &str) -> PathBuf {
        self.libraries.join(format!("lib{name}.so"))
    }

    /// Two builds, in turn, each used on both workers in every way that pins a library, then retired.
    fn redeploys(&self, rounds: u64) {
        let (mut after_warm_up, mut descriptors) = (0, 0);
        let mut destructors = 0;
        for generation in 1..=rounds {
            let (name, version) = if generation % 2 == 0 { ("redeploy-a", "a") } else { ("redeploy-b", "b") };
            let plan = plan(self.library(&name.replace('-', "_")), generation, &[]);
            self.launcher.verify(&plan).unwrap();
            let app = self.launcher.launch(&plan).unwrap();
            for worker in 0..2 {
                for path in ["/", "/sleep", "/spawn"] {
                    let answer = format!("version {version} generation {generation}\n");
                    assert_eq!(self.pool.get(worker, &app, path, 0), (200, answer), "{path}");
                }
                assert_eq!(self.pool.get(worker, &app, "/word/wharf", 0), (200, "a word".to_owned()));
                assert_eq!(self.pool.get(worker, &app, "/fetch", 0), (200, "fetched".to_owned()));
            }
            let retirement = app.retire(Duration::from_secs(2));
            assert_eq!(retirement.held_by, [""; 0], "generation {generation}");
            assert!(retirement.unmapped && retirement.left_blocks > 0 && retirement.notes.is_empty(), "{retirement:?}");
            destructors += retirement.destructors_run;
            if generation == rounds / 4 {
                descriptors = open_descriptors();
            }
            // The highest of a quarter of the rounds: one sample swings with the allocator's purges.
            if (rounds / 4..=rounds / 2).contains(&generation) {
                after_warm_up = after_warm_up.max(resident_kib());
            }
        }
        assert!(!maps().contains("/generations/"), "a generation is still mapped");
        let growth = resident_kib().saturating_sub(after_warm_up);
        println!("{rounds} redeploys: {destructors} destructors, {growth} KiB more than up to {}", rounds / 2);
        assert!(destructors >= rounds * 2);
        assert!(growth < 4096, "{growth} KiB");
        assert!(open_descriptors() <= descriptors, "{} descriptors, {descriptors} before", open_descriptors());
    }

    fn launch(&self, generation: u64, init: &[(&str, &str)]) -> Result<Arc<dyn Launched>, wharf_kernel::Refusal> {
        let plan = plan(self.library("chameleon"), generation, init);
        self.launcher.verify(&plan)?;
        self.launcher.launch(&plan)
    }

    fn a_thread_that_stays_is_named_and_the_generation_goes_when_it_ends(&self) {
        let app = self.launch(10_001, &[("start", "thread"), ("only", "container"), ("millis", "3500")]).unwrap();
        assert_eq!(self.pool.get(0, &app, "/", 0).1, "one");
        let retirement = app.retire(Duration::from_secs(1));
        assert!(!retirement.unmapped && retirement.held_by.len() == 1, "{retirement:?}");
        assert!(retirement.held_by[0].starts_with("thread 'poller'"), "{retirement:?}");
        assert!(maps().contains("/generations/"));
        let retirement = loop {
            let retirement = app.retry_retire();
            if retirement.unmapped {
                break retirement;
            }
        };
        assert_eq!(retirement.held_by, [""; 0]);
        assert!(!maps().contains("/generations/"));
    }

    fn what_is_leaked_is_counted_and_freed(&self) {
        let app = self.launch(10_002, &[("start", "leak")]).unwrap();
        assert!(app.live_bytes().unwrap() > 100_000);
        let retirement = app.retire(Duration::from_secs(1));
        assert!(retirement.unmapped && retirement.left_bytes > 100_000, "{retirement:?}");
    }

    fn signal_handlers_go_with_their_module_and_sigterm_is_not_its_to_take(&self) {
        let caught = |signal: u32| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
        };
        let (terminate, window_change) = (15, 28);
        assert!(!caught(window_change));
        let app = self.launch(10_004, &[("start", "signals")]).unwrap();
        assert!(caught(window_change) && !caught(terminate));
        let retirement = app.retire(Duration::from_secs(1));
        assert!(retirement.unmapped && retirement.notes.len() == 1, "{retirement:?}");
        assert!(!caught(window_change));
    }

    fn panics_are_answered_with_500_and_counted(&self) {
        let app = self.launch(10_003, &[]).unwrap();
        for worker in 0..2 {
            assert_eq!(self.pool.get(worker, &app, "/panic", 1).0, 500);
            assert_eq!(self.pool.get(worker, &app, "/", 0), (200, "one".to_owned()));
        }
        assert_eq!(app.panics(), 2);
        assert!(app.retire(Duration::from_secs(1)).unmapped);
    }

    fn failing_starts_leave_nothing(&self) {
        // In the trial: found there, nothing of it ever runs here.
        for (start, code) in [
            ("error", Code::StartFailed),
            ("panic", Code::StartPanicked),
            ("crash", Code::TrialCrashed),
            ("exit", Code::TrialExited),
            ("hang", Code::TrialHung),
        ] {
            let refusal = self.launch(10_010, &[("start", start)]).err().expect(start);
            assert_eq!(refusal.code, code, "{refusal}");
        }
        // Only here: the trial passes.
        for (generation, (start, code)) in (10_020..).zip([
            ("error", Code::StartFailed),
            ("panic", Code::StartPanicked),
            ("hang", Code::StartHung),
            ("thread-error", Code::StartFailed),
        ]) {
            let mut plan = plan(self.library("chameleon"), generation, &[("start", start), ("only", "container")]);
            plan.start_timeout = Duration::from_secs(1);
            let refusal = self.launcher.launch(&plan).err().expect(start);
            assert_eq!(refusal.code, code, "{refusal}");
        }
        // Those whose threads go on stay, and their threads run unharmed; the others are gone.
        std::thread::sleep(Duration::from_millis(50));
        let left: Vec<String> =
            maps().lines().filter(|l| l.contains("/generations/") && l.contains("r-xp")).map(str::to_owned).collect();
        assert!(left.len() == 2 && left[0].contains("10022") != left[0].contains("10023"), "{left:#?}");
    }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(trial::COMMAND) {
        return wharf_module::trial_main();
    }
    let state = tempfile::tempdir().unwrap();
    let pool = Pool::start();
    let config = ModuleConfig {
        state_dir: Path::new(state.path()).join("state"),
        trial_program: std::env::current_exe().unwrap(),
        sessions: None,
        resources: Arc::new(wharf_kernel::resource::NoResources),
    };
    let launcher = ModuleLauncher::new(config, pool.clone()).unwrap();
    let bench = Bench { pool, launcher, libraries: fixtures() };
    let rounds = std::env::var("WHARF_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    bench.redeploys(rounds);
    bench.a_thread_that_stays_is_named_and_the_generation_goes_when_it_ends();
    bench.what_is_leaked_is_counted_and_freed();
    bench.signal_handlers_go_with_their_module_and_sigterm_is_not_its_to_take();
    bench.panics_are_answered_with_500_and_counted();
    bench.failing_starts_leave_nothing();
    println!("test result: ok. 6 passed; 0 failed");
    ExitCode::SUCCESS
}
