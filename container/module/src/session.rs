//! Sessions at the border, from the container's side: the functions behind a request's session and behind a handle.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abi_stable::std_types::{ROption, RResult, RString, RVec};
use http::HeaderMap;
use wharf_abi::{
    FfiOpening, FfiSession, FfiSessionVTable, Opened, RawStr, RequestSessionsVTable, RequestedSession, SessionFacts,
    SessionRefused, SessionValue,
};
use wharf_kernel::Gate;
use wharf_kernel::per_thread::Alone;
use wharf_kernel::session::{
    Refused, Session, SessionEvents, SessionFuture, SessionManager, Tracking, Value, requested,
};

use crate::endpoint::{Common, Handed, ModuleEndpoint, Revocable};
use crate::loaded::on_short_lived_thread;
use crate::outside::{Held, Outside};

/// The sessions of a generation.
pub(crate) struct Sessions {
    pub(crate) manager: Arc<dyn SessionManager>,
    version: Arc<str>,
}

impl Sessions {
    pub(crate) fn new(manager: Arc<dyn SessionManager>, version: Arc<str>) -> Self {
        Self { manager, version }
    }
}

impl Outside {
    fn requested(&self) -> (Vec<String>, Tracking) {
        let Some(sessions) = &self.common.sessions else { return (Vec::new(), Tracking::Cookie) };
        let settings = sessions.manager.settings();
        let (ids, tracking) = requested(self.exchange.request.headers(), self.exchange.request.uri().path(), &settings);
        (ids.into_iter().map(str::to_owned).collect(), tracking)
    }

    /// Its session; with `true`, begins one where there is none.
    pub(crate) async fn open(&self, sessions: &Sessions, create: bool) -> Result<Option<Arc<Session>>, Refused> {
        if let Some(session) = self.exchange.session.get() {
            return Ok(Some(session));
        }
        let (ids, tracking) = self.requested();
        let session = sessions.manager.open(ids, create, &sessions.version).await?;
        Ok(session.map(|session| self.exchange.session.put(session, tracking)))
    }

    /// Tells the client of a new session and of a sign-in, and begins to save the session that was open. `None` when none was.
    pub(crate) fn commit(&self, headers: &mut HeaderMap) -> Option<SessionFuture<()>> {
        if let Some(signed) = self.sign_headers.get() {
            for (name, value) in signed.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                headers.append(name, value);
            }
        }
        let manager = &self.common.sessions.as_ref()?.manager;
        if !self.exchange.session.is_used() {
            return None;
        }
        let path = self.exchange.path.context();
        let session =
            self.exchange.session.commit(headers, &manager.settings(), path, self.exchange.connection.secure)?;
        Some(manager.save(&session))
    }
}

fn refused(refused: &Refused) -> SessionRefused {
    SessionRefused { status: refused.status(), message: refused.to_string().into() }
}

fn to_value(value: Value) -> SessionValue {
    SessionValue { type_name: (&*value.type_name).into(), json: (&*value.json).into() }
}

/// For requests that may have a session.
pub(crate) static REQUEST: RequestSessionsVTable =
    RequestSessionsVTable { open, requested: requested_session, in_links, sign: crate::sign::sign };

unsafe extern "C" fn open(owner: *const (), create: bool) -> FfiOpening {
    // SAFETY: a reference that `release` has not dropped yet; one more is taken for the future.
    let outside = unsafe { Held::beside(owner) };
    let work = async move {
        let Some(sessions) = &outside.common.sessions else { return Opened::Missing };
        match outside.open(sessions, create).await {
            Ok(None) => Opened::Missing,
            Ok(Some(session)) => Opened::Session(handle(session, &sessions.manager, &outside.common)),
            Err(error) => Opened::Refused(refused(&error)),
        }
    };
    FfiOpening::new(Foreign::new(work))
}

unsafe extern "C" fn requested_session(owner: *const ()) -> RequestedSession {
    // SAFETY: a reference that `release` has not dropped yet.
    let outside = unsafe { &*owner.cast::<Outside>() };
    let (ids, tracking) = outside.requested();
    let live = |id: &&String| outside.common.sessions.as_ref().is_some_and(|s| s.manager.version_of(id).is_some());
    let found = ids.iter().find(live);
    RequestedSession {
        id: found.or(ids.first()).map(|id| RString::from(id.as_str())).into(),
        is_valid: found.is_some(),
        from_url: tracking == Tracking::Url,
    }
}

unsafe extern "C" fn in_links(owner: *const ()) -> ROption<RString> {
    // SAFETY: a reference that `release` has not dropped yet.
    let outside = unsafe { &*owner.cast::<Outside>() };
    let Some(sessions) = &outside.common.sessions else { return ROption::RNone };
    outside.exchange.session.in_links(&sessions.manager.settings()).map(RString::from).into()
}

/// Work that a module waits for. The module's waker goes with it, whatever a store has kept of it.
pub(crate) struct Foreign<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    waker: Arc<Revocable>,
}

impl<T> Foreign<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Box::pin(work), waker: Arc::default() }
    }
}

impl<T> Future for Foreign<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.waker.set(Some(cx.waker()));
        let waker = Waker::from(self.waker.clone());
        self.work.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        self.waker.set(None);
    }
}

