//! `[server]`: the connectors and their limits.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listen::{Listen, OneOrMany, one_or_many};
use super::{Http2, Network};

/// `[server]`: the connectors and their limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses to listen on: `"127.0.0.1:8080"`, `"[::]:80"`, `":8080"` for every address, `"https://:8443"` with TLS,
    /// `"unix:PATH"`. One or a list.
    /// Port 0 picks a free one. Default `["127.0.0.1:8080"]`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub listen: Vec<Listen>,
    /// Worker threads; default: one for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// How long requests in flight may take when the container stops or a generation is retired. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
    /// Addresses and networks of proxies that are believed when they say whom they speak for, by X-Forwarded-For, Forwarded
    /// or the PROXY protocol: `["10.0.0.0/8", "::1"]`. Default none.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// Those of `listen` whose connections must begin with a PROXY protocol header. Default none.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub proxy_protocol: Vec<Listen>,
    /// Limits on requests.
    pub limits: Limits,
    /// HTTP/2.
    pub http2: Http2,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            workers: None,
            drain_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            http2: Http2::default(),
        }
    }
}

/// `[server.limits]`: what a client may ask for. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Length of the request target; a longer one is answered with 414. Default 8192.
    pub request_line: usize,
    /// Length of all header fields together; more is answered with 431. Default 32768.
    pub headers: usize,
    /// Number of header fields. Default 100.
    pub header_count: usize,
    /// Size of a request body. Default 10485760 (10 MiB).
    pub body: u64,
    /// How much of a body that the application left unread is read before the connection is closed. Default 262144.
    pub unread_body: u64,
    /// For the head of a request, from its first byte to its last; and for the first byte of a new connection.
    /// Default `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub header_timeout: Duration,
    /// For the next request to begin on an idle connection. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep_alive_timeout: Duration,
    /// Requests on one HTTP/1 connection; it is closed after the last. 0: any number. Default 1000.
    pub keep_alive_requests: u32,
    /// Without a byte of the request body. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub body_idle_timeout: Duration,
    /// Bytes a second that a request body must bring after 5 s of waiting for it. 0: any. Default 240.
    pub body_min_rate: u32,
    /// For an application to begin its answer, counted anew while the request body comes in. 0: any. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub response_timeout: Duration,
    /// For a client to take any byte of the answer. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub send_timeout: Duration,
    /// Bytes a second that a client must take once it keeps the container waiting. 0: any. Default 240.
    pub send_min_rate: u32,
    /// Cookies of a request; more are answered with 431. Default 100.
    pub cookies: usize,
    /// Connections at a time. Default 10000; never more than 0.8 of the open files that the process may have.
    pub max_connections: usize,
    /// Connections of one address at a time. Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: 8 << 10,
            headers: 32 << 10,
            header_count: 100,
            body: 10 << 20,
            unread_body: 256 << 10,
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
            keep_alive_requests: 1000,
            body_idle_timeout: Duration::from_secs(30),
            body_min_rate: 240,
            response_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            send_min_rate: 240,
            cookies: 100,
            max_connections: 10_000,
            connections_per_address: None,
        }
    }
}
