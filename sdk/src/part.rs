//! One part of an upload that has been received: in memory, or in a temporary file without a name.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, header};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::charset::Charset;
use crate::multipart::PartStream;
use crate::{Body, Error, MultipartConfig, Parameters, ServletContext};

/// Bytes that are read from or written to a file at a time.
const CHUNK: usize = 128 * 1024;

/// The parts of an upload, in the order sent.
#[derive(Debug, Clone, Default)]
pub struct Parts(Vec<Part>);

impl Parts {
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        Self(parts)
    }

    /// The first part of this name.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.get_all(name).next()
    }

    /// All parts of this name: of a field that takes several files.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(move |part| part.name == name)
    }

    /// All parts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Part> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of the form that are no files, as parameters (Servlet 6.1, section 3.2).
    ///
    /// # Errors
    /// 400 for one that is not text in its charset, 415 when that is not known, 413 for one longer than
    /// [`DEFAULT_CONTENT_LIMIT`](crate::DEFAULT_CONTENT_LIMIT).
    pub async fn parameters(&self) -> Result<Parameters, Error> {
        let mut pairs = Vec::new();
        for part in self.0.iter().filter(|part| part.file_name.is_none()) {
            pairs.push((part.name.clone(), part.text().await?));
        }
        Ok(Parameters::from_pairs(pairs))
    }
}

impl IntoIterator for Parts {
    type Item = Part;
    type IntoIter = std::vec::IntoIter<Part>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One part of an upload (`Part` of Servlet 6.1). A clone shares the content.
#[derive(Clone)]
pub struct Part {
    name: String,
    file_name: Option<String>,
    headers: HeaderMap,
    content: Content,
    size: u64,
    context: Arc<ServletContext>,
    /// The configured one, in which relative paths are.
    location: PathBuf,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, file_name, headers, content, size, .. } = self;
        let mut shown = f.debug_struct("Part");
        shown.field("name", name).field("file_name", file_name).field("headers", headers);
        shown.field("content", content).field("size", size).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Content {
    Memory(Bytes),
    /// It has no name in any folder: the system removes it when nobody has it open any more.
    File(Arc<File>),
}

impl Part {
    pub(crate) async fn receive(
        mut from: PartStream<'_>,
        config: &MultipartConfig,
        context: &Arc<ServletContext>,
    ) -> Result<Self, Error> {
        let name = from.name().to_owned();
        let file_name = from.submitted_file_name().map(str::to_owned);
        let headers = from.headers().clone();
        let (mut buffer, mut file, mut size) = (BytesMut::new(), None, 0);
        while let Some(chunk) = from.chunk().await? {
            size += chunk.len() as u64;
            buffer.extend_from_slice(&chunk);
            let most = if file.is_some() { CHUNK } else { config.file_size_threshold };
            if buffer.len() > most {
                file = Some(write(file, buffer.split().freeze(), config, context).await?);
            }
        }
        if file.is_some() && !buffer.is_empty() {
            file = Some(write(file, buffer.split().freeze(), config, context).await?);
        }
        let content = file.map_or_else(|| Content::Memory(buffer.freeze()), |file| Content::File(Arc::new(file)));
        let (context, location) = (Arc::clone(context), config.location.clone());
        Ok(Self { name, file_name, headers, content, size, context, location })
    }

    /// Name of the form's field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the file as the client sent it, which may be a path, or anything else. `None` for a field that is no file.
    pub fn submitted_file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// Name of the file made safe to be one here: without folders, control characters and dots at its begin, at most 255
    /// bytes. `None` when nothing is left of it. Two uploads may well have the same.
    pub fn file_name(&self) -> Option<String> {
        safe_file_name(self.file_name.as_deref()?)
    }

    /// Its `Content-Type`: what the client says, which need not be so.
    pub fn content_type(&self) -> Option<&str> {
        self.header(header::CONTENT_TYPE.as_str())
    }

    /// The first header field of this name, when it is visible ASCII text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True when it was short enough to be kept in memory.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.content, Content::Memory(_))
    }

