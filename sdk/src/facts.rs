//! What the container says of a request beside the HTTP message itself.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Uri;
use wharf_abi::{FfiRequest, RequestedSession};

use crate::dispatch_state::DispatchState;
use crate::local_sessions::LocalSlot;
use crate::principal::{has_role, servlet_name};
use crate::session::{self, Handle, Session};
use crate::sign::LocalUser;
use crate::{Error, Principal, ServletContext, Tls};

/// The context behind a second reference count, which may be a thread's own: a count that all threads share is passed
/// between processors with every request.
#[allow(clippy::redundant_allocation)]
pub(crate) type LocalContext = Arc<Arc<ServletContext>>;

/// What is said of a request that did not cross the border: one of a test, or of `serve`.
#[derive(Debug, Clone)]
pub(crate) struct LocalFacts {
    /// The path of the request target as sent, without the query.
    pub(crate) request_uri: Box<str>,
    /// Servlet path, decoded.
    pub(crate) servlet_path: Box<str>,
    /// Path info, decoded.
    pub(crate) path_info: Option<Box<str>>,
    /// Index of the chosen servlet in what [`Application::servlets`](crate::application::Application) declared.
    pub(crate) servlet: usize,
    /// Index of the pattern that matched, among that servlet's.
    pub(crate) pattern: usize,
    /// Address of the peer.
    pub(crate) remote: Option<SocketAddr>,
    /// Address the connection came in on.
    pub(crate) local: Option<SocketAddr>,
    /// Whether the connection is secure.
    pub(crate) secure: bool,
    /// Host and port the client asked for.
    pub(crate) authority: Box<str>,
    /// Request id.
    pub(crate) id: Arc<str>,
    /// The application's surroundings.
    pub(crate) context: Arc<ServletContext>,
    /// Who the client is.
    pub(crate) user: Option<Principal>,
    /// Who may sign in.
    pub(crate) users: Arc<[LocalUser]>,
    /// Its session.
    pub(crate) session: Arc<LocalSlot>,
}

/// What the container says of a request beside the HTTP message itself.
///
/// A request that crossed the border is read where it is: its texts are views into what the container lent, which is kept
/// for as long as this is.
pub(crate) struct RequestFacts {
    source: Source,
    /// Where a dispatch sent it, instead of what the source says.
    target: Option<Box<Chosen>>,
    /// Who the application has signed in or out, instead of what the source says.
    signed: Option<Box<Option<Principal>>>,
    /// The id, made when somebody wants to keep it.
    id: OnceLock<Arc<str>>,
    context: LocalContext,
    /// Where it stands on its way through forwards and the like; `None` as long as it went the straight way.
    pub(crate) dispatch: Option<Box<DispatchState>>,
}

enum Source {
    Crossed(FfiRequest),
    Local(Box<LocalFacts>),
}

/// A servlet with the parts of the path that chose it.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// `None` leaves it as it was.
    pub(crate) request_uri: Option<Box<str>>,
    pub(crate) servlet_path: Box<str>,
    pub(crate) path_info: Option<Box<str>>,
    pub(crate) servlet: usize,
    pub(crate) pattern: usize,
}

impl RequestFacts {
    /// Those of a request from the container.
    pub(crate) fn crossed(request: FfiRequest, context: LocalContext) -> Self {
        let id = OnceLock::new();
        Self { source: Source::Crossed(request), target: None, signed: None, id, context, dispatch: None }
    }

    /// Those of a request that was made here.
    pub(crate) fn local(facts: LocalFacts) -> Self {
        let (id, context) = (Arc::clone(&facts.id).into(), Arc::new(Arc::clone(&facts.context)));
        Self { source: Source::Local(Box::new(facts)), target: None, signed: None, id, context, dispatch: None }
    }

    /// What the container lent, where it did.
    pub(crate) fn lent(&self) -> Option<&FfiRequest> {
        match &self.source {
            Source::Crossed(ffi) => Some(ffi),
            Source::Local(_) => None,
        }
    }

