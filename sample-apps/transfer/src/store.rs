//! Files in a temporary folder, with their digests.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir, TempPath};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use wharf_sdk::{Body, Error};

/// What is known of a stored file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Its length in bytes.
    pub(crate) len: u64,
    sha256: [u8; 32],
    /// The file itself, deleted when the last reader of this version lets go.
    file: Arc<TempPath>,
}

impl Stored {
    /// Its digest, as the value of `Repr-Digest` (RFC 9530, section 3).
    pub(crate) fn digest(&self) -> String {
        format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(self.sha256))
    }
}

/// What the folders' names begin with.
const PREFIX: &str = "wharf-transfer-";
/// A folder that has just been made may not be locked yet.
const TOO_NEW: Duration = Duration::from_secs(60);

/// Removes the folders that processes left which were killed: those that nobody holds the lock of.
fn remove_abandoned(temporary: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(temporary)?.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not of what a link points to.
        let is_old = || {
            let about = entry.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            about.modified().ok()?.elapsed().ok().filter(|age| *age > TOO_NEW)
        };
        if !is_ours || is_old().is_none() {
            continue;
        }
        let Ok(folder) = std::fs::File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok() {
            // What belongs to somebody else stays.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Stored files by name.
pub(crate) struct Store {
    files: Mutex<BTreeMap<String, Stored>>,
    folder: TempDir,
    /// Locked as long as the process lives.
    _lock: std::fs::File,
    max: u64,
}

impl Store {
    /// An empty store for files of at most `max` bytes.
    pub(crate) fn new(max: u64) -> io::Result<Self> {
        remove_abandoned(&std::env::temp_dir())?;
        let folder = TempDir::with_prefix(PREFIX)?;
        let lock = std::fs::File::open(&folder)?;
        lock.try_lock()?;
        Ok(Self { files: Mutex::default(), folder, _lock: lock, max })
    }

    /// Saves content as it arrives, and says whether the name is new. Content that breaks off leaves nothing behind.
    pub(crate) async fn save(
        &self,
        name: &str,
        stated_len: Option<u64>,
        content: &mut Body,
    ) -> Result<(Stored, bool), Error> {
        let too_large = || Error::too_large(format!("a file may have {} bytes", self.max));
        if stated_len.is_some_and(|len| len > self.max) {
            return Err(too_large());
        }
        let (out, path) = NamedTempFile::new_in(&self.folder)?.into_parts();
        let mut out = File::from_std(out);
        let (mut len, mut sha256) = (0, Sha256::new());
        while let Some(chunk) = content.chunk().await {
            let chunk = chunk.map_err(|error| Error::bad_request("the content broke off").with_source(error))?;
            len += chunk.len() as u64;
            if len > self.max {
                return Err(too_large());
            }
            sha256.update(&chunk);
            out.write_all(&chunk).await?;
        }
        out.flush().await?;
        let stored = Stored { len, sha256: sha256.finalize().into(), file: Arc::new(path) };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = files.insert(name.to_owned(), stored.clone()).is_none();
        Ok((stored, is_new))
    }

    /// Opens a file to read.
    pub(crate) async fn open(&self, name: &str) -> io::Result<Option<(File, Stored)>> {
        let stored = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match stored {
            Some(stored) => Ok(Some((File::open(&*stored.file).await?, stored))),
            None => Ok(None),
        }
    }

    /// Removes a file, and says whether there was one.
    pub(crate) async fn remove(&self, name: &str) -> io::Result<bool> {
        Ok(self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir};
    use std::time::SystemTime;

    #[test]
    fn only_old_folders_that_nobody_holds_are_removed() {
        let temporary = TempDir::new().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let old = SystemTime::now() - 2 * TOO_NEW;
        for name in ["wharf-transfer-dead", "wharf-transfer-held", "wharf-transfer-new", "other"] {
            create_dir(path(name)).unwrap();
            if name != "wharf-transfer-new" {
                File::open(path(name)).unwrap().set_modified(old).unwrap();
            }
        }
        std::os::unix::fs::symlink(path("other"), path("wharf-transfer-link")).unwrap();
        let held = File::open(path("wharf-transfer-held")).unwrap();
        held.lock().unwrap();
        remove_abandoned(temporary.path()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(temporary.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["other", "wharf-transfer-held", "wharf-transfer-link", "wharf-transfer-new"]);
    }
}
