//! One run of a program: a process group that is started with nothing of the container's, and that is never left behind.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::times::Times;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, prlimit, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long SIGKILL is waited for, where nobody else may wait.
const KILLED: Duration = Duration::from_secs(2);

/// Whether a file may be run: a regular file, executable, and not writable by everyone.
pub(crate) fn check_program(file: &Path) -> Result<(), &'static str> {
    let Ok(metadata) = std::fs::metadata(file) else { return Err("there is no such file") };
    if !metadata.is_file() {
        return Err("not a regular file");
    }
    if metadata.mode() & 0o111 == 0 {
        return Err("it may not be executed (chmod +x)");
    }
    if metadata.mode() & 0o002 != 0 {
        return Err("everyone may write to it (chmod o-w)");
    }
    Ok(())
}

/// The processes of an application that are not gone yet.
#[derive(Default)]
pub(crate) struct Processes {
    live: Mutex<Live>,
    /// Told when one is gone.
    gone: Condvar,
}

#[derive(Default)]
struct Live {
    /// Ids of leaders that were not waited for yet, so that none of them can be another process's.
    leaders: BTreeSet<i32>,
    times: Times,
    /// Processes that are being started, and are not among the leaders yet.
    starting: usize,
    closed: bool,
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether none may start any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends all of them and lets none start any more: SIGTERM, and SIGKILL after `grace`. Blocks until they are gone.
    pub(crate) fn end_all(&self, grace: Duration) {
        self.lock().closed = true;
        for (signal, time) in [(Signal::TERM, grace), (Signal::KILL, KILLED)] {
            let live = self.lock();
            for leader in &live.leaders {
                kill_group(*leader, signal);
            }
            let waited = self.gone.wait_timeout_while(live, time, |live| !live.is_empty());
            if waited.is_ok_and(|(live, _)| live.is_empty()) {
                return;
            }
        }
    }

    /// Processor time that they took since the last call.
    pub(crate) fn take_time(&self) -> Duration {
        self.lock().times.take()
    }
}

impl Live {
    fn is_empty(&self) -> bool {
        self.leaders.is_empty() && self.starting == 0
    }
}

/// What is said instead of a start once all are ended.
fn stops() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the application stops")
}

/// A process that is being started. Who ends all waits for it, too: until it is one of the leaders, or was refused and is gone.
struct Starting<'a>(&'a Processes);

impl<'a> Starting<'a> {
    fn begin(processes: &'a Processes) -> io::Result<Self> {
        let mut live = processes.lock();
        if live.closed {
            return Err(stops());
        }
        live.starting += 1;
        Ok(Self(processes))
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
        self.0.gone.notify_all();
    }
}

fn kill_group(leader: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(leader) {
        let _ = kill_process_group(pid, signal);
    }
}

/// What is started.
pub(crate) struct Start<'a> {
    /// Its file, or its name, to be looked for in the variable `PATH`.
    pub(crate) program: &'a OsStr,
    pub(crate) arguments: &'a [String],
    pub(crate) folder: Option<&'a Path>,
    /// RLIMIT_AS.
    pub(crate) memory: Option<u64>,
    /// RLIMIT_CPU.
    pub(crate) cpu: Option<Duration>,
    /// RLIMIT_NOFILE.
    pub(crate) open_files: Option<u64>,
}

