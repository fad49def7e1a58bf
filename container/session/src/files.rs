//! Sessions as files: one each, in a folder for each context. A file is written beside its place and renamed, so it is whole
//! or not there when the process dies; it is not flushed to the disk, so the last seconds may be lost when the machine does.
//!
//! Nothing that a client sends becomes part of a path: a file is called by the hash of the id. What is read is believed only
//! where name, context, size and content fit; anything else is deleted with a line in the log, and never fails a start.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wharf_session_state::Stored;

use crate::form::{self, hex};

/// `O_NOFOLLOW | O_NONBLOCK` of Linux: neither a link nor a pipe is followed or waited for.
const NO_TRICKS: i32 = 0o400_000 | 0o4000;

/// The folder of one context.
pub(crate) struct Files {
    folder: PathBuf,
    context: String,
    /// A file longer than this is none of ours.
    max_bytes: u64,
}

impl Files {
    /// The folder for a context in `sessions`. `max_bytes` is what the values of a session may take.
    pub(crate) fn new(sessions: &Path, context: &str, max_bytes: u64) -> Self {
        // JSON in JSON is escaped: at worst six characters for one.
        let max_bytes = max_bytes.saturating_mul(6).saturating_add(64 << 10);
        Self { folder: sessions.join(&hex(context)[..32]), context: context.to_owned(), max_bytes }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{}.json", hex(id)))
    }

    /// Writes a session.
    pub(crate) fn write(&self, stored: &Stored) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let text = form::write(&self.context, stored)?;
        let mut temporary = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        temporary.write_all(&text)?;
        temporary.persist(self.path(&stored.id)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Deletes the file of a session, if there is one.
    pub(crate) fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.path(id));
    }

    /// Deletes all of them.
    pub(crate) fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// Reads all that can be believed, and deletes the rest.
    pub(crate) fn read_all(&self) -> Vec<Stored> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            match self.read(&path) {
                Ok(stored) => all.push(stored),
                Err(why) => {
                    let file = path.display();
                    tracing::warn!(%file, context = self.context, "a session file was dropped: {why}");
                    let _ = if path.is_dir() && !path.is_symlink() {
                        fs::remove_dir_all(&path)
                    } else {
                        fs::remove_file(&path)
                    };
                }
            }
        }
        all
    }

    fn read(&self, path: &Path) -> Result<Stored, String> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(NO_TRICKS)
            .open(path)
            .map_err(|e| format!("it can't be opened: {e}"))?;
        let facts = file.metadata().map_err(|e| e.to_string())?;
        if !facts.is_file() {
            return Err("it is no file".into());
        }
        if facts.permissions().mode() & 0o077 != 0 {
            return Err("others may read or write it, so it is none of the container's".into());
        }
        if facts.len() > self.max_bytes {
            return Err(format!("it has {} bytes, more than a session may", facts.len()));
        }
        let mut text = Vec::new();
        (&file).take(self.max_bytes).read_to_end(&mut text).map_err(|e| e.to_string())?;
        let stored = form::read(&self.context, &text)?;
        if path.file_name() != self.path(&stored.id).file_name() {
            return Err("its name does not fit its id".into());
        }
        Ok(stored)
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
