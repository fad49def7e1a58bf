//! The audit log: who changed what, and who tried to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

/// The file, which is opened for each line: whoever turns it over need not say so.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    path: PathBuf,
}

/// A line.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// When it was answered, in UTC (RFC 3339).
    pub(crate) time: String,
    /// Who asked; null when that is not known.
    pub(crate) user: Option<String>,
    /// What that user may do.
    pub(crate) role: Option<&'static str>,
    /// `socket`, or the address.
    pub(crate) from: String,
    /// The method of the request.
    pub(crate) method: String,
    /// Its target.
    pub(crate) target: String,
    /// The status of the answer.
    pub(crate) status: u16,
}

impl Entry {
    /// The present time.
    pub(crate) fn now() -> String {
        humantime::format_rfc3339_millis(SystemTime::now()).to_string()
    }
}

impl Audit {
    /// The log in this file.
    ///
    /// # Errors
    /// When nothing can be written there; the message names the path.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let this = Self { path: path.to_owned() };
        this.file().map(|_| this).map_err(|e| io::Error::new(e.kind(), format!("audit log {}: {e}", path.display())))
    }

    fn file(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)
    }

    /// Writes a line, in one piece. What can't be written goes to the container's log, which has it in any case.
    pub(crate) async fn write(&self, entry: Entry) {
        let Entry { user, role, from, method, target, status, .. } = &entry;
        let (user, role) = (user.as_deref().unwrap_or("-"), role.unwrap_or("-"));
        tracing::info!(user, role, from, method, target, status, "admin API");
        let this = self.clone();
        let write = move || {
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            this.file()?.write_all(&line)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(file = %self.path.display(), %error, "the audit log can't be written"),
            Err(_) => tracing::error!(file = %self.path.display(), "the audit log could not be written: it broke off"),
        }
    }
}
