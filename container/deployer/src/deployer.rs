//! The deployer: one thread that owns all decisions. What it decides is done on threads of their own, which report back.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wharf_kernel::admin::{AppStatus, OperationError};
use wharf_kernel::guard::Guards;
use wharf_kernel::launch::{Kind, Launcher, Retirement};
use wharf_kernel::routes::{HostSpec, Routes};
use wharf_kernel::{AppCounters, AppId, Refusal, Share};

use crate::app::App;
use crate::folders::{Change, Folders};
use crate::generation::Generation;
use crate::handle::DeployerHandle;
use crate::job::Ready;
use crate::scan::Root;

/// How the deployer works. The meaning of each value is that of the setting of the same name.
#[derive(Clone)]
pub struct DeployerConfig {
    /// Who makes the guards of applications with constraints; without it such an application is refused.
    pub guards: Option<Arc<dyn Guards>>,
    /// The folders that are watched; the first one takes uploads.
    pub roots: Vec<Root>,
    /// Folder for the kept versions.
    pub state_dir: PathBuf,
    /// How often the folders are looked at without an event.
    pub poll_interval: Duration,
    /// Generations brought up at the same time.
    pub parallel: usize,
    /// How long a trial load may take.
    pub trial_timeout: Duration,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// How long a stop may take.
    pub stop_timeout: Duration,
    /// How long the requests in flight of a replaced generation may take.
    pub drain_timeout: Duration,
    /// Earlier good files kept.
    pub keep_versions: usize,
    /// Whether older versions are retired when a newer one serves.
    pub retire_old_versions: bool,
    /// Threads of a module's runtime.
    pub runtime_threads: usize,
    /// Threads for a module's blocking servlets.
    pub blocking_threads: usize,
    /// What an application may take that says nothing of it.
    pub share: Share,
}

/// Who runs which kind of application.
pub type Launchers = Vec<(Kind, Arc<dyn Launcher>)>;

/// What the deployer has done so far, for the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Generations that came to serve.
    pub served: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Generations that went, their code unmapped.
    pub retired: AtomicU64,
    /// Generations that something holds in memory now.
    pub held: AtomicU64,
    /// Bytes that retired generations had left on their heaps, freed with them.
    pub left_bytes: AtomicU64,
    /// Upgraded connections that did not end within the drain time.
    pub cut_upgrades: AtomicU64,
}

pub(crate) enum Message {
    Files(Change),
    Verified { name: String, generation: u64, version: String, sha256: String },
    Ended { name: String, generation: u64, result: Result<Ready, Refusal> },
    Retired { generation: u64, retirement: Retirement },
    Operation(Operation, SyncSender<Result<AppStatus, OperationError>>),
    List(SyncSender<Vec<AppStatus>>),
    Settle(SyncSender<()>),
    Drain,
    Shutdown { drain_timeout: Duration, done: SyncSender<Vec<AppStatus>> },
}

pub(crate) enum Operation {
    Install { name: String, file: tempfile::NamedTempFile },
    Undeploy { name: String },
    Start { name: String },
    Stop { name: String },
    Reload { name: String },
    Rollback { name: String },
}

/// True once the first look has settled.
#[derive(Default)]
pub(crate) struct Readiness {
    ready: Mutex<bool>,
    changed: Condvar,
}

impl Readiness {
    fn set(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn get(&self) -> bool {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(ready, timeout, |r| !*r).unwrap_or_else(PoisonError::into_inner).0
    }
}

pub(crate) struct Deployer {
    pub(crate) config: DeployerConfig,
    pub(crate) launchers: Launchers,
    pub(crate) routes: Arc<Routes>,
    pub(crate) hosts: Vec<HostSpec>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) apps: BTreeMap<String, App>,
    /// Generations on their way out.
    pub(crate) leaving: Vec<Generation>,
    pub(crate) counters: BTreeMap<AppId, Arc<AppCounters>>,
    /// Files that were closed or renamed in since they were last written.
    pub(crate) closed: HashSet<PathBuf>,
    pub(crate) waiters: Vec<(String, SyncSender<Result<AppStatus, OperationError>>)>,
    pub(crate) warned: HashSet<PathBuf>,
    pub(crate) running: usize,
    pub(crate) last_generation: u64,
    sender: Sender<Message>,
    settle: Vec<SyncSender<()>>,
    watcher: Option<Folders>,
    watched: HashSet<PathBuf>,
    readiness: Arc<Readiness>,
    shutdown: Option<SyncSender<Vec<AppStatus>>>,
}

/// Starts the deployer and its first look at the folders.
///
/// # Errors
/// When a deploy folder can't be made, or no thread can be started.
pub fn start(
    config: DeployerConfig,
    launchers: Launchers,
    routes: Arc<Routes>,
    hosts: Vec<HostSpec>,
) -> std::io::Result<DeployerHandle> {
    let mut config = config;
    for root in &mut config.roots {
        let context =
            |e: std::io::Error| std::io::Error::new(e.kind(), format!("deploy folder '{}': {e}", root.dir.display()));
        std::fs::create_dir_all(&root.dir).map_err(context)?;
        // Events name files by the path that is watched: one form of it, whatever happens to the working directory.
        root.dir = std::path::absolute(&root.dir)?;
    }
    let (sender, receiver) = channel();
    let events = sender.clone();
    let watcher = Folders::start(move |change| drop(events.send(Message::Files(change))));
    let watcher = watcher
        .inspect_err(|error| tracing::warn!(%error, "changes in the deploy folder are found by looking every {:?} alone", config.poll_interval))
        .ok();
    let stats = Arc::new(Stats::default());
    let readiness = Arc::new(Readiness::default());
    let handle = DeployerHandle::new(sender.clone(), readiness.clone(), stats.clone(), config.roots.clone());
    let deployer = Deployer {
        config,
        launchers,
        routes,
        hosts,
        stats,
        apps: BTreeMap::new(),
        leaving: Vec::new(),
        counters: BTreeMap::new(),
        closed: HashSet::new(),
        waiters: Vec::new(),
        warned: HashSet::new(),
        running: 0,
        last_generation: 0,
        sender,
        settle: Vec::new(),
        watcher,
        watched: HashSet::new(),
        readiness,
        shutdown: None,
    };
    thread::Builder::new().name("deployer".into()).spawn(move || deployer.run(&receiver))?;
    Ok(handle)
}

