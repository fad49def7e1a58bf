//! What is read from a file and read again when the file changes. While the file is not good there is no value: whoever asks
//! then is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How a file's text becomes a value.
type Read<T> = Box<dyn Fn(&Path) -> Result<T, String> + Send + Sync>;

/// A value from a file.
pub(crate) struct Watched<T> {
    path: PathBuf,
    read: Read<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<Arc<T>>,
    print: Option<Print>,
}

/// What tells one state of a file from another: device, inode, size, times of content and of inode.
type Print = (u64, u64, u64, i64, i64, i64, i64);

impl<T> Watched<T> {
    /// Reads it for the first time; what is wrong is logged.
    pub(crate) fn new(path: PathBuf, read: impl Fn(&Path) -> Result<T, String> + Send + Sync + 'static) -> Self {
        let this = Self { path, read: Box::new(read), state: Mutex::new(State { value: None, print: None }) };
        this.load(print(&this.path));
        this
    }

    /// The value; `None` while the file is not good.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).value.clone()
    }

    /// Looks at the file, and reads it where it has changed. Says whether it has.
    pub(crate) fn look(&self) -> bool {
        let now = print(&self.path);
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).print == now {
            return false;
        }
        self.load(now);
        true
    }

    fn load(&self, print: Option<Print>) {
        let value = match (self.read)(&self.path) {
            Ok(value) => Some(Arc::new(value)),
            Err(error) => {
                tracing::error!("{error}; until this is right, nobody can sign in to the realms of this file");
                None
            }
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { value, print };
    }
}

fn print(path: &Path) -> Option<Print> {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}