/// A session in the hands of the module.
struct Handle {
    session: Arc<Session>,
    manager: Arc<dyn SessionManager>,
    common: Arc<Alone<Common>>,
}

fn handle(session: Arc<Session>, manager: &Arc<dyn SessionManager>, common: &Arc<Alone<Common>>) -> FfiSession {
    common.given(|handles| &handles.sessions);
    let handle = Box::new(Handle { session, manager: manager.clone(), common: common.clone() });
    // SAFETY: the functions are made for this box, which `drop_it` drops; a `Handle` is `Send` and `Sync`.
    unsafe { FfiSession::new(Box::into_raw(handle).cast_const().cast(), &raw const HANDLE) }
}

static HANDLE: FfiSessionVTable =
    FfiSessionVTable { facts, set_max_inactive, names, get, set, remove, invalidate, rotate, drop: drop_it };

/// # Safety
/// `data` must be what `handle` boxed, and not dropped for `'a`.
unsafe fn this<'a>(data: *const ()) -> &'a Handle {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Handle>() }
}

unsafe extern "C" fn facts(data: *const ()) -> SessionFacts {
    // SAFETY: the module has the handle still, as in all of these.
    let session = unsafe { &this(data).session };
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let since = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0, millis);
    SessionFacts {
        id: (&*session.id()).into(),
        created_ms: since(session.created()),
        last_accessed_ms: since(session.last_accessed()),
        max_inactive_ms: session.max_inactive().map_or(u64::MAX, millis),
        is_new: session.is_new(),
        is_valid: session.is_valid(),
    }
}

unsafe extern "C" fn set_max_inactive(data: *const (), ms: u64) {
    // SAFETY: as in `facts`.
    unsafe { this(data) }.session.set_max_inactive((ms != u64::MAX).then(|| Duration::from_millis(ms)));
}

unsafe extern "C" fn names(data: *const ()) -> RVec<RString> {
    // SAFETY: as in `facts`.
    unsafe { this(data) }.session.names().into_iter().map(RString::from).collect()
}

unsafe extern "C" fn get(data: *const (), name: RawStr) -> ROption<SessionValue> {
    // SAFETY: as in `facts`; the text is UTF-8 and valid for the call.
    unsafe { this(data).session.get(name.as_str()) }.map(to_value).into()
}

unsafe extern "C" fn set(
    data: *const (),
    name: RawStr,
    type_name: RawStr,
    json: RawStr,
) -> RResult<ROption<SessionValue>, SessionRefused> {
    // SAFETY: as in `get`.
    let (this, name, type_name, json) = unsafe { (this(data), name.as_str(), type_name.as_str(), json.as_str()) };
    let value = Value { type_name: type_name.into(), json: json.into() };
    this.session.set(name, value).map(|v| v.map(to_value).into()).map_err(|e| refused(&e)).into()
}

unsafe extern "C" fn remove(data: *const (), name: RawStr) -> RResult<ROption<SessionValue>, SessionRefused> {
    // SAFETY: as in `get`.
    let removed = unsafe { this(data).session.remove(name.as_str()) };
    removed.map(|v| v.map(to_value).into()).map_err(|e| refused(&e)).into()
}

unsafe extern "C" fn invalidate(data: *const ()) -> bool {
    // SAFETY: as in `facts`.
    let this = unsafe { this(data) };
    this.manager.invalidate(&this.session)
}

unsafe extern "C" fn rotate(data: *const ()) -> RResult<RString, SessionRefused> {
    // SAFETY: as in `facts`.
    let this = unsafe { this(data) };
    this.manager.rotate(&this.session).map(|id| RString::from(&*id)).map_err(|e| refused(&e)).into()
}

unsafe extern "C" fn drop_it(data: *const ()) {
    // SAFETY: the box made in `handle`, dropped once.
    let this = unsafe { Box::from_raw(data.cast::<Handle>().cast_mut()) };
    this.common.back(|handles| &handles.sessions);
}

/// Tells a generation of sessions that have expired.
pub(crate) struct Expiry {
    pub(crate) endpoint: Arc<ModuleEndpoint>,
    pub(crate) gate: Gate,
}

/// Listeners get this long before the sweep goes on without them; they keep their lease.
const LISTENERS: Duration = Duration::from_secs(5);

impl SessionEvents for Expiry {
    fn expired(&self, expired: &[Arc<Session>]) {
        let common = self.endpoint.common.local();
        let (Some(sessions), Some(lease)) = (&common.sessions, self.gate.try_lease()) else { return };
        let all: RVec<FfiSession> = expired.iter().map(|s| handle(s.clone(), &sessions.manager, common)).collect();
        let endpoint = self.endpoint.clone();
        // A thread of its own: what the module leaves on it goes with it.
        let call = move || {
            // SAFETY: an instance of this module, started and not stopped: the lease says so.
            unsafe { endpoint.module.sessions_expired()(endpoint.instance.0, all) };
            lease
        };
        match on_short_lived_thread("expire".into(), LISTENERS, call) {
            // The lease goes after the thread, which has run the module's thread-local destructors at its end.
            Ok(lease) => drop(lease),
            Err(_) => tracing::warn!("session listeners took longer than {LISTENERS:?} and were left behind"),
        }
    }
}
