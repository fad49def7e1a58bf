//! What the container says of a request beside the HTTP message itself.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;

use crate::ServletContext;
use crate::dispatch_state::DispatchState;

/// The context behind a second reference count, which may be a thread's own: a count that all threads share is passed
/// between processors with every request.
#[allow(clippy::redundant_allocation)]
pub(crate) type LocalContext = Arc<Arc<ServletContext>>;

/// What the container says of a request beside the HTTP message itself.
#[derive(Debug, Clone)]
#[doc(hidden)]
pub struct RequestFacts {
    /// The path of the request target as sent, without the query.
    pub request_uri: Box<str>,
    /// Servlet path, decoded.
    pub servlet_path: Box<str>,
    /// Path info, decoded.
    pub path_info: Option<Box<str>>,
    /// Index of the chosen servlet in what [`Application::servlets`](crate::application::Application) declared.
    pub servlet: usize,
    /// Index of the pattern that matched, among that servlet's.
    pub pattern: usize,
    /// Address of the peer.
    pub remote: Option<SocketAddr>,
    /// Address the connection came in on.
    pub local: Option<SocketAddr>,
    /// Whether the connection is secure.
    pub secure: bool,
    /// Host and port the client asked for.
    pub authority: Box<str>,
    /// Request id.
    pub id: Arc<str>,
    /// The application's surroundings; twice behind a reference count, for the outer one may be a thread's own.
    pub context: Arc<Arc<ServletContext>>,
    /// Where it stands on its way through forwards and the like; `None` as long as it went the straight way.
    pub dispatch: Option<Box<DispatchState>>,
}

/// The target a mounted application sees: the canonical encoded path without the context path, at least `/`, and the query.
#[doc(hidden)]
pub fn target_in_context(encoded_path: &str, context_path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
    let rest = encoded_path.strip_prefix(context_path).unwrap_or(encoded_path);
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let target = match query {
        None if slash.is_empty() => return Ok(Uri::try_from(rest)?),
        None => format!("{slash}{rest}"),
        Some(query) => format!("{slash}{rest}?{query}"),
    };
    Ok(Uri::from_maybe_shared(Bytes::from(target))?)
}

/// The container's gifts to a mounted application, in the extensions of its requests.
///
/// With axum the extractors of [`extract`](crate::extract) are handier.
#[derive(Clone)]
pub struct ContainerInfo(Arc<RequestFacts>);

impl ContainerInfo {
    pub(crate) fn new(facts: RequestFacts) -> Self {
        Self(Arc::new(facts))
    }

    pub(crate) fn into_facts(self) -> RequestFacts {
        Arc::unwrap_or_clone(self.0)
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        &self.0.context
    }

    /// Request id: the same in the access log and in every log record written for this request.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The path as the client sent it, encoded, context path included, without the query.
    pub fn request_uri(&self) -> &str {
        &self.0.request_uri
    }

    /// Servlet path, decoded: empty for an application that takes its whole context.
    pub fn servlet_path(&self) -> &str {
        &self.0.servlet_path
    }

    /// Path info, decoded.
    pub fn path_info(&self) -> Option<&str> {
        self.0.path_info.as_deref()
    }

    /// Address of the peer; none on a Unix socket.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// Address the connection came in on; none on a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local
    }

    /// True when the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.0.secure
    }

    /// Host the client asked for, with the port if it gave one.
    pub fn authority(&self) -> &str {
        &self.0.authority
    }
}

impl std::fmt::Debug for ContainerInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_path_is_cut_off_and_a_slash_is_left() {
        for (path, context, query, want) in [
            ("/shop/items", "/shop", None, "/items"),
            ("/shop", "/shop", None, "/"),
            ("/shop", "/shop", Some("a=1"), "/?a=1"),
            ("/shop/", "/shop", Some(""), "/?"),
            ("/x%20y", "", Some("q"), "/x%20y?q"),
        ] {
            assert_eq!(target_in_context(path, context, query).unwrap().to_string(), want, "{path} {query:?}");
        }
    }
}
