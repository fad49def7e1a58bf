//! What the requests of one CGI application share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_kernel::launch::Plan;
use wharf_kernel::options::CgiOptions;

use crate::beneath::Beneath;
use crate::cgi_response::HeadLimits;
use crate::endpoint::Files;
use crate::program::process::Processes;
use crate::program::request::Common;
use crate::program::send_file::SendFile;
use crate::program::slots::Slots;
use crate::script::{Found, Script, ScriptRules, find};

/// One application.
pub(super) struct App {
    pub(super) common: Common,
    /// Its document root, absolute.
    pub(super) root: PathBuf,
    pub(super) options: CgiOptions,
    /// The program that answers everything.
    program: Option<PathBuf>,
    beneath: Beneath,
    rules: ScriptRules,
    pub(super) processes: Arc<Processes>,
    pub(super) slots: Slots,
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
        let common = Common {
            name: if context.is_empty() { "/".into() } else { context.into() },
            files: options.static_files.then(|| Files::new(beneath.clone(), context)),
            send_file: SendFile::open(&options.sendfile_roots, &options.accel_redirects, base)?,
            budget: Arc::default(),
            limits: HeadLimits { bytes: options.max_header_bytes, fields: options.max_header_fields },
            first_byte_timeout: options.first_byte_timeout,
            idle_timeout: options.idle_timeout,
            total_timeout: options.total_timeout,
        };
        Ok(Self {
            common,
            slots: Slots::new(options.max_processes, options.queue, options.queue_timeout),
            processes: Arc::default(),
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

    /// Ends every process. May be called more than once.
    pub(super) fn stop(&self) {
        self.slots.close();
        self.processes.end_all(self.options.kill_timeout);
    }
}
