//! The port between the connectors, which know that a request is over, and whoever writes it down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri};

use crate::counters::LocalCounts;

/// One finished request. Cheap to make: text is shared with the request, nothing is formatted yet.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the request's head was complete.
    pub time: SystemTime,
    /// The peer, `None` on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// Method.
    pub method: Method,
    /// Target as received.
    pub target: Uri,
    /// Protocol.
    pub version: http::Version,
    /// Value of the Host header or the authority of the target; empty without one.
    pub host: Box<str>,
    /// Status sent.
    pub status: u16,
    /// Content bytes sent.
    pub bytes: u64,
    /// From the head of the request to the end of the response body.
    pub duration: Duration,
    /// `Referer` header.
    pub referer: Option<HeaderValue>,
    /// `User-Agent` header.
    pub user_agent: Option<HeaderValue>,
    /// Name of the user, where the container knows who it was.
    pub user: Option<Arc<str>>,
    /// Request id.
    pub id: crate::RequestId,
    /// Counters of the application that answered: they name it. `None` where none did.
    pub app: Option<LocalCounts>,
    /// True when the response broke off before its end.
    pub aborted: bool,
}

/// Takes records of finished requests. Called on the request path: it must not block.
pub trait AccessSink: Send + Sync + 'static {
    /// Takes one.
    fn record(&self, record: AccessRecord);

    /// Whether records are wanted at all: where they are not, none is made.
    fn enabled(&self) -> bool {
        true
    }
}

/// Writes nothing down.
pub struct NoAccessLog;

impl AccessSink for NoAccessLog {
    fn record(&self, _record: AccessRecord) {}

    fn enabled(&self) -> bool {
        false
    }
}
