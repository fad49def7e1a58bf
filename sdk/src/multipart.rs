//! Uploads: `multipart/form-data` content (RFC 7578; Servlet 6.1, section 3.2), part by part as it arrives.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, header};
use http_body::Body as _;

use crate::{Body, BoxError, Error, Part, Parts, Request};

/// Bytes that are given to the parser at a time.
const PIECE: usize = 64 * 1024;
/// Bytes the parser may be given before anything comes of them: the header fields of a part, or what stands before the first.
const MOST_UNREAD: usize = 4 * PIECE;

/// Limits of an upload, and where its files go (`MultipartConfig` of Servlet 6.1, section 8.1.5).
///
/// ```
/// use wharf_sdk::MultipartConfig;
///
/// let config = MultipartConfig::new().max_file_size(5 << 20).max_parts(10);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct MultipartConfig {
    pub(crate) max_file_size: u64,
    max_request_size: u64,
    pub(crate) file_size_threshold: usize,
    max_parts: usize,
    max_part_header: usize,
    pub(crate) location: PathBuf,
}

impl Default for MultipartConfig {
    fn default() -> Self {
        Self {
            max_file_size: 16 << 20,
            max_request_size: 64 << 20,
            file_size_threshold: 64 << 10,
            max_parts: 50,
            max_part_header: 1024,
            location: PathBuf::new(),
        }
    }
}

impl MultipartConfig {
    /// 16 MiB for a part, 64 MiB for all, 50 parts with 1 KiB of header fields each; parts above 64 KiB go to files in the application's
    /// temporary folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that one part may have; more is a 413.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Bytes that all the content may have; more is a 413. The container has a limit of its own beside.
    pub fn max_request_size(mut self, bytes: u64) -> Self {
        self.max_request_size = bytes;
        self
    }

    /// Bytes of a part that are kept in memory; a longer part goes to a file.
    pub fn file_size_threshold(mut self, bytes: usize) -> Self {
        self.file_size_threshold = bytes;
        self
    }

    /// How many parts there may be; more is a 413.
    pub fn max_parts(mut self, parts: usize) -> Self {
        self.max_parts = parts;
        self
    }

    /// Bytes that the header fields of a part may have, names and values; more is a 413.
    pub fn max_part_header(mut self, bytes: usize) -> Self {
        self.max_part_header = bytes;
        self
    }

    /// Folder for the files of long parts: absolute, or relative to the application's temporary folder. It must be there.
    pub fn location(mut self, folder: impl Into<PathBuf>) -> Self {
        self.location = folder.into();
        self
    }
}

impl Request {
    /// The parts of an upload (`multipart/form-data`), all of it read. Long parts are in temporary files without a name, which
    /// are gone with the last [`Part`] that has them, whatever ends this program.
    ///
    /// ```
    /// use wharf_sdk::{Error, MultipartConfig, Request};
    ///
    /// async fn upload(mut request: Request) -> Result<String, Error> {
    ///     let parts = request.parts(&MultipartConfig::new()).await?;
    ///     let photo = parts.get("photo").ok_or_else(|| Error::bad_request("no photo"))?;
    ///     let name = photo.file_name().unwrap_or_else(|| "unnamed".into());
    ///     Ok(format!("{name}: {} bytes", photo.size()))
    /// }
    /// ```
    ///
    /// # Errors
    /// 415 when it is no upload, 413 when it is more than `config` allows, 400 when it is malformed or breaks off, 500 when a
    /// file can't be written.
    pub async fn parts(&mut self, config: &MultipartConfig) -> Result<Parts, Error> {
        let context = Arc::clone(self.context());
        let mut multipart = self.multipart(config)?;
        let mut parts = Vec::new();
        while let Some(part) = multipart.next_part().await? {
            parts.push(Part::receive(part, config, &context).await?);
        }
        Ok(Parts::new(parts))
    }

