//! A folder of files to serve, and nothing outside it: the kernel itself refuses to leave it, so that there is no moment
//! between a check and an opening in which a link could be swapped.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

/// An open file.
pub(crate) type ResourceFile = tokio::fs::File;

/// An open folder.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRoot(Arc<OwnedFd>);

impl ResourceRoot {
    pub(crate) fn at(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Arc::new(openat(CWD, folder, flags, Mode::empty())?)))
    }

    /// Opens a file or a folder below. Links that stay below are followed. What else there might be (a FIFO, a device, a link
    /// out) is not found, and nothing here waits for a writer.
    fn open_below(&self, path: &Path) -> io::Result<(File, Metadata)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(&*self.0, path, flags, Mode::empty(), resolve) {
            // No openat2 (an old kernel, or a sandbox that does not know it): no links at all then.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened,
        };
        let file = File::from(opened.map_err(missing)?);
        let metadata = file.metadata()?;
        if metadata.is_file() || metadata.is_dir() { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Opens one component after the other, and follows no link.
    fn walk(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = openat(&*self.0, ".", folder, Mode::empty())?;
        let mut components = path.components().filter(|component| *component != Component::CurDir).peekable();
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else { return Err(Errno::NOENT) };
            if components.peek().is_none() {
                return openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty());
            }
            at = openat(&at, name, folder, Mode::empty())?;
        }
        openat(&at, ".", flags, Mode::empty())
    }

    async fn blocking<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Self) -> io::Result<T> + Send + 'static,
    {
        let root = self.clone();
        spawn_blocking(move || work(root)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Opens a file.
    pub(crate) async fn open(&self, path: PathBuf) -> io::Result<(ResourceFile, Metadata)> {
        let open = move |root: Self| {
            let (file, metadata) = root.open_below(&path)?;
            if metadata.is_dir() { Err(io::ErrorKind::NotFound.into()) } else { Ok((file, metadata)) }
        };
        let (file, metadata) = self.blocking(open).await?;
        Ok((ResourceFile::from_std(file), metadata))
    }

    /// What is known of a file or folder.
    pub(crate) async fn metadata(&self, path: PathBuf) -> io::Result<Metadata> {
        self.blocking(move |root| Ok(root.open_below(&path)?.1)).await
    }

    /// The first of these names that is a file in the folder at `path`.
    pub(crate) async fn first_file(&self, path: &str, names: &[String]) -> io::Result<Option<String>> {
        let paths: Vec<_> = names.iter().map(|name| format!("{path}{name}")).collect();
        let look = move |root: Self| {
            for path in paths {
                match root.open_below(Path::new(path.trim_start_matches('/'))) {
                    Ok((_, metadata)) if metadata.is_file() => return Ok(Some(path)),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(None)
        };
        self.blocking(look).await
    }
}

/// Whatever says that the file is not to be had is 'not found'; trouble of the machine stays what it is.
fn missing(error: Errno) -> io::Error {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO => error.into(),
        _ => io::ErrorKind::NotFound.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_opening_stay_below() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("root");
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::fs::write(outer.path().join("secret"), "s").unwrap();
        std::fs::write(folder.join("a/file"), "f").unwrap();
        for (target, link) in [("../../secret", "a/out"), ("..", "up"), ("/proc/self/fd/0", "magic"), ("a/file", "in")]
        {
            std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
        }
        let root = ResourceRoot::at(&folder).unwrap();
        let walk = |path: &str| root.walk(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC);
        for path in ["", ".", "a", "a/file"] {
            assert!(root.open_below(Path::new(path)).is_ok() && walk(path).is_ok(), "{path}");
        }
        assert!(root.open_below(Path::new("in")).is_ok());
        for path in ["a/out", "up/secret", "up", "../secret", "magic", "none", "a/file/x", "/etc/passwd"] {
            assert_eq!(root.open_below(Path::new(path)).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
            assert!(walk(path).is_err(), "{path}");
        }
    }
}
