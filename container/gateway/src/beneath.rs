//! Opens files below a document root and nowhere else: the kernel itself refuses to leave it, so that there is no moment
//! between a check and an opening in which a link could be swapped.
//!
//! What the kernel has in memory is opened and read at once, on the worker: asking another thread costs more than the whole
//! answer. Only what would wait for a disk goes to a thread that may.

use std::fs::{File, Metadata};
use std::future::Future;
use std::io::{self, IoSliceMut, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstatfs, openat, openat2, statat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File as ServedFile};

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// An open document root.
#[derive(Clone, Debug)]
pub(crate) struct Beneath {
    root: Arc<OwnedFd>,
    /// Whether opening what is cached never waits.
    quick: bool,
}

/// What may stand below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    File,
    Folder,
}

/// Flags for a file that is read. Nothing waits for a writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// File systems that open a file, once its name is known, without asking a disk or another machine (statfs(2)): ext, XFS,
/// Btrfs, F2FS, ZFS, bcachefs, tmpfs, overlayfs, SquashFS, EROFS.
const LOCAL: [u32; 10] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0xCA45_1A4E,
    0x0102_1994,
    0x794C_7630,
    0x7371_7368,
    0xE0F5_E1E2,
];

impl Beneath {
    /// Opens the root itself.
    pub(crate) fn open_root(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, root, flags, Mode::empty())?;
        // The magic number is one of 32 bits, in a word whose sign differs between machines.
        let quick = fstatfs(&root).is_ok_and(|fs| LOCAL.contains(&(fs.f_type as u32)));
        Ok(Self { root: Arc::new(root), quick })
    }

    /// The same as [`Self::open_below`], where the kernel can say so at once; else `None`.
    fn open_cached(&self, path: &Path) -> Option<io::Result<(File, Metadata)>> {
        if !self.quick {
            return None;
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // Another file system that is mounted below may be slow.
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
        match openat2(&*self.root, path, READ, Mode::empty(), resolve) {
            Ok(file) => Some(regular(file)),
            Err(Errno::NOENT) => Some(Err(io::ErrorKind::NotFound.into())),
            // Not cached, or a kernel that does not know these flags, or whatever else the slow way says better.
            Err(_) => None,
        }
    }

    /// Opens a regular file or a directory below the root. Links that stay below it are followed. Everything else there
    /// might be (a FIFO, a device, a link out) is not found, and nothing here ever waits for a writer.
    fn open_below(&self, path: &Path) -> io::Result<(File, Metadata)> {
        self.open_with(path, READ)
    }

    /// What [`Self::open_below`] would open, without the right to read it; `None` where it would find nothing.
    pub(crate) fn kind(&self, path: &Path) -> io::Result<Option<Entry>> {
        match self.look(path) {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look(&self, path: &Path) -> io::Result<Entry> {
        // What stands in the root itself and is no link leads nowhere else: one step instead of three.
        let mut components = path.components();
        if let (Some(Component::Normal(name)), None) = (components.next(), components.next()) {
            let found = statat(&*self.root, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| missing(e.into()))?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => return Ok(Entry::File),
                FileType::Directory => return Ok(Entry::Folder),
                FileType::Symlink => {}
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        let (_, metadata) = self.open_with(path, OFlags::PATH | OFlags::CLOEXEC)?;
        Ok(if metadata.is_dir() { Entry::Folder } else { Entry::File })
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(&*self.root, path, flags, Mode::empty(), resolve) {
            // No openat2 (an old kernel, or a sandbox that does not know it): no links at all then.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened.map_err(Into::into),
        };
        regular(opened.map_err(missing)?)
    }

    /// Opens one component after the other, following no link.
    fn walk(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = openat(&*self.root, ".", folder, Mode::empty())?;
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

/// A file or a directory, and what it is; all else is not found.
fn regular(file: OwnedFd) -> io::Result<(File, Metadata)> {
    let file = File::from(file);
    let metadata = file.metadata()?;
    if metadata.is_file() || metadata.is_dir() { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whatever says that the file is not to be had is 'not found'; trouble of the machine stays what it is.
fn missing(error: io::Error) -> io::Error {
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
        if let Some(opened) = self.open_cached(&path) {
            return Box::pin(std::future::ready(opened.and_then(BeneathFile::new)));
        }
        let root = self.clone();
        Box::pin(blocking(move || root.open_below(&path).and_then(BeneathFile::new)))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        if let Some(opened) = self.open_cached(&path) {
            return Box::pin(std::future::ready(opened.map(|(_, metadata)| metadata)));
        }
        let root = self.clone();
        Box::pin(blocking(move || root.open_below(&path).map(|(_, metadata)| metadata)))
    }
}

/// An open file with what was known of it when it was opened.
#[derive(Debug)]
pub(crate) struct BeneathFile {
    file: tokio::fs::File,
    metadata: Metadata,
    /// Where to read next, as long as everything was cached. From then on the file reads on threads that may wait.
    cached: Option<u64>,
}

impl BeneathFile {
    fn new((file, metadata): (File, Metadata)) -> io::Result<Self> {
        if metadata.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { file: tokio::fs::File::from_std(file), metadata, cached: Some(0) })
    }

    /// From here on reads may wait.
    fn wait(&mut self) -> io::Result<()> {
        if let Some(position) = self.cached.take() {
            seek(&self.file, SeekFrom::Start(position))?;
        }
        Ok(())
    }
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
        if let Some(position) = self.cached {
            let mut into = [IoSliceMut::new(buf.initialize_unfilled())];
            if let Ok(read) = preadv2(&self.file, &mut into, position, ReadWriteFlags::NOWAIT) {
                buf.advance(read);
                self.cached = Some(position + read as u64);
                return Poll::Ready(Ok(()));
            }
            // Not cached, or a file system that can't say: whatever is wrong with it, the other way finds out.
            self.wait()?;
        }
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for BeneathFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let Some(position) = self.cached else { return Pin::new(&mut self.file).start_seek(to) };
        // Only sets a number, in a regular file.
        seek(&self.file, SeekFrom::Start(position))?;
        self.cached = Some(seek(&self.file, to)?);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.cached {
            Some(position) => Poll::Ready(Ok(position)),
            None => Pin::new(&mut self.file).poll_complete(cx),
        }
    }
}

/// Moves the cursor of the file itself.
fn seek(file: &tokio::fs::File, to: SeekFrom) -> io::Result<u64> {
    let to = match to {
        SeekFrom::Start(at) => rustix::fs::SeekFrom::Start(at),
        SeekFrom::End(by) => rustix::fs::SeekFrom::End(by),
        SeekFrom::Current(by) => rustix::fs::SeekFrom::Current(by),
    };
    Ok(rustix::fs::seek(file, to)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};

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
            assert!(!matches!(root.open_cached(Path::new(path)), Some(Ok(_))), "{path}");
            assert!(root.walk(Path::new(path), flags).is_err(), "{path}");
        }
    }
    #[tokio::test]
    async fn a_file_reads_the_same_whether_or_not_it_is_cached() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(folder.path().join("file"), &content).unwrap();
        let quick = Beneath::open_root(folder.path()).unwrap();
        let slow = Beneath { quick: false, ..quick.clone() };
        for root in [quick, slow] {
            assert!(root.quick || root.open_cached(Path::new("file")).is_none());
            for waits_at in [None, Some(0), Some(100_000)] {
                let mut file = root.open("file".into()).await.unwrap();
                assert_eq!(file.metadata.len(), 300_000);
                file.seek(SeekFrom::Start(7)).await.unwrap();
                let mut read = Vec::new();
                if let Some(at) = waits_at {
                    read.resize(at, 0);
                    file.read_exact(&mut read).await.unwrap();
                    file.wait().unwrap();
                }
                file.read_to_end(&mut read).await.unwrap();
                assert!(read == content[7..], "{waits_at:?}");
                file.seek(SeekFrom::Start(299_999)).await.unwrap();
                assert_eq!(file.read_u8().await.unwrap(), content[299_999]);
            }
        }
    }
}
