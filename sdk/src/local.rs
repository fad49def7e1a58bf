//! Runs an application without a container: the way of a request from its target to the application and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode, header};
use wharf_mapping::{ServletMap, canonicalise};
use wharf_session_state::Sessions;

use crate::application::Application;
use crate::facts::{LocalFacts, RequestFacts, target_in_context};
use crate::local_sessions::LocalSlot;
use crate::sign::LocalUser;
#[cfg(feature = "websocket")]
use crate::upgrade::{Handler, Switch};
use crate::{Body, BoxError, MappingError, Principal, Request, Response, ServletContext};

/// Where a request came from.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

/// A request in flight: dropped before it is answered, its client has gone.
struct InFlight<'a> {
    context: &'a ServletContext,
    id: Arc<str>,
    answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let cancellations = &self.context.link().cancellations;
        if self.answered { cancellations.answered(&self.id) } else { cancellations.cancelled(&self.id) }
    }
}

/// A started application, with the container's mapping in front of it.
pub(crate) struct Local {
    application: Arc<dyn Application>,
    context: Arc<ServletContext>,
    /// None when the application takes its whole context.
    map: Option<ServletMap>,
    requests: AtomicU64,
    sessions: Arc<Sessions>,
    /// Who may sign in.
    pub(crate) users: Arc<[LocalUser]>,
}

impl Local {
    pub(crate) async fn start(
        application: Arc<dyn Application>,
        context: Arc<ServletContext>,
    ) -> Result<Self, BoxError> {
        let servlets = application.servlets();
        let map = if servlets.is_empty() {
            None
        } else {
            let patterns = servlets.iter().map(|info| info.patterns.clone()).enumerate();
            let map = ServletMap::new(patterns)
                .map_err(|error| MappingError::Pattern(error.describe(|at| servlets[at].name.as_str())))?;
            Some(map)
        };
        application.start(Arc::clone(&context)).await?;
        Ok(Self {
            application,
            context,
            map,
            requests: AtomicU64::new(0),
            sessions: Arc::default(),
            users: Arc::default(),
        })
    }

    pub(crate) async fn stop(&self) -> Result<(), BoxError> {
        self.application.stop().await
    }

    pub(crate) fn context(&self) -> &Arc<ServletContext> {
        &self.context
    }

    pub(crate) async fn call(&self, request: http::Request<Body>, peer: Peer) -> Response {
        let session = Arc::new(LocalSlot::new(&self.sessions, request.headers()));
        match self.map(request, peer, &session) {
            Ok(request) => {
                let mut guard = InFlight { context: &self.context, id: request.shared_id(), answered: false };
                let mut response = self.application.call(request).await;
                guard.answered = true;
                session.commit(response.headers_mut(), self.context.context_path());
                response
            }
            Err(response) => *response,
        }
    }

    /// As [`Local::call`], for a connection that may be upgraded: with what comes after the response.
    #[cfg(feature = "websocket")]
    pub(crate) async fn open(&self, request: http::Request<Body>, peer: Peer) -> (Response, Option<Handler>) {
        let session = Arc::new(LocalSlot::new(&self.sessions, request.headers()));
        let request = match self.map(request, peer, &session) {
            Ok(request) => request,
            Err(response) => return (*response, None),
        };
        let mut response = self.application.call(request).await;
        session.commit(response.headers_mut(), self.context.context_path());
        let switch = Switch::of(response.status_code(), response.extensions_mut());
        (response, switch)
    }

    fn map(
        &self,
        request: http::Request<Body>,
        peer: Peer,
        session: &Arc<LocalSlot>,
    ) -> Result<Request, Box<Response>> {
        let (mut parts, body) = request.into_parts();
        let bad = |why: String| Box::new(Response::text(why).with_status(StatusCode::BAD_REQUEST));
        let not_found = || Box::new(Response::status(StatusCode::NOT_FOUND));

        let request_uri: Box<str> = parts.uri.path().into();
        let path = canonicalise(&request_uri).map_err(|error| bad(error.to_string()))?;
        let context_path = self.context.context_path();
        let inside = path.decoded.strip_prefix(context_path).ok_or_else(not_found)?;
        if inside.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
            // Relative links of the first page work only from here.
            let query = parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
            let location = format!("{context_path}/{query}");
            return Err(Box::new(Response::redirect(&location).unwrap_or_else(crate::Error::into_response)));
        }
        if !inside.is_empty() && !inside.starts_with('/') {
            return Err(not_found());
        }
        let (servlet, pattern, servlet_end, has_path_info) = match &self.map {
            None => (0, 0, 0, true),
            Some(map) => {
                let found = map.find(inside).ok_or_else(not_found)?;
                (found.servlet, found.pattern, found.servlet_path_len, found.has_path_info)
            }
        };
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let facts = LocalFacts {
            servlet_path: inside[..servlet_end].into(),
            path_info: has_path_info.then(|| inside[servlet_end..].into()),
            servlet,
            pattern,
            remote: peer.remote,
            local: peer.local,
            secure: false,
            authority: authority.or_else(host).unwrap_or_default().into(),
            id: format!("local-{number}").into(),
            context: Arc::clone(&self.context),
            request_uri: request_uri.clone(),
            user: parts.extensions.remove::<Principal>(),
            users: Arc::clone(&self.users),
            session: Arc::clone(session),
        };
        parts.uri = target_in_context(&path.encoded, context_path, parts.uri.query())
            .map_err(|error| bad(error.to_string()))?;
        Ok(Request::from_parts(parts, body, RequestFacts::local(facts)))
    }
}