/// The ends of its pipes.
pub(crate) struct Pipes {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// A process that was started. It is killed and waited for when this is dropped.
pub(crate) struct Process {
    child: Child,
    leader: i32,
    /// Readable when the leader has ended; it stays a zombie, and its id its own, until it is waited for.
    ended: AsyncFd<OwnedFd>,
    processes: Arc<Processes>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program. Blocks until it is executed.
    ///
    /// # Errors
    /// As the system says: the file is no program, may not be executed, or there are too many processes or files.
    pub(crate) fn start<'v>(
        processes: &Arc<Processes>,
        start: &Start<'_>,
        variables: impl Iterator<Item = (&'v str, &'v [u8])>,
        stdin: Stdio,
    ) -> io::Result<(Self, Pipes)> {
        let _starting = Starting::begin(processes)?;
        let mut command = Command::new(start.program);
        command.args(start.arguments);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs(variables.map(|(name, value)| (name, OsStr::from_bytes(value))));
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(folder) = start.folder {
            command.current_dir(folder);
        }
        // All that this process itself opens is closed on exec; a module, or a library below one, may have forgotten to say so.
        close_fds::CloseFdsBuilder::new().cloexecfrom(3);
        let mut child = spawn(&mut command)?;
        let leader = child.id().cast_signed();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let made = (|| {
            let pid = Pid::from_raw(leader).ok_or(io::ErrorKind::NotFound)?;
            limit(pid, start)?;
            let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
            let fd = watch(fd)?;
            let mut live = processes.lock();
            if live.closed {
                return Err(stops());
            }
            live.leaders.insert(leader);
            live.times.begin(leader.cast_unsigned());
            Ok(fd)
        })();
        match (made, pipes) {
            (Ok(ended), (stdin, Some(stdout), Some(stderr))) => {
                let this = Self { child, leader, ended, processes: processes.clone(), status: None };
                Ok((this, Pipes { stdin, stdout, stderr }))
            }
            (made, _) => {
                kill_group(leader, Signal::KILL);
                let _ = child.wait();
                processes.lock().leaders.remove(&leader);
                Err(made.err().unwrap_or_else(|| io::Error::other("a pipe is missing")))
            }
        }
    }

    /// Waits until the leader has ended, then ends what is left of its group. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.status {
                return status;
            }
            if let Ok(mut ready) = self.ended.readable().await
                && !has_ended(ready.get_inner())
            {
                ready.clear_ready();
                continue;
            }
            self.reap();
        }
    }

    /// Ends it: SIGTERM to the group, SIGKILL after `grace`. Returns when the leader has been waited for.
    pub(crate) async fn end(&mut self, grace: Duration) {
        if self.status.is_some() {
            return;
        }
        kill_group(self.leader, Signal::TERM);
        if tokio::time::timeout(grace, self.wait()).await.is_err() {
            kill_group(self.leader, Signal::KILL);
            self.wait().await;
        }
    }

    fn reap(&mut self) {
        if self.status.is_some() {
            return;
        }
        // Under the lock: nobody sends a signal to an id that is given back here. And before it is given back: as long as
        // the leader is a zombie, no other group can have its id.
        let mut live = self.processes.lock();
        live.times.end(self.leader.cast_unsigned());
        kill_group(self.leader, Signal::KILL);
        self.status = Some(self.child.wait().unwrap_or_default());
        live.leaders.remove(&self.leader);
        drop(live);
        self.processes.gone.notify_all();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Kills first, so this does not block for longer than a kill takes.
        kill_group_unless(self.status.is_some(), self.leader);
        self.reap();
    }
}

fn kill_group_unless(gone: bool, leader: i32) {
    if !gone {
        kill_group(leader, Signal::KILL);
    }
}

/// Starts it, also where the program was written a moment ago: a process that another thread is just starting may still have the
/// descriptor by which it was written, until it is executed itself.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..20 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
    command.spawn()
}

/// Whether the process has ended, without waiting for it and without taking its status.
fn has_ended(process: &OwnedFd) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // Only an error would be none of the two; then waiting for it is right.
    !matches!(waitid(WaitId::PidFd(process.as_fd()), look), Ok(None))
}

/// Has the runtime watch a descriptor. The constructor that is not deprecated is unsafe, for types whose descriptor can change
/// while it is watched; that of an `OwnedFd` can't.
#[expect(deprecated)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Sets the limits, from outside: between `fork` and `exec` only code that is marked unsafe could do it, and a helper
/// program in between would cost as much as the program itself. It has been executed by now, but its loader is not
/// through; a program that forks at once could have a child without the limits, and no program can raise them.
fn limit(pid: Pid, start: &Start<'_>) -> io::Result<()> {
    // A second is the least that there is.
    let cpu = start.cpu.map(|time| time.as_secs().max(1));
    let limits = [(Resource::As, start.memory), (Resource::Cpu, cpu), (Resource::Nofile, start.open_files)];
    for (resource, limit) in limits {
        if limit.is_some() {
            match prlimit(Some(pid), resource, Rlimit { current: limit, maximum: limit }) {
                // Ended already.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                // More than the container itself may have, most likely.
                Err(error) => return Err(io::Error::other(format!("its limit {resource:?} can't be set: {error}"))),
            }
        }
    }
    Ok(())
}