    /// Opens its session; with `true`, begins one where there is none.
    pub(crate) fn session(
        &self,
        create: bool,
    ) -> impl Future<Output = Result<Option<Session>, Error>> + Send + 'static + use<> {
        let context = Arc::clone(&self.context);
        let (opening, local) = match &self.source {
            Source::Crossed(ffi) => (ffi.open_session(create), None),
            Source::Local(facts) => (None, Some(Arc::clone(&facts.session))),
        };
        async move {
            let handle = match (opening, local) {
                (Some(opening), _) => opening.await.map_err(session::error)?.map(|ffi| Handle::Crossed(Arc::new(ffi))),
                (None, Some(local)) => local.open(create).map_err(session::error)?.map(Handle::Local),
                (None, None) if create => return Err(Error::unavailable("there are no sessions in a trial load")),
                (None, None) => None,
            };
            Ok(handle.map(|handle| Session::new(handle, Arc::clone(&*context)).opened()))
        }
    }

    /// The session that the client asked for.
    pub(crate) fn requested_session(&self) -> Option<RequestedSession> {
        match &self.source {
            Source::Crossed(ffi) => ffi.requested_session(),
            Source::Local(facts) => Some(facts.session.requested()),
        }
    }

    /// What links must carry, `NAME=ID`, for the open session to go on without a cookie.
    pub(crate) fn session_in_links(&self) -> Option<String> {
        self.lent()?.session_in_links().map(Into::into)
    }

    /// The application has signed somebody in, or out.
    pub(crate) fn signed(&mut self, user: Option<Principal>) {
        self.signed = Some(Box::new(user));
    }

    /// Who may sign in where there is no container.
    pub(crate) fn local_users(&self) -> &[LocalUser] {
        match &self.source {
            Source::Crossed(_) => &[],
            Source::Local(facts) => &facts.users,
        }
    }

    /// Sends it to another servlet.
    pub(crate) fn retarget(&mut self, mut target: Chosen) {
        if let (None, Some(before)) = (&target.request_uri, self.target.take()) {
            target.request_uri = before.request_uri;
        }
        self.target = Some(Box::new(target));
    }

    /// The same for a second request, with the same session.
    pub(crate) fn copied(&self) -> Self {
        let source = match &self.source {
            Source::Crossed(ffi) => Source::Crossed(ffi.share()),
            Source::Local(facts) => Source::Local(facts.clone()),
        };
        Self {
            source,
            target: self.target.clone(),
            signed: self.signed.clone(),
            id: self.id.clone(),
            context: self.context.clone(),
            dispatch: self.dispatch.clone(),
        }
    }

    pub(crate) fn request_uri(&self) -> &str {
        match (self.target.as_ref().and_then(|target| target.request_uri.as_deref()), &self.source) {
            (Some(uri), _) => uri,
            (None, Source::Crossed(ffi)) => ffi.text(|h| h.request_uri),
            (None, Source::Local(facts)) => &facts.request_uri,
        }
    }

    pub(crate) fn servlet_path(&self) -> &str {
        match (&self.target, &self.source) {
            (Some(target), _) => &target.servlet_path,
            (None, Source::Crossed(ffi)) => ffi.text(|h| h.servlet_path),
            (None, Source::Local(facts)) => &facts.servlet_path,
        }
    }

    pub(crate) fn path_info(&self) -> Option<&str> {
        match (&self.target, &self.source) {
            (Some(target), _) => target.path_info.as_deref(),
            (None, Source::Crossed(ffi)) => ffi.head().has_path_info.then(|| ffi.text(|h| h.path_info)),
            (None, Source::Local(facts)) => facts.path_info.as_deref(),
        }
    }

    /// Index of the chosen servlet in what [`Application::servlets`](crate::application::Application) declared.
    pub(crate) fn servlet(&self) -> usize {
        match (&self.target, &self.source) {
            (Some(target), _) => target.servlet,
            (None, Source::Crossed(ffi)) => ffi.head().servlet as usize,
            (None, Source::Local(facts)) => facts.servlet,
        }
    }

    /// Index of the pattern that matched, among that servlet's.
    pub(crate) fn pattern(&self) -> usize {
        match (&self.target, &self.source) {
            (Some(target), _) => target.pattern,
            (None, Source::Crossed(ffi)) => ffi.head().pattern as usize,
            (None, Source::Local(facts)) => facts.pattern,
        }
    }

    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match &self.source {
            Source::Crossed(ffi) => ffi.head().remote.get(),
            Source::Local(facts) => facts.remote,
        }
    }

    /// Address the connection came in on. (Not to be taken for [`RequestFacts::local`].)
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.source {
            Source::Crossed(ffi) => ffi.head().local.get(),
            Source::Local(facts) => facts.local,
        }
    }

    pub(crate) fn is_secure(&self) -> bool {
        match &self.source {
            Source::Crossed(ffi) => ffi.head().secure,
            Source::Local(facts) => facts.secure,
        }
    }

    /// What TLS agreed on; nothing where the request did not cross the border.
    pub(crate) fn tls(&self) -> Option<Tls<'_>> {
        self.lent()?.tls().map(Tls::new)
    }

    /// Name of the authenticated user, and how it was shown.
    pub(crate) fn user(&self) -> Option<(&str, &str)> {
        if let Some(signed) = &self.signed {
            return signed.as_ref().as_ref().map(|user| (user.name(), user.auth_type()));
        }
        match &self.source {
            Source::Crossed(ffi) => ffi.user().map(|user| (user.name, servlet_name(user.auth_type))),
            Source::Local(facts) => facts.user.as_ref().map(|user| (user.name(), user.auth_type())),
        }
    }

    pub(crate) fn user_principal(&self) -> Option<Principal> {
        if let Some(signed) = &self.signed {
            return Option::clone(signed);
        }
        match &self.source {
            Source::Crossed(ffi) => ffi.user().map(Principal::of),
            Source::Local(facts) => facts.user.clone(),
        }
    }

    pub(crate) fn is_user_in_role(&self, role: &str) -> bool {
        if let Some(signed) = &self.signed {
            return signed.as_ref().as_ref().is_some_and(|user| user.is_in_role(role));
        }
        match &self.source {
            Source::Crossed(ffi) => ffi.user().is_some_and(|user| has_role(user.roles.lines(), role)),
            Source::Local(facts) => facts.user.as_ref().is_some_and(|user| user.is_in_role(role)),
        }
    }

    pub(crate) fn authority(&self) -> &str {
        match &self.source {
            Source::Crossed(ffi) => ffi.text(|h| h.authority),
            Source::Local(facts) => &facts.authority,
        }
    }

    pub(crate) fn id(&self) -> &str {
        match &self.source {
            Source::Crossed(ffi) => ffi.text(|h| h.id),
            Source::Local(facts) => &facts.id,
        }
    }

    /// The id, to keep.
    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(self.id.get_or_init(|| self.id().into()))
    }

    pub(crate) fn context(&self) -> &Arc<ServletContext> {
        &self.context
    }
}

