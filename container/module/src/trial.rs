//! The trial load: a new file is first loaded, started and stopped in a throw-away child process, in time or not at all.
//!
//! No look at a file finds a constructor or a start that crashes, exits or hangs. The child reads what to do from its
//! standard input and writes how far it came, line by line, to a file that its parent made for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf_kernel::launch::{Kind, Plan};
use wharf_kernel::options::{Options, WebOptions};
use wharf_kernel::refusal::{Code, Refusal};
use wharf_kernel::workers::NoWorkers;
use wharf_kernel::{AppId, ContextPath, Version};

use crate::launcher::{copy_path, load_and_start, write_copy};
pub use crate::loaded::Made;
use crate::probe;

/// The argument by which the container's program is told to be the child.
pub const COMMAND: &str = "__trial";

/// What the child is told.
#[derive(Serialize, Deserialize)]
struct Order {
    source: PathBuf,
    folder: Option<PathBuf>,
    copies: PathBuf,
    report: PathBuf,
    host: String,
    path: String,
    version: String,
    init: BTreeMap<String, String>,
    runtime_threads: usize,
    blocking_threads: usize,
    start_millis: u64,
    stop_millis: u64,
    web: WebOptions,
}

/// A line of the child's report.
#[derive(Serialize, Deserialize)]
enum Line {
    /// What it does next.
    Doing(String),
    /// It is refused.
    Refused(Refusal),
    /// It passed.
    Passed(Made),
}

/// Tries `plan` in a child process. Returns what the application is made of.
///
/// # Errors
/// The refusal that the child found, or what became of the child.
pub fn run(program: &Path, copies: &Path, plan: &Plan) -> Result<Made, Refusal> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let report = copies.join(format!("trial.{}.{number}", std::process::id()));
    let order = Order {
        source: plan.source.clone(),
        folder: plan.folder.clone(),
        copies: copies.to_owned(),
        report: report.clone(),
        host: plan.id.host.to_string(),
        path: plan.id.path.as_str().to_owned(),
        version: plan.id.version.as_str().to_owned(),
        init: plan.init.clone(),
        runtime_threads: plan.runtime_threads,
        blocking_threads: plan.blocking_threads,
        start_millis: plan.start_timeout.as_millis() as u64,
        stop_millis: plan.stop_timeout.as_millis() as u64,
        web: plan.options.web.clone(),
    };
    let result = attempt(program, &order, plan.trial_timeout);
    let _ = fs::remove_file(&report);
    result
}

fn attempt(program: &Path, order: &Order, timeout: Duration) -> Result<Made, Refusal> {
    let impossible =
        |e: &dyn std::fmt::Display| Refusal::new(Code::TrialImpossible, format!("{}: {e}", program.display()));
    let mut child = Command::new(program)
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| impossible(&e))?;
    let text = serde_json::to_vec(order).map_err(|e| impossible(&e))?;
    if let Some(mut input) = child.stdin.take() {
        // A child that has gone already says so by its status.
        let _ = input.write_all(&text);
    }
    let pid = child.id();
    let errors = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // Whoever writes more is read no further, and gets a broken pipe.
            let _ = stderr.take(64 * 1024).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let status = wait(child, timeout);
    let _ = fs::remove_file(copy_path(&order.copies, &plan_of(order), pid));
    let (doing, end) = read_report(&order.report);
    let said = || {
        // A grandchild may keep the pipe open: what is there is read only when the child ended by itself.
        let text =
            errors.and_then(|thread| thread.is_finished().then(|| thread.join().ok()).flatten()).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        if tail.is_empty() { String::new() } else { format!("; it said: {}", tail.join(" | ")) }
    };
    match (status, end) {
        (_, Some(Line::Refused(refusal))) => Err(refusal),
        (Some(status), Some(Line::Passed(tried))) if status.success() => Ok(tried),
        (None, _) => Err(Refusal::new(Code::TrialHung, format!("after {timeout:?} it was still at: {doing}"))),
        (Some(status), _) => Err(match status.signal() {
            Some(signal) => Refusal::new(Code::TrialCrashed, format!("{} at: {doing}{}", signal_name(signal), said())),
            None => Refusal::new(
                Code::TrialExited,
                format!("exit status {} at: {doing}{}", status.code().unwrap_or_default(), said()),
            ),
        }),
    }
}

/// Waits for the child at most so long, then kills it: `None`.
fn wait(mut child: Child, timeout: Duration) -> Option<ExitStatus> {
    let pid = child.id();
    let (sender, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let status = child.wait().ok();
        let _ = sender.send(status);
    });
    let status = match ended.recv_timeout(timeout) {
        Ok(status) => status,
        Err(_) => {
            // SAFETY: the waiter has not reaped it yet (it would have sent), so the id is still the child's.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            None
        }
    };
    let _ = waiter.join();
    status
}

