//! The mapper: from the path of a request to the endpoint that answers it, with a lease on its generation.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ALLOW, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use wharf_kernel::counters::LocalCounts;
use wharf_kernel::guard::{Asking, Denied, Passage, Passed, Verdict};
use wharf_kernel::{
    Authenticated, Body, Connection, Exchange, Lease, Lookup, PathElements, Permit, ResponseFuture, Route, Routes,
    ShortText,
};
use wharf_mapping::{CanonicalPath, canonicalise};

use crate::admission::{Admitted, admit};
use crate::{check, error_page};

/// How often a lease is tried for. A generation leaves the table before its gate closes, so the second look finds the next
/// one; more looks only matter when redeploys come faster than requests.
const TRIES: usize = 1000;

/// What becomes of a request.
pub(crate) enum Dispatched {
    /// An application answers.
    Endpoint(ResponseFuture),
    /// The container answers.
    Answer(Box<Response<Body>>),
}

fn answer(response: Response<Body>) -> Dispatched {
    Dispatched::Answer(Box::new(response))
}

/// What a request was mapped to.
pub(crate) struct Mapped {
    /// Its application, with the permit for the request where it has one already.
    pub(crate) app: Permit,
    /// The canonical path, encoded.
    pub(crate) path: ShortText,
}

/// Maps a request, notes where to, and hands it to its endpoint.
pub(crate) fn dispatch(
    routes: &Routes,
    mut exchange: Box<Exchange>,
    host: check::HostLen,
    mapped: &mut Option<Mapped>,
) -> Dispatched {
    let Exchange { request, authority, connection, id, .. } = &*exchange;
    let page = |status, detail: &str| error_page::render(status, detail, id, request.headers());
    if request.uri().path() == "*" {
        let mut response = Response::new(Body::empty());
        if request.method() != Method::OPTIONS {
            response = page(StatusCode::BAD_REQUEST, "");
        }
        response.headers_mut().insert(ALLOW, check::ALLOW);
        return answer(response);
    }
    // An absolute-form target without a path has the path "/" already.
    let path = match canonicalise(request.uri().path()) {
        Ok(path) => path,
        Err(error) => return answer(page(StatusCode::BAD_REQUEST, &format!("Refused: {error}."))),
    };
    let host = host.of(authority);
    for _ in 0..TRIES {
        let table = routes.load();
        let route = match table.find(host, &path.decoded) {
            Lookup::Found(route, versions) => pinned(versions, route, request),
            Lookup::Suspended(_) => {
                let mut response = page(StatusCode::SERVICE_UNAVAILABLE, "");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                return answer(response);
            }
            Lookup::Missing if table.routes().is_empty() => {
                return answer(page(
                    StatusCode::NOT_FOUND,
                    "No application is deployed yet. Copy a module (shop.so) or a folder with an app.toml into the deploy \
                     directory, or run: wharf deploy FILE. It is served as soon as it is there.",
                ));
            }
            Lookup::Missing => return answer(page(StatusCode::NOT_FOUND, "")),
        };
        if let Some(response) = root_redirect(route, &path, request) {
            return answer(response);
        }
        let verdict = guard(route, &path, authority, connection, request);
        if let Some(Verdict::Refuse(denied)) = verdict {
            return answer(refusal(denied, id, request.headers()));
        }
        let Some(elements) = elements(route, &path) else {
            return match verdict {
                None | Some(Verdict::Pass(_)) => answer(page(StatusCode::NOT_FOUND, "")),
                // The guard has paths of its own, such as where a login page sends its form.
                Some(verdict) => {
                    let counters = route.counters.local();
                    counters.begin();
                    *mapped = Some(Mapped { app: Permit::none(counters), path: path.encoded.into() });
                    Dispatched::Endpoint(Box::pin(settle_nowhere(verdict, exchange)))
                }
            };
        };
        let Some(lease) = route.gate.try_lease() else { continue };
        let counters = route.counters.local();
        counters.begin();
        let path = elements.encoded().clone();
        exchange.path = elements;
        let admitted = match verdict {
            None => admit(route, counters, exchange, lease),
            Some(Verdict::Pass(passed)) => pass(route, counters, exchange, lease, passed),
            // Who asks comes before whether there is room: a stranger must not take a place.
            Some(verdict) => {
                Admitted::Later(Box::pin(settle(route.clone(), counters.clone(), exchange, lease, verdict)))
            }
        };
        let (future, app) = match admitted {
            Admitted::Now(future, permit) => (future, permit),
            Admitted::Later(future) => (future, Permit::none(counters)),
        };
        *mapped = Some(Mapped { app, path });
        return Dispatched::Endpoint(future);
    }
    answer(page(StatusCode::SERVICE_UNAVAILABLE, ""))
}

