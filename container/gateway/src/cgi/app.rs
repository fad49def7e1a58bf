//! What the requests of one CGI application share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wharf_kernel::launch::Plan;
use wharf_kernel::options::CgiOptions;

use super::errors::Budget;
use super::process::Processes;
use super::send_file::SendFile;
use crate::beneath::Beneath;
use crate::endpoint::Files;
use crate::script::{Found, Script, ScriptRules, find};

/// One application.
pub(super) struct App {
    /// Its context path, for the log; `/` for the root.
    pub(super) name: String,
    /// Its document root, absolute.
    pub(super) root: PathBuf,
    pub(super) options: CgiOptions,
    /// The program that answers everything.
    program: Option<PathBuf>,
    beneath: Beneath,
    rules: ScriptRules,
    /// Serves what is no program, where that is wanted.
    pub(super) files: Option<Files>,
    pub(super) send_file: SendFile,
    pub(super) processes: Arc<Processes>,
    pub(super) budget: Arc<Budget>,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl App {
    /// Opens its folders. Relative paths of the options begin at `base`.
    pub(super) fn open(plan: &Plan, options: CgiOptions, base: &Path) -> io::Result<Self> {
        let root = std::fs::canonicalize(&plan.source)?;
        let beneath = Beneath::open_root(&root)?;
        let context = plan.id.path.as_str();
        let program = options.program.as_ref().map(|p| std::path::absolute(base.join(p))).transpose()?;
        let rules = ScriptRules {
            extensions: options.extensions.iter().map(|e| e.to_ascii_lowercase()).collect(),
            index: options.index.clone(),
            no_execute: options.no_execute.clone(),
        };
        Ok(Self {
            name: if context.is_empty() { "/".into() } else { context.into() },
            files: options.static_files.then(|| Files::new(beneath.clone(), context)),
            send_file: SendFile::open(&options, base)?,
            slots: Arc::new(Semaphore::new(options.max_processes.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            processes: Arc::default(),
            budget: Arc::default(),
            root,
            options,
            program,
            beneath,
            rules,
        })
    }

    /// What answers the decoded path below the context.
    pub(super) fn find(&self, inner: &str) -> io::Result<Found> {
        match &self.program {
            Some(file) => {
                Ok(Found::Script(Script { name: String::new(), file: file.clone(), path_info: inner.into() }))
            }
            None => find(&self.beneath, &self.root, &self.rules, inner),
        }
    }

    /// Waits for the right to start a process. `None` where too many wait, or for too long, or the application stops.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.slots.clone().try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.waiting, self.options.queue)?;
        tokio::time::timeout(self.options.queue_timeout, self.slots.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Ends every process. May be called more than once.
    pub(super) fn stop(&self) {
        self.slots.close();
        self.processes.end_all(self.options.kill_timeout);
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        // Counted first: the guard takes it back where there were too many.
        let before = count.fetch_add(1, Ordering::Relaxed);
        let guard = Self(count);
        (before < most).then_some(guard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
