//! Keeps the processes of an application's own command running: started with the listening socket on descriptor 0, started again
//! when they end, and later each time when they crash.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wharf_kernel::Refusal;
use wharf_kernel::options::{FastCgiAddress, FastCgiOptions};
use wharf_kernel::refusal::Code;

use crate::program::errors::{self, Budget};
use crate::program::process::{Process, Processes, Start};

/// A process that lived for less than this and served nothing has crashed, whatever it says.
const CRASH: Duration = Duration::from_secs(1);
/// The first pause after a crash; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
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
    count: usize,
    /// Requests that were answered.
    served: AtomicU64,
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
            count: options.processes(),
            served: AtomicU64::new(0),
        });
        let this = Self { shared, socket, _folder: folder };
        let _context = runtime.enter();
        for _ in 0..this.shared.count {
            match this.shared.spawn() {
                Ok(started) => drop(runtime.spawn(keep(this.shared.clone(), started))),
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

    /// Ends all of them, and starts none again. Blocks until they are gone.
    pub(super) fn stop(&self, grace: Duration) {
        self.shared.processes.end_all(grace);
    }
}

type Started = (Process, [JoinHandle<()>; 2]);

impl Shared {
    fn is_down(&self) -> bool {
        self.resting.load(Ordering::SeqCst) >= self.count
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

/// Keeps one process running for as long as the application does.
async fn keep(shared: Arc<Shared>, mut started: Started) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (begin, served) = (Instant::now(), shared.served.load(Ordering::Relaxed));
        let status = started.0.wait().await;
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
