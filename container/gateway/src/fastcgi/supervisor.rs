//! Keeps the processes of an application's own command running: started with the listening socket on descriptor 0, started again
//! when they end, and later each time when they crash. More come with the requests, and end when they are not needed.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wharf_kernel::Refusal;
use wharf_kernel::options::{FastCgiAddress, FastCgiOptions};
use wharf_kernel::refusal::Code;

use super::connection::Pool;
use crate::program::errors::{self, Budget};
use crate::program::process::{Process, Processes, Start};
use crate::program::slots::Places;

/// A process that lived for less than this and served nothing has crashed, whatever it says.
const CRASH: Duration = Duration::from_secs(1);
/// How often it is looked whether something has happened for which there is no event.
const TICK: Duration = Duration::from_millis(20);
/// The first pause after a crash; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So long requests wait at most for processes to go that are not needed. One that is slow to go may get another request.
const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// A process that lived for so long has not crashed for the reason that the one before had.
const STEADY: Duration = Duration::from_secs(30);

/// The processes of one application.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    socket: PathBuf,
    /// Of the socket; nobody else may enter it.
    _folder: TempDir,
}

struct Shared {
    app: String,
    command: Vec<String>,
    folder: PathBuf,
    variables: Vec<(String, Vec<u8>)>,
    listener: UnixListener,
    processes: Arc<Processes>,
    budget: Arc<Budget>,
    /// How many wait to be started again.
    resting: AtomicUsize,
    /// How often the last of them crashed.
    outages: AtomicU64,
    /// How many there are, those that rest included; and how many there may be.
    running: AtomicUsize,
    least: usize,
    most: usize,
    /// The most requests at once since the last look.
    peak: AtomicUsize,
    /// A permit for each process that is to end.
    surplus: Semaphore,
    /// Requests that were answered.
    served: AtomicU64,
    grace: Duration,
    /// Connections, of which no more are kept than there are processes; and how many may be kept.
    pool: OnceLock<(Arc<Pool>, usize)>,
    runtime: Handle,
}

