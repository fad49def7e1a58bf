//! The limits of the server and where it listens. The defaults suit a container that faces the internet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wharf_kernel::settings::Http2;

use crate::Tls;

/// What a client may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; at the limit accepting pauses. Default: 10,000, but at most 80% of the process's file descriptors.
    pub connections: usize,
    /// Connections of one address; more are closed at once. Default: any number.
    pub connections_per_address: Option<usize>,
    /// Time for the head of a request from its first byte on, and for the first byte of a new connection. Default: 10 s.
    pub header_timeout: Duration,
    /// Time for the next request to begin on an idle connection. Default: 60 s.
    pub keep_alive: Duration,
    /// Requests on one HTTP/1 connection; 0 for any number. Default: 1000.
    pub keep_alive_requests: u32,
    /// Header lines of a request; more are answered with 431. Default: 100.
    pub header_count: usize,
    /// Bytes of all header lines together; more are answered with 431. Default: 32 KiB.
    pub header_bytes: usize,
    /// Bytes of the request target; a longer one is answered with 414. Default: 8 KiB.
    pub target_bytes: usize,
    /// Bytes of a request body; more are answered with 413. Default: 10 MiB.
    pub body_bytes: u64,
    /// Time for the next piece of a request body to arrive. Default: 30 s.
    pub body_idle: Duration,
    /// Bytes a second that a request body must bring, after 5 s of waiting for it; 0 for any. Default: 240.
    pub body_min_rate: u32,
    /// Time for an application to begin its answer, counted anew while the request body comes in; nothing for any.
    /// Default: 60 s.
    pub response_timeout: Duration,
    /// Time for a client to take any byte of an answer. Default: 30 s.
    pub send_timeout: Duration,
    /// Bytes a second that a client must take once it keeps the container waiting; 0 for any. Default: 240.
    pub send_min_rate: u32,
    /// Cookies of a request; more are answered with 431. Default: 100.
    pub cookies: usize,
    /// Bytes of a request body the application did not read that are read and thrown away to keep the connection. Default: 256 KiB.
    pub drain_bytes: u64,
    /// How long that may take. Default: 5 s.
    pub drain_time: Duration,
    /// Whether a connection stays open after a request with `Transfer-Encoding`. Default: false, since such a request may
    /// have had a Content-Length beside it, and then the connection must be closed (RFC 9112, section 6.1).
    pub keep_alive_after_chunked: bool,
    /// HTTP/2.
    pub http2: Http2,
    /// Whose word about the client is taken. Default: nobody's.
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

impl Limits {
    /// How many connections fit into 80% of the files that the process may have open.
    pub fn most_connections() -> usize {
        let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
        usize::try_from(descriptors.saturating_mul(8) / 10).unwrap_or(usize::MAX).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Self::most_connections().min(10_000),
            connections_per_address: None,
            keep_alive: Duration::from_secs(60),
            keep_alive_requests: 1000,
            header_timeout: Duration::from_secs(10),
            header_count: 100,
            header_bytes: 32 * 1024,
            target_bytes: 8 * 1024,
            body_bytes: 10 * 1024 * 1024,
            body_idle: Duration::from_secs(30),
            body_min_rate: 240,
            response_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            send_min_rate: 240,
            cookies: 100,
            drain_bytes: 256 * 1024,
            drain_time: Duration::from_secs(5),
            keep_alive_after_chunked: false,
            http2: Http2::default(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Somewhere to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes a free port.
    Tcp(SocketAddr),
    /// The same, with TLS on it.
    Tls(SocketAddr),
    /// A Unix socket. A socket file that nobody listens on any more is replaced.
    Unix(PathBuf),
}

/// How a server is started.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Those of `listen` whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<Listen>,
    /// Worker threads, at least 1. Default: one for each processor available.
    pub workers: usize,
    /// Limits; of these only those of connections are read here, the others from
    /// [`Pipeline::limits`](crate::Pipeline::limits).
    pub limits: Limits,
    /// Certificates, needed for [`Listen::Tls`].
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            proxy_protocol: Vec::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
            tls: None,
        }
    }
}
