//! What answers a request, seen from the pipeline: nothing before it knows whether it is a module, a folder or a proxy.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use wharf_mapping::Match;

use crate::session::SessionSlot;
use crate::{Body, ContextPath, Lease, ShortText, Version};

/// Facts about a connection, shared by all its requests.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client: what a trusted proxy says of it, else the peer. `None` on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// The other end of the connection itself, `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether the peer is a proxy that is trusted to say whom it speaks for in header fields.
    pub trusted: bool,
    /// The address the connection was accepted on, `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// True when the connection itself, or the one that a trusted proxy speaks for, is encrypted.
    pub secure: bool,
    /// `remote` as text, made once for all requests; empty without one.
    pub remote_text: Box<str>,
    /// What TLS agreed on, where the connection is encrypted.
    pub tls: Option<Arc<TlsFacts>>,
    /// Both ends as text, where that was asked for.
    ends: OnceLock<[Option<EndText>; 2]>,
}

/// One end of a connection as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndText {
    /// Its address; of IPv4 where it stands for one.
    pub address: Box<str>,
    /// Its port.
    pub port: Box<str>,
}

/// What a TLS handshake agreed on (Servlet 6.1, section 3.9 names the attributes that come from it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its name in the IANA registry.
    pub cipher: Box<str>,
    /// The name that the client asked for, in lower case (SNI).
    pub server_name: Option<Box<str>>,
    /// The certificate that the client proved to have the key of, in DER. It was checked against the trusted authorities.
    pub client_certificate_der: Option<Bytes>,
}

impl Connection {
    /// A connection between these two.
    pub fn new(remote: Option<SocketAddr>, local: Option<SocketAddr>, secure: bool) -> Self {
        let text = |addr: Option<SocketAddr>| addr.map_or_else(Box::default, |a| a.to_string().into_boxed_str());
        Self {
            remote,
            peer: remote,
            trusted: false,
            local,
            secure,
            remote_text: text(remote),
            tls: None,
            ends: OnceLock::new(),
        }
    }

    fn ends(&self) -> &[Option<EndText>; 2] {
        let text = |end: SocketAddr| EndText {
            address: end.ip().to_canonical().to_string().into(),
            port: end.port().to_string().into(),
        };
        self.ends.get_or_init(|| [self.remote, self.local].map(|end| end.map(text)))
    }

    /// The client's end as text, which is made once.
    pub fn remote_end(&self) -> Option<&EndText> {
        self.ends()[0].as_ref()
    }

    /// The end that the connection was accepted on, as text, which is made once.
    pub fn local_end(&self) -> Option<&EndText> {
        self.ends()[1].as_ref()
    }

    /// The same connection, encrypted.
    #[must_use]
    pub fn encrypted(self, facts: TlsFacts) -> Self {
        Self { tls: Some(Arc::new(facts)), secure: true, ..self }
    }

    /// The same connection, whose peer is a trusted proxy and speaks for this client. What TLS agreed on with the proxy is
    /// not said of the client.
    #[must_use]
    pub fn behind(&self, remote: Option<SocketAddr>, secure: bool) -> Self {
        Self { peer: self.peer, trusted: true, ..Self::new(remote, self.local, secure) }
    }
}

/// The path of a request, canonical and taken apart as in Servlet 6.1, section 3.5.
#[derive(Debug, Clone, Default)]
pub struct PathElements {
    encoded: ShortText,
    /// `None` where nothing was encoded.
    decoded: Option<Box<str>>,
    /// Length of the context path.
    context: usize,
    /// End of the servlet path in the decoded path.
    servlet_end: usize,
    has_path_info: bool,
    servlet: usize,
    pattern: usize,
}

impl PathElements {
    /// A path that begins with the context path, encoded and decoded, and what its servlets made of the rest; `None` where the endpoint takes the
    /// whole context.
    pub fn new(encoded: impl Into<ShortText>, decoded: &str, context: &ContextPath, found: Option<Match>) -> Self {
        let encoded = encoded.into();
        let context = context.as_str().len();
        let (servlet, pattern, end, has_path_info) =
            found.map_or((0, 0, 0, true), |f| (f.servlet, f.pattern, f.servlet_path_len, f.has_path_info));
        let decoded = (encoded != *decoded).then(|| decoded.into());
        Self { encoded, decoded, context, servlet_end: context + end, has_path_info, servlet, pattern }
    }

