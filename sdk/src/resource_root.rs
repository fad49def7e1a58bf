//! A folder of files to serve, and nothing outside it: the kernel itself refuses to leave it, so that there is no moment
//! between a check and an opening in which a link could be swapped.

use std::fs::{File, Metadata};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::spawn_blocking;
use tower_http::services::fs::{Backend, File as ServedFile};

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// An open folder.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRoot(Arc<OwnedFd>);

impl ResourceRoot {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
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

impl Backend for ResourceRoot {
    type File = ResourceFile;
    type Metadata = Metadata;
    type OpenFuture = Boxed<ResourceFile>;
    type MetadataFuture = Boxed<Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let root = self.clone();
        Box::pin(async move {
            let open = move |root: Self| {
                let (file, metadata) = root.open_below(&path)?;
                if metadata.is_dir() { Err(io::ErrorKind::NotFound.into()) } else { Ok((file, metadata)) }
            };
            let (file, metadata) = root.blocking(open).await?;
            Ok(ResourceFile { file: tokio::fs::File::from_std(file), metadata })
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let root = self.clone();
        Box::pin(async move { root.blocking(move |root| Ok(root.open_below(&path)?.1)).await })
    }
}

/// An open file with what was known of it when it was opened.
#[derive(Debug)]
pub(crate) struct ResourceFile {
    file: tokio::fs::File,
    metadata: Metadata,
}

impl ServedFile for ResourceFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = std::future::Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.metadata.clone()))
    }
}

impl AsyncRead for ResourceFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for ResourceFile {
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
        let root = ResourceRoot::open(&folder).unwrap();
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