impl Supervisor {
    /// Starts the processes. Blocks until they are executed.
    ///
    /// # Errors
    /// When there is no such program, or the system gives no socket.
    pub(super) fn start(
        options: &FastCgiOptions,
        app: &str,
        root: &Path,
        budget: &Arc<Budget>,
        runtime: &Handle,
    ) -> Result<Self, Refusal> {
        let program = options.command.first().map(String::as_str).unwrap_or_default();
        let refuse = |what: String| Refusal::new(Code::StartFailed, format!("[fastcgi] command: {program}: {what}"));
        let folder = tempfile::Builder::new().prefix("wharf-fastcgi-").tempdir().map_err(|e| refuse(e.to_string()))?;
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).map_err(|e| refuse(format!("its socket: {e}")))?;
        let filled = |argument: &String| argument.replace("{root}", &root.to_string_lossy()).replace("{context}", app);
        let mut variables = vec![("PATH".to_owned(), b"/usr/local/bin:/usr/bin:/bin:/usr/sbin".to_vec())];
        let limit =
            options.max_requests.map(|count| ("PHP_FCGI_MAX_REQUESTS".to_owned(), count.to_string().into_bytes()));
        variables.extend(limit);
        variables.extend(options.env.iter().map(|(n, v)| (n.clone(), v.clone().into_bytes())));
        let shared = Arc::new(Shared {
            app: app.to_owned(),
            command: options.command.iter().map(filled).collect(),
            folder: root.to_owned(),
            variables,
            listener,
            processes: Arc::default(),
            budget: budget.clone(),
            resting: AtomicUsize::new(0),
            outages: AtomicU64::new(0),
            running: AtomicUsize::new(options.min_processes()),
            least: options.min_processes(),
            most: options.processes(),
            peak: AtomicUsize::new(0),
            surplus: Semaphore::new(0),
            served: AtomicU64::new(0),
            grace: options.kill_timeout,
            pool: OnceLock::new(),
            runtime: runtime.clone(),
        });
        let this = Self { shared, socket, _folder: folder };
        let _context = runtime.enter();
        for _ in 0..this.shared.least {
            match this.shared.spawn() {
                Ok(started) => drop(runtime.spawn(keep(this.shared.clone(), started, false))),
                Err(error) => {
                    this.stop(Duration::ZERO);
                    return Err(refuse(error.to_string()).fix("name a program that is installed, or its whole path"));
                }
            }
        }
        Ok(this)
    }

    /// Where the processes listen.
    pub(super) fn address(&self) -> FastCgiAddress {
        FastCgiAddress::Unix(self.socket.clone())
    }

    /// Keeps as many processes from now on as requests need. They come over `pool`, which may keep `kept` connections, and wait for
    /// `places`.
    pub(super) fn follow(&self, pool: &Arc<Pool>, kept: usize, places: &Places, idle: Duration) {
        let _ = self.shared.pool.set((pool.clone(), kept));
        self.shared.keep_connections();
        if self.shared.least < self.shared.most {
            self.shared.runtime.spawn(trim(self.shared.clone(), places.clone(), idle));
        }
    }

    /// Says how many requests are under way, the newest included.
    pub(super) fn need(&self, requests: usize) {
        let shared = &self.shared;
        if shared.least == shared.most {
            return;
        }
        shared.peak.fetch_max(requests, Ordering::Relaxed);
        let running = shared.running.load(Ordering::SeqCst);
        let more = requests > running && running < shared.most && !shared.is_down();
        let counted = || shared.running.compare_exchange(running, running + 1, Ordering::SeqCst, Ordering::SeqCst);
        // Of several that see the same number one starts a process; the others find it, or need one more themselves.
        if more && counted().is_ok() {
            let shared = shared.clone();
            self.shared.runtime.spawn(async move {
                match shared.spawn() {
                    Ok(started) => {
                        shared.keep_connections();
                        keep(shared, started, true).await;
                    }
                    Err(error) => {
                        tracing::warn!(app = %shared.app, "the command can't be started once more: {error}");
                        shared.running.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    }

    /// Says that a request was answered.
    pub(super) fn served(&self) {
        self.shared.served.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all of them have crashed and wait to be started again.
    pub(super) fn is_down(&self) -> bool {
        self.shared.is_down()
    }

    /// How often it has happened that none of them ran any more.
    pub(super) fn outages(&self) -> u64 {
        self.shared.outages.load(Ordering::SeqCst)
    }

    /// Processor time that they took since the last call.
    pub(super) fn take_time(&self) -> Duration {
        self.shared.processes.take_time()
    }

    /// Ends all of them, and starts none again. Blocks until they are gone.
    pub(super) fn stop(&self, grace: Duration) {
        self.shared.processes.end_all(grace);
    }
}

type Started = (Process, [JoinHandle<()>; 2]);

impl Shared {
    fn is_down(&self) -> bool {
        self.resting.load(Ordering::SeqCst) >= self.running.load(Ordering::SeqCst)
    }

    /// A process that waits on a connection accepts no other.
    fn keep_connections(&self) {
        if let Some((pool, kept)) = self.pool.get() {
            pool.keep_at_most(self.running.load(Ordering::SeqCst).min(*kept));
        }
    }

    /// Closes the connections that were made to a process which has crashed before it accepted them: there is none to answer
    /// them, and the next one may be long in coming.
    fn refuse_waiting(&self) {
        // The mode is shared with the processes, of which none runs now.
        if self.listener.set_nonblocking(true).is_ok() {
            while self.listener.accept().is_ok() {}
        }
        if let Err(error) = self.listener.set_nonblocking(false) {
            tracing::warn!(app = %self.app, "the socket of the command can't be made to block again: {error}");
        }
    }

    fn spawn(&self) -> std::io::Result<Started> {
        let [program, arguments @ ..] = &self.command[..] else { return Err(std::io::ErrorKind::NotFound.into()) };
        let start = Start {
            program: OsStr::new(program),
            arguments,
            folder: Some(&self.folder),
            memory: None,
            cpu: None,
            open_files: None,
        };
        let socket = OwnedFd::from(self.listener.try_clone()?);
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let (process, pipes) = Process::start(&self.processes, &start, variables, Stdio::from(socket))?;
        let log = |fd: OwnedFd| {
            let receiver = pipe::Receiver::from_owned_fd(fd)?;
            Ok::<_, std::io::Error>(tokio::spawn(errors::log(
                receiver,
                self.app.clone(),
                "-".into(),
                self.budget.clone(),
            )))
        };
        Ok((process, [log(pipes.stdout.into())?, log(pipes.stderr.into())?]))
    }
}

/// Keeps one process running for as long as the application does or, where it is one of those that come and go, until there are too
/// many.
async fn keep(shared: Arc<Shared>, mut started: Started, may_go: bool) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (begin, served) = (Instant::now(), shared.served.load(Ordering::Relaxed));
        let status = tokio::select! {
            status = started.0.wait() => status,
            Ok(permit) = shared.surplus.acquire(), if may_go => {
                permit.forget();
                started.0.end(shared.grace).await;
                shared.running.fetch_sub(1, Ordering::SeqCst);
                tracing::debug!(app = %shared.app, "a process of the command is not needed any more");
                return;
            }
        };
        if shared.processes.is_closed() {
            return;
        }
        let lived = begin.elapsed();
        if lived >= STEADY {
            pause = FIRST_PAUSE;
        }
        // It has served the requests that it wanted to, which may take no time at all.
        if status.success() && (lived >= CRASH || shared.served.load(Ordering::Relaxed) > served) {
            pause = FIRST_PAUSE;
            tracing::debug!(app = %shared.app, "a process of the command ended: {status}");
        } else {
            tracing::warn!(app = %shared.app, "a process of the command ended after {lived:.1?}: {status}; the next starts in {pause:?}");
            rest(&shared, &mut pause).await;
        }
        started = loop {
            match shared.spawn() {
                Ok(started) => break started,
                Err(_) if shared.processes.is_closed() => return,
                Err(error) => {
                    tracing::warn!(app = %shared.app, "the command can't be started: {error}; tried again in {pause:?}");
                    rest(&shared, &mut pause).await;
                }
            }
        };
    }
}

/// Ends processes that were not needed for `idle`. Which of them serves a request is not known, so they end when none is under way; those
/// that come meanwhile wait.
async fn trim(shared: Arc<Shared>, places: Places, idle: Duration) {
    let mut since = Instant::now();
    loop {
        tokio::time::sleep((idle / 4).max(TICK)).await;
        if shared.processes.is_closed() {
            return;
        }
        shared.peak.fetch_max(places.taken(), Ordering::Relaxed);
        if since.elapsed() < idle {
            continue;
        }
        let wanted = shared.peak.load(Ordering::Relaxed).max(shared.least);
        let surplus = shared.running.load(Ordering::SeqCst).saturating_sub(wanted);
        if surplus > 0 {
            let Some(all) = places.take_all() else { continue };
            if let Some((pool, kept)) = shared.pool.get() {
                pool.keep_at_most(wanted.min(*kept));
            }
            shared.surplus.add_permits(surplus);
            let gone = async {
                while shared.running.load(Ordering::SeqCst) > wanted {
                    tokio::time::sleep(TICK).await;
                }
            };
            let _ = tokio::time::timeout((shared.grace + TICK).min(LONGEST_HOLD), gone).await;
            // One that rests after a crash is not told now; it goes on.
            let left = shared.surplus.available_permits();
            drop(shared.surplus.try_acquire_many(left as u32).map(SemaphorePermit::forget));
            drop(all);
        }
        since = Instant::now();
        shared.peak.store(places.taken(), Ordering::Relaxed);
    }
}

async fn rest(shared: &Shared, pause: &mut Duration) {
    shared.resting.fetch_add(1, Ordering::SeqCst);
    if shared.is_down() {
        shared.outages.fetch_add(1, Ordering::SeqCst);
        shared.refuse_waiting();
    }
    tokio::time::sleep(*pause).await;
    shared.resting.fetch_sub(1, Ordering::SeqCst);
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
