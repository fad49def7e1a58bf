//! Hears of changes to files in the watched folders, and of nothing else: a file that is only read, as those of a static site are with each
//! request, wakes nobody.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};

/// What has happened in a watched folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file was closed by whoever wrote it, or renamed, into the folder or out of it.
    Closed(PathBuf),
    /// A file was made or written.
    Written(PathBuf),
    /// Something else, or nobody knows what.
    Other,
}

/// The watched folders. Their thread ends with this.
pub(crate) struct Folders {
    watches: Watches,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    paths: Mutex<HashMap<WatchDescriptor, PathBuf>>,
    ended: AtomicBool,
}

impl Folders {
    /// Starts the thread, with no folder to watch yet. It calls `tell` for each change.
    ///
    /// # Errors
    /// When the system gives no watch, or no thread.
    pub(crate) fn start(tell: impl Fn(Change) + Send + 'static) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let this = Self { watches: inotify.watches(), shared: Arc::default() };
        let shared = this.shared.clone();
        thread::Builder::new().name("deploy-folders".into()).spawn(move || listen(inotify, &shared, &tell))?;
        Ok(this)
    }

    /// Watches a folder, but none below it.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn watch(&mut self, folder: &Path) -> io::Result<()> {
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        // Before the first event of it can be looked at.
        let mut paths = self.shared.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.insert(self.watches.add(folder, mask)?, folder.to_owned());
        Ok(())
    }

    /// Watches it no more.
    pub(crate) fn unwatch(&mut self, folder: &Path) {
        let mut paths = self.shared.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it: Vec<_> = paths.iter().filter(|(_, path)| *path == folder).map(|(watch, _)| watch.clone()).collect();
        for watch in of_it {
            paths.remove(&watch);
            // One whose folder is gone has ended by itself.
            let _ = self.watches.remove(watch);
        }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // The end of a watch is an event, which wakes the thread.
        if let Ok(watch) = self.watches.add("/", WatchMask::DELETE_SELF) {
            let _ = self.watches.remove(watch);
        }
    }
}

fn listen(mut inotify: Inotify, shared: &Shared, tell: &impl Fn(Change)) {
    let mut buffer = [0; 16 << 10];
    loop {
        let events = match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "changes in the deploy folder can't be heard of; they are found by the slow poll alone");
                return;
            }
        };
        for event in events {
            if shared.ended.load(Ordering::Acquire) {
                return;
            }
            let mut paths = shared.paths.lock().unwrap_or_else(PoisonError::into_inner);
            if event.mask.contains(EventMask::IGNORED) {
                paths.remove(&event.wd);
            }
            let path = paths.get(&event.wd).zip(event.name).map(|(folder, name)| folder.join(name));
            drop(paths);
            let closed = EventMask::CLOSE_WRITE | EventMask::MOVED_FROM | EventMask::MOVED_TO;
            let written = EventMask::CREATE | EventMask::MODIFY;
            tell(match path {
                Some(path) if event.mask.intersects(closed) => Change::Closed(path),
                Some(path) if event.mask.intersects(written) => Change::Written(path),
                _ => Change::Other,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    fn next(changes: &Receiver<Change>) -> Change {
        changes.recv_timeout(Duration::from_secs(10)).expect("a change")
    }

    #[test]
    fn writes_and_renames_are_heard_of_and_reads_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a"), folder.path().join("b"));
        let (sender, changes) = channel();
        let mut folders = Folders::start(move |change| drop(sender.send(change))).unwrap();
        folders.watch(folder.path()).unwrap();
        fs::write(&file, "x").unwrap();
        assert_eq!(next(&changes), Change::Written(file.clone()), "made");
        assert_eq!(next(&changes), Change::Written(file.clone()), "written");
        assert_eq!(next(&changes), Change::Closed(file.clone()));
        fs::read(&file).unwrap();
        fs::rename(&file, &other).unwrap();
        assert_eq!(next(&changes), Change::Closed(file));
        assert_eq!(next(&changes), Change::Closed(other.clone()));
        fs::remove_file(&other).unwrap();
        assert_eq!(next(&changes), Change::Other);
        folders.unwatch(folder.path());
        assert_eq!(next(&changes), Change::Other);
        fs::write(&other, "x").unwrap();
        drop(folders);
        // The thread has ended, and with it the sender.
        assert!(changes.recv_timeout(Duration::from_secs(10)).is_err());
    }
}