    /// The parts of an upload one after the other, as they arrive, without keeping them.
    ///
    /// # Errors
    /// 415 when it is no upload, 413 when it states a length beyond `config`, 400 when its boundary is missing.
    pub fn multipart(&mut self, config: &MultipartConfig) -> Result<Multipart, Error> {
        let boundary = multer::parse_boundary(self.content_type().unwrap_or_default()).map_err(refused)?;
        if self.content_length().is_some_and(|len| len > config.max_request_size) {
            return Err(Error::too_large(format!("the upload is longer than {} bytes", config.max_request_size)));
        }
        let unread = Arc::new(AtomicUsize::new(0));
        let feed = Feed { body: self.take_body(), rest: Bytes::new(), unread: Arc::clone(&unread), rested: true };
        let limits = multer::SizeLimit::new().whole_stream(config.max_request_size).per_field(config.max_file_size);
        let constraints = multer::Constraints::new().size_limit(limits);
        let parser = multer::Multipart::with_constraints(feed, boundary, constraints);
        Ok(Multipart { parser, current: None, unread, left: config.max_parts, max_header: config.max_part_header })
    }
}

/// An upload that is being received.
#[derive(Debug)]
pub struct Multipart {
    parser: multer::Multipart<'static>,
    current: Option<multer::Field<'static>>,
    unread: Arc<AtomicUsize>,
    left: usize,
    max_header: usize,
}

impl Multipart {
    /// The next part; `None` at the end. What was not read of the one before is passed over.
    ///
    /// # Errors
    /// 413 for too many or too large parts, 400 when they are malformed or break off.
    pub async fn next_part(&mut self) -> Result<Option<PartStream<'_>>, Error> {
        // Not by the parser, which would take what it passes over for one long head.
        if let Some(field) = &mut self.current {
            while let Some(chunk) = field.chunk().await.map_err(refused)? {
                self.unread.store(0, Ordering::Relaxed);
                drop(chunk);
            }
            self.current = None;
        }
        let Some(field) = self.parser.next_field().await.map_err(refused)? else { return Ok(None) };
        self.unread.store(0, Ordering::Relaxed);
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::too_large("the upload has too many parts"))?;
        let header: usize = field.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header > self.max_header {
            let most = self.max_header;
            return Err(Error::too_large(format!("the header fields of a part are longer than {most} bytes")));
        }
        if field.name().is_none() {
            return Err(Error::bad_request("a part of the upload has no name"));
        }
        Ok(Some(PartStream { field: self.current.insert(field), unread: &self.unread }))
    }
}

/// One part of an upload that is being received.
#[derive(Debug)]
pub struct PartStream<'a> {
    field: &'a mut multer::Field<'static>,
    unread: &'a AtomicUsize,
}

impl PartStream<'_> {
    /// Name of the form's field.
    pub fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// Name of the file as the client sent it, which may be a path, or anything else: see [`Part::file_name`].
    pub fn submitted_file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// Its `Content-Type`.
    pub fn content_type(&self) -> Option<&str> {
        self.field.headers().get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.field.headers()
    }

    /// The next chunk of its content; `None` at the end.
    ///
    /// # Errors
    /// 413 for too large a part, 400 when the upload is malformed or breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.field.chunk().await.map_err(refused)?;
        self.unread.store(0, Ordering::Relaxed);
        Ok(chunk)
    }
}

fn refused(error: multer::Error) -> Error {
    match error {
        multer::Error::NoMultipart => Error::unsupported_media_type("expected content of type multipart/form-data"),
        multer::Error::DecodeContentType(_) => {
            Error::unsupported_media_type("expected content of type multipart/form-data")
        }
        multer::Error::FieldSizeExceeded { limit, .. } => {
            Error::too_large(format!("a part of the upload is longer than {limit} bytes"))
        }
        multer::Error::StreamSizeExceeded { limit } => {
            Error::too_large(format!("the upload is longer than {limit} bytes"))
        }
        multer::Error::StreamReadFailed(source) => Error::bad_request("the upload broke off").with_source(source),
        malformed => Error::bad_request(format!("the upload is malformed: {malformed}")),
    }
}

/// The content, for a parser that takes all that is there before it looks at any of it: a piece at a time, and never more than
/// [`MOST_UNREAD`] without an outcome, so that memory stays small however fast the client is.
struct Feed {
    body: Body,
    rest: Bytes,
    unread: Arc<AtomicUsize>,
    /// The parser has been made to look at the piece before.
    rested: bool,
}

impl Stream for Feed {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.rested, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let len = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(len);
        if self.unread.fetch_add(len, Ordering::Relaxed) + len > MOST_UNREAD {
            return Poll::Ready(Some(Err("the head of a part has no end".into())));
        }
        self.rested = false;
        Poll::Ready(Some(Ok(piece)))
    }
}
