//! The ports of sessions: the container owns them, by context, so that they outlive every generation of an application.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
pub use wharf_session_state::{Counts, Refused, Session, Value};
use wharf_session_state::{in_cookies, in_path};

use crate::AppId;
use crate::options::{SessionOptions, SessionSettings};

/// The future of work on a store.
pub type SessionFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Ids looked at in one request: more cookies of the name than this are somebody playing.
const TRIED: usize = 8;

/// Hears what becomes of sessions while no request is there.
pub trait SessionEvents: Send + Sync {
    /// These have expired. They are still readable for the time of the call. Blocks as long as the listeners do.
    fn expired(&self, sessions: &[Arc<Session>]);
}

/// The sessions of one context.
pub trait SessionManager: Send + Sync + 'static {
    /// The settings in force.
    fn settings(&self) -> Arc<SessionSettings>;

    /// Opens the first of these ids that a session has, or, when `create` says so, begins one for this version of the
    /// application. An id that no session has is never adopted.
    fn open(
        &self,
        ids: Vec<String>,
        create: bool,
        version: &str,
    ) -> SessionFuture<Result<Option<Arc<Session>>, Refused>>;

    /// Version of the application in which the session with this id began, where there is one.
    fn version_of(&self, id: &str) -> Option<String>;

    /// Ends a session.
    fn invalidate(&self, session: &Arc<Session>) -> bool;

    /// Gives a session a new id. Returns the one before.
    ///
    /// # Errors
    /// When it has ended.
    fn rotate(&self, session: &Arc<Session>) -> Result<Arc<str>, Refused>;

    /// Writes a session to its store, so that the next request finds what this one left. Called before the response is
    /// sent, also when the session has ended.
    fn save(&self, session: &Arc<Session>) -> SessionFuture<()>;

    /// Who hears of sessions that expire, from now on: the newest generation.
    fn attach(&self, events: Weak<dyn SessionEvents>);
}

/// All sessions of the container.
pub trait SessionManagers: Send + Sync + 'static {
    /// The manager of a context (host and context path); its settings are these options over the defaults from now on.
    ///
    /// # Errors
    /// What of the options can't be used, for people to read.
    fn of(&self, id: &AppId, options: &SessionOptions) -> Result<Arc<dyn SessionManager>, String>;

    /// The application was undeployed: its sessions end.
    fn undeployed(&self, id: &AppId);
}

/// Where the id in a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// From a cookie.
    Cookie,
    /// From a path parameter.
    Url,
}

/// The ids that a request carries, by rank: cookies in their order, else the path parameter where that is allowed.
pub fn requested<'a>(headers: &'a HeaderMap, path: &'a str, settings: &SessionSettings) -> (Vec<&'a str>, Tracking) {
    let ids: Vec<_> = cookies(headers, &settings.cookie).take(TRIED).collect();
    if ids.is_empty() && settings.url_tracking {
        return (in_path(path, &settings.cookie).into_iter().collect(), Tracking::Url);
    }
    (ids, Tracking::Cookie)
}

/// The values of the cookies of this name, in their order.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(move |line| in_cookies(line, name))
}

/// The session of one request, once somebody has opened it: the application, or a realm before it.
#[derive(Default)]
pub struct SessionSlot(Mutex<Slot>);

#[derive(Default)]
struct Slot {
    session: Option<Arc<Session>>,
    /// The id that the client knows.
    known: Option<Arc<str>>,
    /// Whether the client's id came in a cookie.
    cookie: bool,
}

impl SessionSlot {
    /// The open session, unless it has ended.
    pub fn get(&self) -> Option<Arc<Session>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.session.clone().filter(|s| s.is_valid())
    }

    /// What links must carry, `NAME=ID`, for the open session to go on: nothing where the client's cookie does that.
    pub fn in_links(&self, settings: &SessionSettings) -> Option<String> {
        if !settings.url_tracking {
            return None;
        }
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = slot.session.as_ref().filter(|s| s.is_valid() && !slot.cookie)?;
        Some(format!("{}={}", settings.cookie, session.id()))
    }

    /// Whether a session was ever opened.
    pub fn is_used(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).session.is_some()
    }

    /// The same where nobody else has it.
    pub fn is_used_mut(&mut self) -> bool {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).session.is_some()
    }

    /// Puts the session in that was opened. Of two that were opened at once for one request the first counts.
    pub fn put(&self, session: Arc<Session>, tracking: Tracking) -> Arc<Session> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = slot.session.as_ref().filter(|s| s.is_valid()) {
            return first.clone();
        }
        if !session.is_new() {
            slot.known = Some(session.id());
            slot.cookie = tracking == Tracking::Cookie;
        }
        slot.session = Some(session.clone());
        session
    }

    /// What is to be done when the response is there: tells the client of a new id, and says which session to save.
    pub fn commit(
        &self,
        headers: &mut HeaderMap,
        settings: &SessionSettings,
        path: &str,
        encrypted: bool,
    ) -> Option<Arc<Session>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = slot.session.clone()?;
        let id = session.is_valid().then(|| session.id());
        let cookie = match (&id, &slot.known) {
            (Some(id), known) if Some(id) != known.as_ref() => Some(settings.set_cookie(Some(id), path, encrypted)),
            (None, Some(_)) if slot.cookie => Some(settings.set_cookie(None, path, encrypted)),
            _ => None,
        };
        if let Some(Ok(value)) = cookie.map(|text| HeaderValue::from_str(&text)) {
            headers.append(SET_COOKIE, value);
        }
        Some(session)
    }
}