impl Deployer {
    pub(crate) fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        self.watch();
        self.scan();
        let mut last_scan = Instant::now();
        loop {
            self.reconcile();
            self.answer();
            if let Some(done) = &self.shutdown
                && self.running == 0
                && self.leaving.iter().all(|g| g.is_held())
            {
                let _ = done.send(self.statuses());
                return;
            }
            let poll = last_scan + self.config.poll_interval;
            let mut queue = VecDeque::new();
            match wait(receiver, self.next_deadline(poll)) {
                Ok(message) => queue.push_back(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            queue.extend(receiver.try_iter());
            let now = Instant::now();
            // A look is due for the slow poll, and when a file that is not known to be complete has had time to settle.
            let mut look = now >= poll || self.settling(now);
            for message in queue {
                look |= self.take(message);
            }
            if look && self.shutdown.is_none() {
                self.watch();
                self.scan();
                last_scan = Instant::now();
            }
            self.retry_held(Instant::now());
        }
    }

    /// Handles a message; says whether the folders must be looked at.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Files(change) => {
                self.file_event(change);
                return true;
            }
            Message::Verified { name, generation, version, sha256 } => {
                self.verified(&name, generation, version, sha256)
            }
            Message::Ended { name, generation, result } => self.ended(&name, generation, result),
            Message::Retired { generation, retirement } => self.retired(generation, retirement),
            Message::Operation(operation, reply) => self.operate(operation, reply),
            Message::List(reply) => {
                let _ = reply.send(self.statuses());
            }
            Message::Settle(reply) => {
                self.settle.push(reply);
                return true;
            }
            Message::Drain => self.drain_all(),
            Message::Shutdown { drain_timeout, done } => {
                self.config.drain_timeout = drain_timeout;
                self.shutdown = Some(done);
                self.retire_all();
            }
        }
        false
    }

    fn file_event(&mut self, change: Change) {
        let (path, closed) = match change {
            Change::Closed(path) => (path, true),
            Change::Written(path) => (path, false),
            Change::Other => return,
        };
        if let Some(app) = self.apps.values_mut().find(|a| a.has_file(&path)) {
            app.seen.closed = closed;
        }
        if closed {
            self.closed.insert(path);
        } else {
            self.closed.remove(&path);
        }
    }

    /// Watches the folders and the exploded folders in them; again those that were removed and made anew.
    fn watch(&mut self) {
        let mut wanted: HashSet<PathBuf> = self.config.roots.iter().map(|r| r.dir.clone()).collect();
        for app in self.apps.values() {
            if let Some(source) = &app.source {
                wanted.extend(source.files.iter().filter_map(|f| Some(f.parent()?.to_owned())));
            }
        }
        wanted.retain(|dir| dir.is_dir());
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&wanted) {
            watcher.unwatch(gone);
        }
        let mut watched = HashSet::new();
        for dir in wanted {
            if self.watched.contains(&dir) || watcher.watch(&dir).is_ok() {
                watched.insert(dir);
            } else if self.warned.insert(dir.clone()) {
                tracing::warn!(dir = %dir.display(), "can't watch this folder; changes are found by the slow poll alone");
            }
        }
        self.watched = watched;
    }

    /// Answers whoever waits for what has happened by now.
    fn answer(&mut self) {
        for (name, reply) in std::mem::take(&mut self.waiters) {
            let answer = match self.apps.get(&name) {
                None => Err(OperationError::NotFound(name)),
                Some(app) if !app.is_settled() => {
                    self.waiters.push((name, reply));
                    continue;
                }
                Some(app) => match &app.error {
                    Some(refusal) => Err(OperationError::Refused(Box::new(refusal.clone()))),
                    None => Ok(self.status(&name, app)),
                },
            };
            let _ = reply.send(answer);
        }
        if self.running == 0 && self.apps.values().all(|a| a.is_settled() || a.retry_at.is_some()) {
            if !self.readiness.get() {
                self.readiness.set();
                tracing::info!(applications = self.apps.len(), "the first look at the deploy folder is done");
            }
            if self.apps.values().all(App::is_settled) {
                for reply in self.settle.drain(..) {
                    let _ = reply.send(());
                }
            }
        }
    }

    pub(crate) fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// The next message, as long as it comes before the deadline.
fn wait(receiver: &Receiver<Message>, deadline: Option<Instant>) -> Result<Message, RecvTimeoutError> {
    match deadline {
        Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
        None => receiver.recv().map_err(RecvTimeoutError::from),
    }
}

#[cfg(test)]
#[path = "deployer_tests.rs"]
mod tests;