fn read_report(path: &Path) -> (String, Option<Line>) {
    let mut doing = "starting".to_owned();
    let mut end = None;
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        match serde_json::from_str(line) {
            Ok(Line::Doing(what)) => doing = what,
            Ok(line) => end = Some(line),
            Err(_) => {}
        }
    }
    (doing, end)
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV (invalid memory access)",
        libc::SIGBUS => "SIGBUS (bad memory access)",
        libc::SIGABRT => "SIGABRT (aborted)",
        libc::SIGILL => "SIGILL (illegal instruction)",
        libc::SIGFPE => "SIGFPE (arithmetic)",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTRAP => "SIGTRAP",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

fn plan_of(order: &Order) -> Plan {
    Plan {
        id: AppId {
            host: Arc::from(order.host.as_str()),
            path: ContextPath::parse(&order.path).unwrap_or_else(|_| ContextPath::root()),
            version: Version::new(&order.version),
        },
        kind: Kind::Module,
        source: order.source.clone(),
        folder: order.folder.clone(),
        init: order.init.clone(),
        generation: 0,
        trial_timeout: Duration::ZERO,
        start_timeout: Duration::from_millis(order.start_millis),
        stop_timeout: Duration::from_millis(order.stop_millis),
        runtime_threads: order.runtime_threads,
        blocking_threads: order.blocking_threads,
        options: Arc::new(Options { web: order.web.clone(), ..Options::default() }),
    }
}

/// The child: what the program does when it is called with [`COMMAND`].
pub fn trial_main() -> ExitCode {
    crate::interpose::keep();
    crate::exit::IS_TRIAL.store(true, Ordering::Relaxed);
    let order: Order = match serde_json::from_reader(std::io::stdin()) {
        Ok(order) => order,
        Err(e) => {
            eprintln!("this command is for the container itself: {e}");
            return ExitCode::from(2);
        }
    };
    let Ok(mut report) = fs::OpenOptions::new().create(true).append(true).open(&order.report) else {
        eprintln!("the report {} can't be written", order.report.display());
        return ExitCode::from(2);
    };
    let _ = REPORT.set(order.report.clone());
    let mut say = |line: Line| {
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        let _ = report.write_all(text.as_bytes());
    };
    let status = match child(&order, &mut say) {
        Ok(tried) => {
            say(Line::Passed(tried));
            0
        }
        Err(refusal) => {
            say(Line::Refused(refusal));
            1
        }
    };
    // At once: what a failed start has left running must not meet the destructors of the process.
    // SAFETY: no preconditions; the report is written, nothing else is buffered.
    unsafe { libc::_exit(status) }
}

/// Where the child reports, and what the application has made of itself so far.
static REPORT: OnceLock<PathBuf> = OnceLock::new();
static MADE: OnceLock<Made> = OnceLock::new();

/// The application is made, and about to be started.
pub(crate) fn made(made: &Made) {
    let _ = MADE.set(made.clone());
}

/// What an application hears that asks for a resource all the same.
pub(crate) const NO_RESOURCES: &str = "there are no resources in a trial load";

/// The application waits for a resource, and there is none in a trial: it has been seen as far as can be, and passed. Returns
/// where this is no trial, or nothing is made yet.
pub(crate) fn asked_for_a_resource() {
    let (Some(report), Some(tried)) = (REPORT.get(), MADE.get()) else { return };
    let mut text = serde_json::to_string(&Line::Passed(tried.clone())).unwrap_or_default();
    text.push('\n');
    let written = fs::OpenOptions::new().append(true).open(report).and_then(|mut file| file.write_all(text.as_bytes()));
    if written.is_ok() {
        // SAFETY: no preconditions; the report is written, nothing else is buffered.
        unsafe { libc::_exit(0) }
    }
}

fn child(order: &Order, say: &mut dyn FnMut(Line)) -> Result<Made, Refusal> {
    let plan = plan_of(order);
    let mut probed = probe::read(&plan.source)?;
    let (file, _) = write_copy(&order.copies, &plan, &mut probed.bytes)?;
    say(Line::Doing("load, with its static constructors, and start".into()));
    let file = file.canonicalize().unwrap_or(file);
    let started = {
        let (file, plan) = (file.clone(), plan.clone());
        // On a thread that ends before the unload, as in the container; the parent has the clock.
        std::thread::spawn(move || load_and_start(&file, &plan, probed.description.version, None, true)).join()
    };
    let (mut loaded, made) = match started {
        Ok(Ok(started)) => started,
        Ok(Err(failed)) => {
            let _ = fs::remove_file(&file);
            return Err(failed.refusal);
        }
        Err(_) => return Err(Refusal::new(Code::LoadFailed, "the loader panicked")),
    };
    say(Line::Doing("stop and unload".into()));
    let retirement = loaded.unload(&NoWorkers, plan.stop_timeout);
    let _ = fs::remove_file(&file);
    for what in retirement.held_by {
        say(Line::Doing(format!("unload; held by {what}")));
    }
    Ok(made)
}
