//! Sessions without a container: for `TestClient` and `serve`, in memory, by the rules that the container follows.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use wharf_abi::{RequestedSession, SessionFacts, SessionRefused, SessionValue};
use wharf_session_state::{
    ID_RANDOM_BYTES, Limits, Now, Refused, Session, Sessions, Value, id_from_random, in_cookies,
};

/// Name of the cookie: the container's default.
pub(crate) const COOKIE_NAME: &str = "WHARFSESSION";
/// The container's defaults.
const LIMITS: Limits = Limits { sessions: 100_000, session_bytes: 64 << 10, total_bytes: 256 << 20 };
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

fn now() -> Now {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    Now { steady: BEGIN.get_or_init(Instant::now).elapsed(), wall: SystemTime::now() }
}

fn new_id() -> Result<String, Refused> {
    let mut random = [0; ID_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|e| Refused::Unavailable(format!("the system's random source: {e}")))?;
    Ok(id_from_random(random))
}

/// The session, and the id that the client knows.
type Open = (Arc<Session>, Option<Arc<str>>);

/// The session of one request.
pub(crate) struct LocalSlot {
    sessions: Arc<Sessions>,
    ids: Vec<String>,
    open: Mutex<Option<Open>>,
}

impl std::fmt::Debug for LocalSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalSlot")
    }
}

impl LocalSlot {
    pub(crate) fn new(sessions: &Arc<Sessions>, headers: &HeaderMap) -> Self {
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let ids = lines.flat_map(|line| in_cookies(line, COOKIE_NAME)).map(str::to_owned).collect();
        Self { sessions: sessions.clone(), ids, open: Mutex::new(None) }
    }

    pub(crate) fn open(&self, create: bool) -> Result<Option<LocalSession>, SessionRefused> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let handle =
            |session: &Arc<Session>| LocalSession { session: session.clone(), sessions: self.sessions.clone() };
        if let Some((session, _)) = open.as_ref().filter(|(session, _)| session.is_valid()) {
            return Ok(Some(handle(session)));
        }
        let now = now();
        let expired = self.sessions.expire(now);
        expired.iter().for_each(|session| self.sessions.bury(session));
        let known = open.take().and_then(|(_, known)| known);
        let session = match self.ids.iter().find_map(|id| self.sessions.find(id, now)) {
            Some(session) => {
                *open = Some((session.clone(), Some(session.id())));
                session
            }
            None if !create => return Ok(None),
            None => {
                let id = new_id().map_err(|e| refused(&e))?;
                let begun = self.sessions.create(&id, "", now, Some(TIMEOUT), LIMITS).map_err(|e| refused(&e))?;
                *open = Some((begun.clone(), known));
                begun
            }
        };
        Ok(Some(handle(&session)))
    }

    pub(crate) fn requested(&self) -> RequestedSession {
        let found = self.ids.iter().find(|id| self.sessions.peek(id).is_some());
        RequestedSession {
            id: found.or(self.ids.first()).map(|id| id.as_str().into()).into(),
            is_valid: found.is_some(),
            from_url: false,
        }
    }

    /// Tells the client of its session, as the container does.
    pub(crate) fn commit(&self, headers: &mut HeaderMap, context_path: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((session, known)) = &*open else { return };
        let path = if context_path.is_empty() { "/" } else { context_path };
        let id = session.is_valid().then(|| session.id());
        let text = match (&id, known) {
            (Some(id), known) if Some(id) != known.as_ref() => {
                format!("{COOKIE_NAME}={id}; Path={path}; HttpOnly; SameSite=Lax")
            }
            (None, Some(_)) => format!("{COOKIE_NAME}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Lax"),
            _ => return,
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(SET_COOKIE, value);
        }
    }
}

fn refused(refused: &Refused) -> SessionRefused {
    SessionRefused { status: refused.status(), message: refused.to_string().into() }
}

fn to_value(value: Value) -> SessionValue {
    SessionValue { type_name: (&*value.type_name).into(), json: (&*value.json).into() }
}

/// An open session.
#[derive(Clone)]
pub(crate) struct LocalSession {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
}

impl LocalSession {
    pub(crate) fn facts(&self) -> SessionFacts {
        let session = &self.session;
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

    pub(crate) fn set_max_inactive(&self, ms: u64) {
        self.session.set_max_inactive((ms != u64::MAX).then(|| Duration::from_millis(ms)));
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.session.names()
    }

    pub(crate) fn get(&self, name: &str) -> Option<SessionValue> {
        self.session.get(name).map(to_value)
    }

    pub(crate) fn set(&self, name: &str, type_name: &str, json: &str) -> Result<Option<SessionValue>, SessionRefused> {
        let value = Value { type_name: type_name.into(), json: json.into() };
        self.session.set(name, value).map(|v| v.map(to_value)).map_err(|e| refused(&e))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<Option<SessionValue>, SessionRefused> {
        self.session.remove(name).map(|v| v.map(to_value)).map_err(|e| refused(&e))
    }

    pub(crate) fn invalidate(&self) -> bool {
        self.sessions.invalidate(&self.session)
    }

    pub(crate) fn rotate(&self) -> Result<String, SessionRefused> {
        let rotated = new_id().and_then(|id| self.sessions.rotate(&self.session, &id));
        rotated.map(|before| before.to_string()).map_err(|e| refused(&e))
    }
}
