//! An application that is a program: started on a port or socket of its own, watched, started again, and stopped with all
//! that it started.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use wharf_kernel::options::{ProcessListen, ProxyOptions};

use super::member::Member;
use super::target::Place;
use super::watch::check;
use crate::program::times::Times;

/// What a program inherits of the container's environment: nothing that could be a secret.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "DOTNET_ROOT", "SSL_CERT_FILE"];

/// How long a start must last to count as a good one.
const STEADY: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lines of output that a refusal shows, and the length of one in bytes.
const SHOWN: usize = 8;
const LINE: usize = 4096;

/// How a program is run.
pub(crate) struct Program {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) app: String,
    /// Its working directory.
    pub(crate) dir: PathBuf,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    /// The processor time of its copies.
    pub(crate) times: Arc<Mutex<Times>>,
}

/// A place for a copy of the program to listen: the URL of a backend.
///
/// # Errors
/// When there is none.
pub(crate) fn place(listen: ProcessListen, sockets: &Path, copy: usize) -> std::io::Result<String> {
    match listen {
        ProcessListen::Tcp => {
            // Free now; nobody else is given it at once, since the system hands ports out in turn.
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            Ok(format!("http://{}", listener.local_addr()?))
        }
        ProcessListen::Unix => Ok(format!("unix:{}", sockets.join(format!("{copy}.sock")).display())),
    }
}

type Lines = Arc<Mutex<VecDeque<String>>>;

impl Program {
    /// Runs one copy until `stop`. `ready` hears how the first start went; when it failed, that is the end.
    pub(crate) async fn supervise(
        self: Arc<Self>,
        member: Arc<Member>,
        ready: oneshot::Sender<Result<(), String>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut ready = Some(ready);
        let mut pause = FIRST_PAUSE;
        member.state.set_down(true);
        while !*stop.borrow() {
            let began = Instant::now();
            let why = match self.start(&member) {
                Err(error) => error,
                Ok((mut child, lines)) => {
                    let pid = child.id().unwrap_or_default();
                    self.times().begin(pid);
                    let first = ready.is_some();
                    let why = tokio::select! {
                        why = self.run(&mut child, &member, &mut ready) => why,
                        _ = stop.wait_for(|stop| *stop) => String::new(),
                    };
                    member.state.set_down(true);
                    self.end(child).await;
                    self.times().end(pid);
                    member.sweep(true);
                    if first && ready.is_some() { format!("{why}{}", shown(&lines)) } else { why }
                }
            };
            if *stop.borrow() {
                return;
            }
            if let Some(ready) = ready.take() {
                let _ = ready.send(Err(why));
                return;
            }
            if began.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(app = self.app, backend = %member.connector.target, "{why}; starting it again in {pause:?}");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, member: &Member) -> Result<(Child, Lines), String> {
        let (port, socket, url) = match &member.connector.target.place {
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let path = path.display().to_string();
                (String::new(), path.clone(), format!("http://unix:{path}"))
            }
            Place::Address(addr) => (addr.port().to_string(), String::new(), format!("http://{addr}")),
            Place::Name(..) => return Err("a program listens on an address".to_owned()),
        };
        let mut words = self.options.command.iter().map(|w| w.replace("{port}", &port).replace("{socket}", &socket));
        let program = words.next().unwrap_or_default();
        // A path with a slash is meant from the application's folder.
        let path = if program.contains('/') { self.dir.join(&program) } else { PathBuf::from(&program) };
        let mut command = Command::new(path);
        command.args(words).current_dir(&self.dir).env_clear();
        command.envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if port.is_empty() {
            command.env("SOCKET", &socket);
        } else {
            command.env("PORT", &port);
        }
        command.env("ASPNETCORE_URLS", &url).env("ASPNETCORE_FORWARDEDHEADERS_ENABLED", "true").envs(&self.options.env);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| format!("'{program}' can't be started: {e}"))?;
        let lines = Lines::default();
        let app = &self.app;
        child.stdout.take().map(|out| tokio::spawn(log(out, app.clone(), child.id(), lines.clone())));
        child.stderr.take().map(|err| tokio::spawn(log(err, app.clone(), child.id(), lines.clone())));
        Ok((child, lines))
    }

    /// From the start to the end of the program; says how it ended.
    async fn run(
        &self,
        child: &mut Child,
        member: &Member,
        ready: &mut Option<oneshot::Sender<Result<(), String>>>,
    ) -> String {
        let pid = child.id();
        let up = async {
            loop {
                let answers = match &self.options.health {
                    Some(health) => check(member, health, self.options.protocol).await,
                    None => member.connector.open().await.map(drop).map_err(|e| e.to_string()),
                };
                match answers {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(app = self.app, "not ready yet: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            biased;
            status = child.wait() => return format!("the program ended before it answered, {}", ended(status)),
            up = tokio::time::timeout(self.start_timeout, up) => if up.is_err() {
                return format!("the program did not answer in {:?}", self.start_timeout);
            },
        }
        tracing::info!(app = self.app, backend = %member.connector.target, pid, "the program runs");
        member.state.set_down(false);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        format!("the program has ended, {}", ended(child.wait().await))
    }

    /// Ends it and all that it started: asked first, then not.
    async fn end(&self, mut child: Child) {
        // Without an id it has been waited for; its group may live on, and its first member had the group's number.
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(group) = group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        if tokio::time::timeout(self.stop_timeout, child.wait()).await.is_err() {
            tracing::warn!(
                app = self.app,
                pid = group.as_raw_nonzero(),
                "the program did not stop in {:?} and is killed",
                self.stop_timeout
            );
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|e| e.to_string(), |s| s.to_string())
}

fn shown(lines: &Lines) -> String {
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.is_empty() {
        return "; it printed nothing".to_owned();
    }
    format!("; it printed: {}", lines.iter().cloned().collect::<Vec<_>>().join(" | "))
}

/// Writes what a program prints to the log.
async fn log(from: impl AsyncRead + Unpin, app: String, pid: Option<u32>, last: Lines) {
    let mut from = BufReader::with_capacity(LINE, from);
    loop {
        // Whole lines, but no longer than the buffer.
        let (text, used) = match from.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => {
                let end = bytes.iter().position(|b| *b == b'\n');
                let line = &bytes[..end.unwrap_or(bytes.len())];
                (String::from_utf8_lossy(line).trim_end().to_owned(), end.map_or(bytes.len(), |e| e + 1))
            }
        };
        from.consume(used);
        if text.is_empty() {
            continue;
        }
        tracing::info!(target: "wharf_app", app, pid, "{text}");
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(text);
    }
}
