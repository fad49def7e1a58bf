//! Answers requests from backends: chooses one, sends, and tries again where that is safe.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};
use wharf_kernel::options::{HashKey, HostHeader, Policy, Protocol, ProxyOptions};
use wharf_kernel::{Body, Endpoint, Exchange, Hold, Lease, ResponseFuture};
use wharf_worker::timeout_at;

use super::activity::{Active, Activity};
use super::balance::{Balancer, hash};
use super::headers::{self, Facts, Pseudonym};
use super::member::{Conn, Lost, Member, Turn};
use super::relay;
use super::sticky::{Cookies, cookie_values};
use super::tunnel::Tunnels;
use crate::program::times::Times;

/// The endpoint of one proxy.
pub(crate) struct Backends {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) balancer: Balancer,
    pub(crate) cookies: Option<Cookies>,
    pub(crate) budget: TpsBudget,
    pub(crate) tunnels: Tunnels,
    pub(crate) pseudonym: Pseudonym,
    /// The processor time of its program.
    pub(crate) times: Arc<Mutex<Times>>,
    pub(crate) app: String,
}

/// [`Backends`], shared with the requests under way.
pub(crate) struct Front(pub(crate) Arc<Backends>);

impl Endpoint for Front {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        let this = self.0.clone();
        Box::pin(this.answer(exchange, lease))
    }

    fn take_own_time(&self) -> Duration {
        self.0.times.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request as it can be sent, once or more often.
struct Outgoing {
    method: Method,
    headers: HeaderMap,
    /// Path and query below the backend's base.
    target: Bytes,
    body: Content,
}

enum Content {
    /// None, or all of it: it can be sent again.
    Whole(Bytes),
    /// It comes as it is sent. `None` once it was given away.
    Stream(Option<Body>),
}

/// A response, and what is held for it.
struct Reply {
    response: Response<Incoming>,
    member: Arc<Member>,
    conn: Conn,
    turn: Turn,
}

/// Why there is none.
struct Failure {
    status: StatusCode,
    what: String,
    /// The request may be offered to another backend.
    again: bool,
}

impl Backends {
    async fn answer(self: Arc<Self>, exchange: Box<Exchange>, lease: Lease) -> Response<Body> {
        let Exchange { mut request, path, authority, connection, id, session: _ } = *exchange;
        if headers::is_loop(request.headers(), &self.pseudonym) {
            tracing::warn!(
                request = &*id,
                app = self.app,
                "the request has come back to this proxy: its backend is this server"
            );
            return plain(StatusCode::LOOP_DETECTED);
        }
        let deadline = self.options.total_timeout.map(|time| Instant::now() + time);
        let upgrade = headers::asks_upgrade(request.method(), request.version(), request.headers())
            .filter(|_| self.options.protocol == Protocol::H1 && request.body().is_end_stream());
        let client: Option<OnUpgrade> = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let key = self.key(&request, path.decoded(), connection.remote.map(|a| a.ip()));
        let wanted = self.cookies.as_ref().and_then(|c| c.read(request.headers()));
        let (method, version) = (request.method().clone(), request.version());

        let context = path.context();
        let inner = if self.options.strip_context { path.encoded_inside() } else { path.encoded() };
        let query = request.uri().query();
        let target = match query {
            None => Bytes::copy_from_slice(inner.as_bytes()),
            Some(query) => Bytes::from(format!("{inner}?{query}")),
        };
        let (head, body) = request.into_parts();
        let mut fields = head.headers;
        let facts = Facts {
            connection: &connection,
            authority: &authority,
            prefix: if self.options.strip_context { context } else { "" },
            id: &id,
            version,
            pseudonym: &self.pseudonym,
        };
        headers::outgoing(&mut fields, &facts, upgrade.as_ref());
        let body = match self.content(&method, body).await {
            Ok(body) => body,
            Err(error) => {
                tracing::debug!(request = &*id, "the request body broke off: {error}");
                return plain(StatusCode::BAD_REQUEST);
            }
        };
        let mut outgoing = Outgoing { method, headers: fields, target, body };
        let tries = self.tries(&mut outgoing, key, wanted, &id);
        let result = match deadline {
            None => tries.await,
            Some(at) => timeout_at(at, tries).await.unwrap_or_else(|| {
                let what = "the request took longer than proxy.total_timeout".to_owned();
                Err(Failure { status: StatusCode::GATEWAY_TIMEOUT, what, again: false })
            }),
        };
        let Reply { mut response, member, conn, turn } = match result {
            Ok(reply) => reply,
            Err(failure) => {
                tracing::warn!(request = &*id, app = self.app, "{}: {}", failure.status, failure.what);
                let mut response = plain(failure.status);
                if failure.status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                return response;
            }
        };

        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if upgraded {
            let Some(client) = client.filter(|_| upgrade.is_some()) else {
                tracing::warn!(request = &*id, backend = %member.connector.target, "the backend changed the protocol unasked");
                return plain(StatusCode::BAD_GATEWAY);
            };
            let backend = hyper::upgrade::on(&mut response);
            self.tunnels.join(client, backend, lease.another(Hold::Upgrade), turn, id.clone());
            let (mut head, _) = response.into_parts();
            headers::incoming(&mut head.headers, head.version, &self.pseudonym, true);
            return Response::from_parts(head, Body::empty());
        }
        let (mut head, incoming) = response.into_parts();
        headers::incoming(&mut head.headers, head.version, &self.pseudonym, false);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        if self.options.strip_context && !context.is_empty() {
            below_context(&mut head.headers, context);
        }
        if let Some(cookies) = &self.cookies
            && wanted != Some(member.id)
            && let Some(cookie) = cookies.make(member.id, connection.secure)
        {
            head.headers.append(SET_COOKIE, cookie);
        }
        let held = (member, conn, turn);
        let body = relay::body(incoming, held, self.options.idle_timeout, deadline, lease.held_for(Hold::Body)).await;
        Response::from_parts(head, body)
    }

    /// What the policy `hash` looks at.
    fn key(&self, request: &Request<Body>, path: &str, remote: Option<std::net::IpAddr>) -> u64 {
        if self.options.policy != Policy::Hash {
            return 0;
        }
        let found = match &self.options.hash {
            HashKey::Remote => None,
            HashKey::Path => Some(hash(&path)),
            HashKey::Header(name) => request.headers().get(name).map(|v| hash(&v.as_bytes())),
            HashKey::Cookie(name) => cookie_values(request.headers(), name).next().map(|v| hash(&v)),
        };
        found.unwrap_or_else(|| hash(&remote))
    }

    /// The body, read already where that allows a second try.
    async fn content(&self, method: &Method, body: Body) -> Result<Content, wharf_kernel::BoxError> {
        if body.is_end_stream() {
            return Ok(Content::Whole(Bytes::new()));
        }
        let small = body.size_hint().exact().is_some_and(|size| size <= self.options.retry.body);
        if small && method.is_idempotent() {
            return Ok(Content::Whole(body.collect().await?.to_bytes()));
        }
        Ok(Content::Stream(Some(body)))
    }

    /// Tries until there is a response, or no other try is safe or left.
    async fn tries(&self, out: &mut Outgoing, key: u64, wanted: Option<u64>, id: &str) -> Result<Reply, Failure> {
        self.budget.deposit();
        let mut tried = Vec::new();
        let mut last = Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            what: "no backend takes requests".to_owned(),
            again: true,
        };
        for attempt in 0..self.options.retry.attempts {
            let Some(at) = self.balancer.choose(key, wanted, &tried) else { break };
            if attempt > 0 && !self.budget.withdraw() {
                last.what.push_str("; the budget for second tries is used up");
                break;
            }
            match self.one_try(&self.members[at], out).await {
                Ok(reply) => return Ok(reply),
                Err(failure) if failure.again => {
                    tried.push(at);
                    tracing::debug!(request = id, app = self.app, "{}; trying another backend", failure.what);
                    last = failure;
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    async fn one_try(&self, member: &Arc<Member>, out: &mut Outgoing) -> Result<Reply, Failure> {
        let fail = |status, what: String, again| Failure {
            status,
            what: format!("backend '{}': {what}", member.connector.target),
            again,
        };
        let Some(turn) = member.turn().await else {
            let what = format!("has {} requests at once already", self.options.max_requests);
            return Err(fail(StatusCode::SERVICE_UNAVAILABLE, what, true));
        };
        let idempotent = out.method.is_idempotent();
        let limit = self.options.first_byte_timeout;
        let mut request: Option<Request<Body>> = None;
        let mut activity = None;
        let mut fresh = false;
        loop {
            let mut conn = match member.connect(fresh).await {
                Ok(conn) => conn,
                Err(error) => {
                    self.failed(member, &error.to_string(), true);
                    // Nothing was sent: whatever the method, another backend may have it.
                    if let Some(request) = request
                        && let Content::Stream(body) = &mut out.body
                    {
                        *body = Some(request.into_body());
                    }
                    return Err(fail(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), true));
                }
            };
            let ready = match request.take() {
                Some(request) => request,
                None => self.request(member, out, &mut activity),
            };
            let began = std::time::Instant::now();
            let mut timer = conn.take_timer(limit);
            let sent = tokio::select! {
                biased;
                sent = conn.send(ready) => sent,
                // A body on its way puts it off, piece by piece.
                () = async { (&mut timer).await; if let Some(activity) = &activity { activity.stalled(limit).await } } => {
                    let what = format!("no response in {limit:?}");
                    self.failed(member, &what, true);
                    let again = idempotent && matches!(out.body, Content::Whole(_));
                    return Err(fail(StatusCode::GATEWAY_TIMEOUT, what, again));
                }
            };
            conn.put_timer(timer);
            match sent {
                Ok(response) => {
                    member.state.observe(began.elapsed());
                    if response.status().as_u16() >= 500 && response.status() != StatusCode::NOT_IMPLEMENTED {
                        let (fit, all) = (self.balancer.fit(), self.members.len());
                        self.failed(member, &format!("status {}", response.status()), fit * 2 > all);
                    } else {
                        member.state.succeeded();
                    }
                    return Ok(Reply { response, member: member.clone(), conn, turn });
                }
                Err(Lost::Unsent(back)) if !fresh => {
                    // The connection had been closed while it was idle.
                    request = Some(*back);
                    fresh = true;
                }
                Err(Lost::Unsent(back)) => {
                    if let Content::Stream(body) = &mut out.body {
                        *body = Some(back.into_body());
                    }
                    self.failed(member, "a new connection was closed at once", true);
                    return Err(fail(StatusCode::BAD_GATEWAY, "a new connection was closed at once".into(), true));
                }
                Err(Lost::Sent(error)) if error.is_user() => {
                    // The client's body broke off, not the backend.
                    return Err(fail(StatusCode::BAD_REQUEST, format!("the request broke off: {error}"), false));
                }
                Err(Lost::Sent(error)) => {
                    let again = idempotent && matches!(out.body, Content::Whole(_));
                    if conn.is_used() && again && !fresh {
                        // Most likely closed while it was idle: no fault of the backend's.
                        fresh = true;
                        continue;
                    }
                    let what = full(&error);
                    self.failed(member, &what, true);
                    return Err(fail(StatusCode::BAD_GATEWAY, what, again));
                }
            }
        }
    }

    fn failed(&self, member: &Member, what: &str, may_eject: bool) {
        if member.state.failed(&self.options.eject, may_eject) {
            let (app, backend) = (&*self.app, &member.connector.target);
            tracing::warn!(app, %backend, "ejected, its last failure: {what}");
            member.sweep(true);
        }
    }

    /// The request for this backend.
    fn request(&self, member: &Member, out: &mut Outgoing, activity: &mut Option<Activity>) -> Request<Body> {
        let target = &member.connector.target;
        let mut fields = out.headers.clone();
        let body = match &mut out.body {
            Content::Whole(bytes) => Body::from(bytes.clone()),
            Content::Stream(body) => {
                let inner = body.take().unwrap_or_default();
                Body::new(Active { inner, activity: activity.insert(Activity::begin()).clone() })
            }
        };
        match &self.options.host {
            HostHeader::Client if fields.contains_key(HOST) => {}
            HostHeader::Client | HostHeader::Backend => _ = fields.insert(HOST, target.host.clone()),
            HostHeader::Name(name) => _ = fields.insert(HOST, name.clone()),
        }
        let path = if target.base.is_empty() { out.target.clone() } else { join(&target.base, &out.target) };
        let uri = match self.options.protocol {
            Protocol::H1 => Uri::from_maybe_shared(path),
            Protocol::H2 => {
                let host = fields.remove(HOST).unwrap_or_else(|| target.host.clone());
                let scheme = if target.secure { "https" } else { "http" };
                let base = format!("{scheme}://{}", host.to_str().unwrap_or("localhost"));
                Uri::from_maybe_shared(join(&base, &path))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = out.method.clone();
        *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from_static("/"));
        *request.headers_mut() = fields;
        request
    }
}

fn join(base: &str, target: &[u8]) -> Bytes {
    [base.as_bytes(), target].concat().into()
}

/// An error with its causes.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A redirect to a path means a path of the backend: the client finds it below the context path.
fn below_context(headers: &mut HeaderMap, context: &str) {
    let Some(location) = headers.get(LOCATION).and_then(|l| l.to_str().ok()) else { return };
    if location.starts_with('/')
        && !location.starts_with("//")
        // One that minds X-Forwarded-Prefix has put it there itself.
        && !location.strip_prefix(context).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && let Ok(value) = HeaderValue::from_str(&format!("{context}{location}"))
    {
        headers.insert(LOCATION, value);
    }
}

/// The budget for second tries.
pub(crate) fn budget(options: &ProxyOptions) -> TpsBudget {
    let share = options.retry.percent as f32 / 100.0;
    TpsBudget::new(Duration::from_secs(10), options.retry.min_per_second, share)
}
