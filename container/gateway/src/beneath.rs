//! Opens files below a document root and nowhere else: the kernel itself refuses to leave it, so that there is no moment
//! between a check and an opening in which a link could be swapped.

use std::fs::{File, Metadata};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File as ServedFile};

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// An open document root.
#[derive(Clone, Debug)]
pub(crate) struct Beneath(Arc<OwnedFd>);

impl Beneath {
    /// Opens the root itself.
    pub(crate) fn open_root(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Arc::new(openat(rustix::fs::CWD, root, flags, Mode::empty())?)))
    }

    /// Opens a regular file or a directory below the root. Links that stay below it are followed. Everything else there
    /// might be (a FIFO, a device, a link out) is not found, and nothing here ever waits for a writer.
    fn open_below(&self, path: &Path) -> io::Result<(File, Metadata)> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)
    }

    /// Looks at what [`Self::open_below`] would open, without the right to read it.
    pub(crate) fn stat(&self, path: &Path) -> io::Result<Metadata> {
        self.open_with(path, OFlags::PATH | OFlags::CLOEXEC).map(|(_, metadata)| metadata)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(&*self.0, path, flags, Mode::empty(), resolve) {
            // No openat2 (an old kernel, or a sandbox that does not know it): no links at all then.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => self.walk(path, flags),
            opened => opened.map_err(Into::into),
        };
        let file = File::from(opened.map_err(missing)?);
        let metadata = file.metadata()?;
        if metadata.is_file() || metadata.is_dir() { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Opens one component after the other, following no link.
    fn walk(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = openat(&*self.0, ".", folder, Mode::empty())?;
        let mut components = path.components().filter(|c| *c != Component::CurDir).peekable();
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::NotFound.into()) };
            if components.peek().is_none() {
                return Ok(openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?);
            }
            at = openat(&at, name, folder, Mode::empty())?;
        }
        Ok(openat(&at, ".", flags, Mode::empty())?)
    }
}

/// Whatever says that the file is not to be had is 'not found'; trouble of the machine stays what it is.
fn missing(error: io::Error) -> io::Error {
    use rustix::io::Errno;
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO) => error,
        _ => io::ErrorKind::NotFound.into(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Backend for Beneath {
    type File = BeneathFile;
    type Metadata = Metadata;
    type OpenFuture = Boxed<BeneathFile>;
    type MetadataFuture = Boxed<Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let root = self.clone();
        Box::pin(blocking(move || {
            let (file, metadata) = root.open_below(&path)?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(BeneathFile { file: tokio::fs::File::from_std(file), metadata })
        }))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let root = self.clone();
        Box::pin(blocking(move || root.open_below(&path).map(|(_, metadata)| metadata)))
    }
}

/// An open file with what was known of it when it was opened.
#[derive(Debug)]
pub(crate) struct BeneathFile {
    file: tokio::fs::File,
    metadata: Metadata,
}

impl ServedFile for BeneathFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = std::future::Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.metadata.clone()))
    }
}

impl AsyncRead for BeneathFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for BeneathFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_opening_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("a/file"), "f").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("a/out")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/0", root.join("magic")).unwrap();
        std::os::unix::fs::symlink("a/file", root.join("within")).unwrap();
        let root = Beneath::open_root(&root).unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for path in ["", ".", "a", "a/file"] {
            assert!(root.open_below(Path::new(path)).is_ok() && root.walk(Path::new(path), flags).is_ok(), "{path}");
        }
        assert!(root.open_below(Path::new("within")).is_ok());
        for path in ["a/out", "absolute", "up/secret", "up", "../secret", "magic", "none", "a/file/x", "/etc/passwd"] {
            let error = root.open_below(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
            assert!(root.walk(Path::new(path), flags).is_err(), "{path}");
        }
    }
}