/// What the application's constraints say of a request; `None` where it has none. The path is the one that chooses the servlet.
fn guard(
    route: &Route,
    path: &CanonicalPath<'_>,
    authority: &str,
    connection: &Connection,
    request: &Request<Body>,
) -> Option<Verdict> {
    let guard = route.guard.as_ref()?;
    let inside = &path.decoded[route.id.path.as_str().len()..];
    Some(guard.check(&Asking {
        method: request.method(),
        path: if inside.is_empty() { "/" } else { inside },
        uri: request.uri(),
        headers: request.headers(),
        authority,
        connection,
    }))
}

/// Hands a request on that the guard has let through.
fn pass(
    route: &Arc<Route>,
    counters: &LocalCounts,
    mut exchange: Box<Exchange>,
    lease: Lease,
    passed: Passed,
) -> Admitted {
    if let Some((session, tracking)) = passed.session {
        exchange.session.put(session, tracking);
    }
    if let Some(saved) = passed.saved {
        saved.restore(&mut exchange.request);
    }
    if let Some(guard) = &route.guard {
        exchange.request.extensions_mut().insert(Passage(guard.clone()));
    }
    let Some(user) = passed.user else { return admit(route, counters, exchange, lease) };
    exchange.request.extensions_mut().insert(user.clone());
    match admit(route, counters, exchange, lease) {
        Admitted::Now(future, permit) => Admitted::Now(named(user, future), permit),
        Admitted::Later(future) => Admitted::Later(named(user, future)),
    }
}

/// What becomes of a request about which the guard can't decide at once.
async fn settle(
    route: Arc<Route>,
    counters: LocalCounts,
    mut exchange: Box<Exchange>,
    lease: Lease,
    verdict: Verdict,
) -> Response<Body> {
    match decide(verdict, exchange.request.body_mut()).await {
        Ok(passed) => match pass(&route, &counters, exchange, lease, passed) {
            Admitted::Now(future, _permit) => future.await,
            Admitted::Later(future) => future.await,
        },
        Err(denied) => refusal(denied, &exchange.id, exchange.request.headers()),
    }
}

/// The same where no servlet takes the path.
async fn settle_nowhere(verdict: Verdict, mut exchange: Box<Exchange>) -> Response<Body> {
    let decided = decide(verdict, exchange.request.body_mut()).await;
    let denied = decided.err().unwrap_or_else(|| Denied::new(StatusCode::NOT_FOUND));
    refusal(denied, &exchange.id, exchange.request.headers())
}

/// Waits until the guard has decided; where it answers itself, it gets the content.
async fn decide(mut verdict: Verdict, body: &mut Body) -> Result<Passed, Denied> {
    loop {
        match verdict {
            Verdict::Later(later) => verdict = later.await,
            Verdict::Refuse(denied) => return Err(denied),
            Verdict::Take(answer) => return Err(answer(std::mem::take(body)).await),
            Verdict::Pass(passed) => return Ok(passed),
        }
    }
}

/// Leaves a word on the response about who asked, for the access log.
fn named(user: Authenticated, future: ResponseFuture) -> ResponseFuture {
    Box::pin(async move {
        let mut response = future.await;
        response.extensions_mut().insert(user);
        response
    })
}

fn refusal(denied: Denied, id: &str, headers: &http::HeaderMap) -> Response<Body> {
    let mut response = if denied.status.is_redirection() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = denied.status;
        response
    } else {
        error_page::render(denied.status, &denied.detail, id, headers)
    };
    response.headers_mut().extend(denied.headers);
    response
}

/// Where several versions serve one context, the one in which the request's session began; else the newest.
fn pinned<'a>(versions: &'a [Arc<Route>], newest: &'a Arc<Route>, request: &Request<Body>) -> &'a Arc<Route> {
    if versions.len() < 2 {
        return newest;
    }
    let Some(version) = newest.endpoint.session_version(request) else { return newest };
    versions.iter().find(|route| route.id.version == version && !route.suspended).unwrap_or(newest)
}

/// A GET of the context path itself, without the slash, is sent to the path with it, so that relative links work.
fn root_redirect(route: &Route, path: &CanonicalPath<'_>, request: &Request<Body>) -> Option<Response<Body>> {
    let context = route.id.path.as_str();
    let is_root = !context.is_empty() && path.decoded.len() == context.len();
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_root || !safe {
        return None;
    }
    let query = request.uri().query();
    let location = format!("{}/{}{}", path.encoded, if query.is_some() { "?" } else { "" }, query.unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).ok()?);
    Some(response)
}

/// Takes the path apart. `None` where no servlet of the context takes it.
fn elements(route: &Route, path: &CanonicalPath<'_>) -> Option<PathElements> {
    let context = route.id.path.as_str();
    // The context path itself is answered as its root.
    let (encoded, decoded): (ShortText, Cow<'_, str>) = match path.decoded.len() == context.len() {
        true => (format!("{}/", path.encoded).into(), format!("{context}/").into()),
        false => ((&*path.encoded).into(), (&*path.decoded).into()),
    };
    let found = match &route.servlets {
        None => None,
        Some(map) => Some(map.find(&decoded[context.len()..])?),
    };
    Some(PathElements::new(encoded, &decoded, &route.id.path, found))
}