    /// All its content, at most so many bytes.
    ///
    /// # Errors
    /// 413 when there is more, 500 when its file can't be read.
    pub async fn bytes_up_to(&self, limit: usize) -> Result<Bytes, Error> {
        if self.size > limit as u64 {
            return Err(Error::too_large(format!("the part '{}' is longer than {limit} bytes", self.name)));
        }
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::File(_) => {
                let mut reader = self.reader();
                let read = move || {
                    let mut all = Vec::new();
                    reader.read_to_end(&mut all).map(|_| Bytes::from(all))
                };
                Ok(spawn_blocking(read).await??)
            }
        }
    }

    /// All its content as text, in the charset of its `Content-Type` (UTF-8 where there is none), at most
    /// [`DEFAULT_CONTENT_LIMIT`](crate::DEFAULT_CONTENT_LIMIT).
    ///
    /// # Errors
    /// 413 when it is longer, 415 when the charset is not known, 400 when it is no text in it.
    pub async fn text(&self) -> Result<String, Error> {
        let charset = Charset::of(self.content_type())?;
        let bytes: Vec<u8> = self.bytes_up_to(crate::DEFAULT_CONTENT_LIMIT).await?.into();
        let text = charset.decode(Cow::Owned(bytes)).map(Cow::into_owned);
        text.ok_or_else(|| Error::bad_request(format!("the part '{}' is not text in its charset", self.name)))
    }

    /// Its content as that of a response, or to read chunk by chunk. It can be had several times.
    pub fn body(&self) -> Body {
        match &self.content {
            Content::Memory(bytes) => bytes.clone().into(),
            Content::File(file) => {
                let chunks = Chunks { file: Arc::clone(file), at: 0, end: self.size, reading: None };
                Body::from_stream_of(self.size, chunks)
            }
        }
    }

    /// Its content as a blocking reader, from its begin. It can be had several times.
    pub fn reader(&self) -> impl Read + Send + 'static {
        PartReader { content: self.content.clone(), at: 0 }
    }

    /// Copies it into a file, which is there with all the content or not at all; one of this name is replaced. A relative path is
    /// one in [`MultipartConfig::location`] (`Part.write` of Servlet 6.1). What the client called the file does not belong into it
    /// as it is: see [`Part::file_name`].
    ///
    /// # Errors
    /// 500 when it can't be written.
    pub async fn write_to(&self, path: impl Into<PathBuf>) -> Result<(), Error> {
        let (mut path, mut reader) = (path.into(), self.reader());
        if path.is_relative() {
            path = self.context.temp_dir()?.join(&self.location).join(path);
        }
        let copy = move || -> io::Result<()> {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            io::copy(&mut reader, &mut file)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        Ok(spawn_blocking(copy).await??)
    }
}

async fn write(
    file: Option<File>,
    bytes: Bytes,
    config: &MultipartConfig,
    context: &ServletContext,
) -> Result<File, Error> {
    let folder = match file {
        None => Some(context.temp_dir()?.join(&config.location)),
        Some(_) => None,
    };
    let work = move || -> io::Result<File> {
        let mut file = match (file, folder) {
            (Some(file), _) => file,
            (None, folder) => tempfile::tempfile_in(folder.unwrap_or_default())?,
        };
        file.write_all(&bytes)?;
        Ok(file)
    };
    let written = spawn_blocking(work).await?;
    written.map_err(|error| Error::internal("could not write an upload to its temporary file").with_source(error))
}

fn safe_file_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    // A colon is a drive or a stream on some systems; the others are wild cards and quotes.
    let kept = last.chars().filter(|c| !c.is_control() && !matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|'));
    let kept: String = kept.collect();
    let kept = kept.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    let mut end = kept.len().min(255);
    while !kept.is_char_boundary(end) {
        end -= 1;
    }
    (end > 0).then(|| kept[..end].to_owned())
}

/// Reads a file without a place in it that others would move.
struct PartReader {
    content: Content,
    at: u64,
}

impl Read for PartReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = match &self.content {
            Content::Memory(bytes) => (&bytes[bytes.len().min(self.at as usize)..]).read(out)?,
            Content::File(file) => file.read_at(out, self.at)?,
        };
        self.at += len as u64;
        Ok(len)
    }
}

struct Chunks {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let (file, at, len) = (Arc::clone(&self.file), self.at, (self.end - self.at).min(CHUNK as u64) as usize);
        let reading = self.reading.get_or_insert_with(|| {
            spawn_blocking(move || {
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, at)?;
                Ok(buffer.into())
            })
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        self.at += len as u64;
        Poll::Ready(Some(read.unwrap_or_else(|error| Err(io::Error::other(error)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_made_safe() {
        for (name, want) in [
            ("photo.jpg", Some("photo.jpg")),
            ("../../etc/passwd", Some("passwd")),
            (r"C:\Users\ada\me.png", Some("me.png")),
            ("/", None),
            ("..", None),
            ("", None),
            (".htaccess", Some("htaccess")),
            ("a\0b\r\nc", Some("abc")),
            ("Grüße 1.txt", Some("Grüße 1.txt")),
            ("con. ", Some("con")),
            ("a:b*?\"<>|c", Some("abc")),
        ] {
            assert_eq!(safe_file_name(name).as_deref(), want, "{name:?}");
        }
        assert!(safe_file_name(&"ü".repeat(300)).unwrap().len() <= 255);
    }
}