impl std::fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestFacts")
            .field("id", &self.id())
            .field("request_uri", &self.request_uri())
            .field("servlet_path", &self.servlet_path())
            .field("path_info", &self.path_info())
            .field("authority", &self.authority())
            .finish_non_exhaustive()
    }
}

/// The target a mounted application sees: the canonical encoded path without the context path, at least `/`, and the query.
pub(crate) fn target_in_context(
    encoded_path: &str,
    context_path: &str,
    query: Option<&str>,
) -> Result<Uri, http::Error> {
    let mut target = Vec::new();
    write_target(&mut target, encoded_path, context_path, query);
    Ok(Uri::from_maybe_shared(Bytes::from(target))?)
}

/// Appends what [`target_in_context`] makes a URI of.
pub(crate) fn write_target(out: &mut Vec<u8>, encoded_path: &str, context_path: &str, query: Option<&str>) {
    let rest = encoded_path.strip_prefix(context_path).unwrap_or(encoded_path);
    if !rest.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(rest.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

/// The container's gifts to a mounted application, in the extensions of its requests.
///
/// With axum the extractors of [`extract`](crate::extract) are handier.
pub struct ContainerInfo(RequestFacts);

impl Clone for ContainerInfo {
    /// The same for the same request: what the container lent is kept as long as one of them is.
    fn clone(&self) -> Self {
        Self(self.0.copied())
    }
}

impl ContainerInfo {
    /// As [`Request::session`](crate::Request::session).
    ///
    /// # Errors
    /// As there.
    pub fn session(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static + use<> {
        let opening = self.0.session(true);
        async move { opening.await?.ok_or_else(|| Error::internal("no session was made")) }
    }

    /// As [`Request::session_if_exists`](crate::Request::session_if_exists).
    ///
    /// # Errors
    /// As there.
    pub fn session_if_exists(&self) -> impl Future<Output = Result<Option<Session>, Error>> + Send + 'static + use<> {
        self.0.session(false)
    }

    pub(crate) fn new(facts: RequestFacts) -> Self {
        Self(facts)
    }

    pub(crate) fn into_facts(self) -> RequestFacts {
        self.0
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        self.0.context()
    }

    /// Request id: the same in the access log and in every log record written for this request.
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// The path as the client sent it, encoded, context path included, without the query.
    pub fn request_uri(&self) -> &str {
        self.0.request_uri()
    }

    /// Servlet path, decoded: empty for an application that takes its whole context.
    pub fn servlet_path(&self) -> &str {
        self.0.servlet_path()
    }

    /// Path info, decoded.
    pub fn path_info(&self) -> Option<&str> {
        self.0.path_info()
    }

    /// Address of the peer; none on a Unix socket.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.remote()
    }

    /// Address the connection came in on; none on a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr()
    }

    /// True when the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.0.is_secure()
    }

    /// As [`Request::tls`](crate::Request::tls).
    pub fn tls(&self) -> Option<Tls<'_>> {
        self.0.tls()
    }

    /// As [`Request::user_principal`](crate::Request::user_principal).
    pub fn user_principal(&self) -> Option<Principal> {
        self.0.user_principal()
    }

    /// Host the client asked for, with the port if it gave one.
    pub fn authority(&self) -> &str {
        self.0.authority()
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
