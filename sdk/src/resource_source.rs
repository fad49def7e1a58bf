//! Where the files of an application are: in a folder, or in the module itself.

use std::borrow::Cow;
use std::fmt;
use std::future::{Ready, ready};
use std::io::{self, Cursor};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File, Metadata};

use crate::application::BoxFuture;
use crate::resource_root::{ResourceFile, ResourceRoot};

/// Finds a file in the module by its path, such as `css/style.css`.
pub(crate) type Find = dyn Fn(&str) -> Option<Cow<'static, [u8]>> + Send + Sync;

/// Files to serve.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Folder(ResourceRoot),
    Embedded(Embedded),
}

/// Files in the module. A folder is where one of the welcome files is.
#[derive(Clone)]
pub(crate) struct Embedded {
    pub(crate) find: Arc<Find>,
    pub(crate) welcome: Arc<[String]>,
    /// They are as old as the start of this copy of the application: the module says nothing else of them.
    pub(crate) since: SystemTime,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded")
    }
}

impl Embedded {
    /// The path as names of files are compared; `None` for one that climbs.
    fn name(path: &Path) -> Option<String> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name.to_str()?),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        Some(names.join("/"))
    }

    fn open(&self, path: &Path) -> io::Result<ServedFile> {
        let content = Self::name(path).and_then(|name| (self.find)(&name)).ok_or(io::ErrorKind::NotFound)?;
        let facts = Facts { is_dir: false, modified: self.since, len: content.len() as u64 };
        Ok(ServedFile { content: Content::Embedded(Cursor::new(content)), facts })
    }

    fn look(&self, path: &Path) -> io::Result<Facts> {
        if let Ok(file) = self.open(path) {
            return Ok(file.facts);
        }
        let name = Self::name(path).ok_or(io::ErrorKind::NotFound)?;
        let inside = |welcome: &String| (self.find)(format!("{name}/{welcome}").trim_start_matches('/')).is_some();
        let is_dir = self.welcome.iter().any(inside);
        if is_dir { Ok(Facts { is_dir, modified: self.since, len: 0 }) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Source {
    /// The first of these names that is a file in the folder at `path`, which ends with a slash.
    pub(crate) async fn first_file(&self, path: &str, names: &[String]) -> io::Result<Option<String>> {
        match self {
            Self::Folder(root) => root.first_file(path, names).await,
            Self::Embedded(embedded) => {
                let mut paths = names.iter().map(|name| format!("{path}{name}"));
                Ok(paths.find(|path| embedded.open(Path::new(path)).is_ok()))
            }
        }
    }
}

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    is_dir: bool,
    modified: SystemTime,
    len: u64,
}

impl Facts {
    fn of(metadata: &std::fs::Metadata) -> io::Result<Self> {
        Ok(Self { is_dir: metadata.is_dir(), modified: metadata.modified()?, len: metadata.len() })
    }
}

impl Metadata for Facts {
    fn is_dir(&self) -> bool {
        self.is_dir
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(self.modified)
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl Backend for Source {
    type File = ServedFile;
    type Metadata = Facts;
    type OpenFuture = BoxFuture<'static, io::Result<ServedFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<Facts>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        match self.clone() {
            Self::Folder(root) => Box::pin(async move {
                let (file, metadata) = root.open(path).await?;
                Ok(ServedFile { content: Content::Folder(file), facts: Facts::of(&metadata)? })
            }),
            Self::Embedded(embedded) => Box::pin(ready(embedded.open(&path))),
        }
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        match self.clone() {
            Self::Folder(root) => Box::pin(async move { Facts::of(&root.metadata(path).await?) }),
            Self::Embedded(embedded) => Box::pin(ready(embedded.look(&path))),
        }
    }
}

/// An open file, with what was known of it when it was opened.
#[derive(Debug)]
pub(crate) struct ServedFile {
    content: Content,
    facts: Facts,
}

#[derive(Debug)]
enum Content {
    Folder(ResourceFile),
    Embedded(Cursor<Cow<'static, [u8]>>),
}

impl File for ServedFile {
    type Metadata = Facts;
    type MetadataFuture<'a> = Ready<io::Result<Facts>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.facts))
    }
}

impl AsyncRead for ServedFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.content {
            Content::Folder(file) => Pin::new(file).poll_read(cx, buf),
            Content::Embedded(bytes) => Pin::new(bytes).poll_read(cx, buf),
        }
    }
}

impl AsyncSeek for ServedFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        match &mut self.content {
            Content::Folder(file) => Pin::new(file).start_seek(position),
            Content::Embedded(bytes) => Pin::new(bytes).start_seek(position),
        }
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match &mut self.content {
            Content::Folder(file) => Pin::new(file).poll_complete(cx),
            Content::Embedded(bytes) => Pin::new(bytes).poll_complete(cx),
        }
    }
}
