//! Files in a temporary folder, with their digests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Stored files by name.
pub(crate) struct Store {
    files: Mutex<BTreeMap<String, Stored>>,
    folder: TempDir,
    max: u64,
}

impl Store {
    /// An empty store for files of at most `max` bytes.
    pub(crate) fn new(max: u64) -> io::Result<Self> {
        Ok(Self { files: Mutex::default(), folder: TempDir::with_prefix("wharf-transfer-")?, max })
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