    /// The same for another path in the same context.
    #[must_use]
    pub fn with_path(self, encoded: &str, decoded: &str) -> Self {
        Self { encoded: encoded.into(), decoded: (decoded != encoded).then(|| decoded.into()), ..self }
    }

    /// Canonical path, still percent-encoded: dot segments resolved, path parameters removed, slashes merged.
    pub fn encoded(&self) -> &ShortText {
        &self.encoded
    }

    /// Canonical path, percent-decoded: what was mapped.
    pub fn decoded(&self) -> &str {
        self.decoded.as_deref().unwrap_or(&self.encoded)
    }

    /// The context path that won.
    pub fn context(&self) -> &str {
        // It needs no escapes, so both begin with it.
        &self.encoded[..self.context]
    }

    /// What follows the context path, encoded.
    pub fn encoded_inside(&self) -> &str {
        &self.encoded[self.context..]
    }

    /// What follows the context path, decoded.
    pub fn inside(&self) -> &str {
        &self.decoded()[self.context..]
    }

    /// The servlet path, decoded.
    pub fn servlet_path(&self) -> &str {
        &self.decoded()[self.context..self.servlet_end]
    }

    /// The path info, decoded. Where there is none it is null, not empty.
    pub fn path_info(&self) -> Option<&str> {
        self.has_path_info.then(|| &self.decoded()[self.servlet_end..])
    }

    /// Which of the context's servlets was chosen, an index into [`crate::launch::Launched::servlets`]; 0 where there are none.
    pub fn servlet(&self) -> usize {
        self.servlet
    }

    /// The pattern that matched, an index into that servlet's patterns.
    pub fn pattern(&self) -> usize {
        self.pattern
    }
}

/// Who the client is, put into the request's extensions by whatever authenticated it.
///
/// Programs behind a gateway learn it as `REMOTE_USER` and `AUTH_TYPE` (RFC 3875, sections 4.1.11 and 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The user's name.
    pub user: Arc<str>,
    /// The scheme by which it was shown, as in the registry of RFC 9110, section 16.4.1: `Basic`, `Digest`.
    pub scheme: Arc<str>,
    /// The user's roles, one a line.
    pub roles: Arc<str>,
}

impl Authenticated {
    /// A user with these roles. A role with a control character is left out: it could be taken for two.
    pub fn new<'a>(user: &str, scheme: &str, roles: impl IntoIterator<Item = &'a str>) -> Self {
        let fit = roles.into_iter().filter(|role| !role.is_empty() && !role.contains(char::is_control));
        let roles: Vec<&str> = fit.collect();
        Self { user: user.into(), scheme: scheme.into(), roles: roles.join("\n").into() }
    }

    /// Whether the user has this role.
    pub fn has_role(&self, role: &str) -> bool {
        !role.is_empty() && self.roles.split('\n').any(|r| r == role)
    }
}

/// The id of a request. Those of the container are short.
pub type RequestId = ShortText;

/// One request on its way to an endpoint. It is handed through much, and is large: it is boxed from the start.
pub struct Exchange {
    /// The request as it came, target included.
    pub request: http::Request<Body>,
    /// Its path, mapped; empty before that.
    pub path: PathElements,
    /// Host the client asked for, with the port if given: from the absolute-form target, else from the Host header.
    pub authority: ShortText,
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// The request id: printed in the access log, and in every log record the application writes for it.
    pub id: RequestId,
    /// Its session, once it is open. Costs nothing until then.
    pub session: SessionSlot,
}

/// The future of a response.
pub type ResponseFuture = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// What answers requests for a context. An endpoint that fails answers with a status; it never panics.
pub trait Endpoint: Send + Sync + 'static {
    /// Answers one request. The lease keeps the generation alive: the endpoint moves it into the response's body.
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture;

    /// Memory that its code holds now, in bytes, where that is known.
    fn live_bytes(&self) -> Option<u64> {
        None
    }

    /// Processor time that threads and processes of its own took since the last call.
    fn take_own_time(&self) -> Duration {
        Duration::ZERO
    }

    /// The version of the application in which this request's session began. Asked only where several versions serve one
    /// context.
    fn session_version(&self, request: &http::Request<Body>) -> Option<Version> {
        let _ = request;
        None
    }
}
