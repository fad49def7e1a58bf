//! Sessions as files: one each, in a folder for each context. A file is written beside its place and renamed, so it is whole
//! or not there when the process dies; it is not flushed to the disk, so the last seconds may be lost when the machine does.
//!
//! Nothing that a client sends becomes part of a path: a file is called by the hash of the id. What is read is believed only
//! where name, context, size and content fit; anything else is deleted with a line in the log, and never fails a start.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wharf_session_state::{Stored, Value, is_id};

/// Version of the form of a file. Files of another one are dropped.
const FORM: u32 = 1;
/// `O_NOFOLLOW | O_NONBLOCK` of Linux: neither a link nor a pipe is followed or waited for.
const NO_TRICKS: i32 = 0o400_000 | 0o4000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    wharf_session: u32,
    context: String,
    id: String,
    version: String,
    created_ms: u64,
    last_accessed_ms: u64,
    accessed_ms: u64,
    max_inactive_ms: Option<u64>,
    values: Vec<FileValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileValue {
    name: String,
    type_name: String,
    json: String,
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

fn time(millis: u64) -> SystemTime {
    // Far beyond any date, and still representable.
    UNIX_EPOCH + Duration::from_millis(millis.min(1 << 50))
}

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
        let file = File {
            wharf_session: FORM,
            context: self.context.clone(),
            id: stored.id.clone(),
            version: stored.version.clone(),
            created_ms: millis(stored.created),
            last_accessed_ms: millis(stored.last_accessed),
            accessed_ms: millis(stored.accessed),
            max_inactive_ms: stored.max_inactive.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            values: stored
                .values
                .iter()
                .map(|(name, v)| FileValue {
                    name: name.clone(),
                    type_name: v.type_name.to_string(),
                    json: v.json.to_string(),
                })
                .collect(),
        };
        let text = serde_json::to_vec(&file)?;
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
        let file: File = serde_json::from_slice(&text).map_err(|e| format!("it is not what was written: {e}"))?;
        if file.wharf_session != FORM {
            return Err(format!("its form is {}, not {FORM}", file.wharf_session));
        }
        if file.context != self.context {
            return Err(format!("it belongs to {}", file.context));
        }
        if !is_id(&file.id) || path.file_name() != self.path(&file.id).file_name() {
            return Err("its name does not fit its id".into());
        }
        let value = |v: FileValue| (v.name, Value { type_name: v.type_name.into(), json: v.json.into() });
        Ok(Stored {
            id: file.id,
            version: file.version,
            created: time(file.created_ms),
            last_accessed: time(file.last_accessed_ms),
            accessed: time(file.accessed_ms),
            max_inactive: file.max_inactive_ms.map(Duration::from_millis),
            values: file.values.into_iter().map(value).collect(),
        })
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
