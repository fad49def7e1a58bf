//! The port of HTTP clients.

use std::fmt;
use std::time::Duration;

use super::{Chunks, Work};

/// A request to a server of the configuration.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// Method.
    pub method: String,
    /// Path, from `/`, and query: below the base URL.
    pub target: String,
    /// Header field lines.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Content.
    pub body: Vec<u8>,
    /// How long it may take until the head of the response is there; `None` is the configured time.
    pub timeout: Option<Duration>,
    /// Id of the request that it is made for; empty where there is none.
    pub request: String,
}

/// The response.
pub struct ClientResponse {
    /// Status.
    pub status: u16,
    /// Header field lines.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Content.
    pub body: Box<dyn Chunks>,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// What an application can do something about.
    pub kind: ClientErrorKind,
    /// For people to read.
    pub message: String,
}

/// What an application can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientErrorKind {
    /// The server can't be reached, or the connection broke.
    Connection,
    /// It took too long.
    Timeout,
    /// It was not asked: it has failed too often of late.
    Open,
    /// The request is none.
    Invalid,
}

impl ClientErrorKind {
    /// For metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Open => "open",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {}

/// A server, through the container's connections.
pub trait HttpClient: Send + Sync + 'static {
    /// Sends a request. `trace` is the `traceparent` of the request that it is made for.
    fn send(&self, request: ClientRequest, trace: Option<String>) -> Work<Result<ClientResponse, ClientError>>;
}
