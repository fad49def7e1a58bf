//! One session: its times and its values. Whoever has it open sees one state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::{Limits, Now};

/// A value as it is kept: JSON text, and the name of the type it was written from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Name of the type, for messages.
    pub type_name: Arc<str>,
    /// The value.
    pub json: Arc<str>,
}

impl Value {
    /// What it counts for, in bytes, with its name.
    fn size(&self, name: &str) -> u64 {
        (name.len() + self.type_name.len() + self.json.len() + 64) as u64
    }
}

/// Why a session does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There are as many sessions as there may be.
    TooMany {
        /// How many that is.
        limit: u64,
    },
    /// The values of this session would take more than they may.
    SessionTooLarge {
        /// How many bytes that is.
        limit: u64,
    },
    /// The values of all sessions of the application would take more than they may.
    ApplicationTooLarge {
        /// How many bytes that is.
        limit: u64,
    },
    /// The session was invalidated or has expired.
    Invalid,
    /// There are no sessions here, or their store does not work; why.
    Unavailable(String),
}

impl Refused {
    /// The status that fits: 503 where a later request may succeed, 507 where the session is full (RFC 4918, section 11.5).
    pub fn status(&self) -> u16 {
        match self {
            Self::TooMany { .. } | Self::ApplicationTooLarge { .. } | Self::Unavailable(_) => 503,
            Self::SessionTooLarge { .. } => 507,
            Self::Invalid => 500,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => write!(f, "there are {limit} sessions, which is session.max_sessions"),
            Self::SessionTooLarge { limit } => {
                write!(f, "the session would hold more than {limit} bytes, which is session.max_session_bytes")
            }
            Self::ApplicationTooLarge { limit } => {
                write!(f, "all sessions together would hold more than {limit} bytes, which is session.max_bytes")
            }
            Self::Invalid => f.write_str("the session was invalidated or has expired"),
            Self::Unavailable(why) => write!(f, "no sessions: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

/// A session outside: what a store writes and reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// Version of the application it began in; empty without one.
    pub version: String,
    /// When it began.
    pub created: SystemTime,
    /// The last request but the present one.
    pub last_accessed: SystemTime,
    /// The last request.
    pub accessed: SystemTime,
    /// Without a request for so long, it ends; `None`: never.
    pub max_inactive: Option<Duration>,
    /// Its values.
    pub values: Vec<(String, Value)>,
    /// What the container keeps with it.
    pub notes: Vec<(String, String)>,
}

struct State {
    id: Arc<str>,
    valid: bool,
    is_new: bool,
    last_accessed: SystemTime,
    accessed: SystemTime,
    /// `accessed` on the steady clock.
    touched: Duration,
    max_inactive: Option<Duration>,
    values: BTreeMap<Box<str>, Value>,
    notes: BTreeMap<Box<str>, Arc<str>>,
    bytes: u64,
}

/// A session (`HttpSession` of Servlet 6.1, chapter 7).
pub struct Session {
    created: SystemTime,
    version: Arc<str>,
    limits: Limits,
    /// Bytes of all sessions of the application.
    total: Arc<AtomicU64>,
    state: Mutex<State>,
}

impl fmt::Debug for Session {
    /// Without the id, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("created", &self.created).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn begin(
        id: &str,
        version: &str,
        now: Now,
        idle: Option<Duration>,
        limits: Limits,
        total: Arc<AtomicU64>,
    ) -> Self {
        let state = State {
            id: id.into(),
            valid: true,
            is_new: true,
            last_accessed: now.wall,
            accessed: now.wall,
            touched: now.steady,
            max_inactive: idle,
            values: BTreeMap::new(),
            notes: BTreeMap::new(),
            bytes: 0,
        };
        Self { created: now.wall, version: version.into(), limits, total, state: Mutex::new(state) }
    }

    /// The session that was stored. `None` when it has expired meanwhile, by the time of day: a clock that was set back
    /// makes nothing older.
    pub(crate) fn restore(stored: Stored, now: Now, limits: Limits, total: Arc<AtomicU64>) -> Option<Self> {
        let idle = now.wall.duration_since(stored.accessed).unwrap_or_default();
        if stored.max_inactive.is_some_and(|max| idle >= max) {
            return None;
        }
        let values: BTreeMap<Box<str>, Value> = stored.values.into_iter().map(|(n, v)| (n.into(), v)).collect();
        let notes: BTreeMap<Box<str>, Arc<str>> =
            stored.notes.into_iter().map(|(n, text)| (n.into(), text.into())).collect();
        let bytes = values.iter().map(|(n, v)| v.size(n)).sum::<u64>()
            + notes.iter().map(|(n, text)| note_size(n, text)).sum::<u64>();
        total.fetch_add(bytes, Ordering::Relaxed);
        let state = State {
            id: stored.id.into(),
            valid: true,
            is_new: false,
            last_accessed: stored.last_accessed,
            accessed: stored.accessed,
            touched: now.steady.saturating_sub(idle),
            max_inactive: stored.max_inactive,
            values,
            notes,
            bytes,
        };
        Some(Self { created: stored.created, version: stored.version.into(), limits, total, state: Mutex::new(state) })
    }

    /// For a store.
    pub fn stored(&self) -> Stored {
        let state = self.state();
        Stored {
            id: state.id.to_string(),
            version: self.version.to_string(),
            created: self.created,
            last_accessed: state.last_accessed,
            accessed: state.accessed,
            max_inactive: state.max_inactive,
            values: state.values.iter().map(|(n, v)| (n.to_string(), v.clone())).collect(),
            notes: state.notes.iter().map(|(n, text)| (n.to_string(), text.to_string())).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come for it.
    pub(crate) fn touch(&self, now: Now) -> bool {
        let mut state = self.state();
        if !state.valid || state.has_expired(now) {
            return false;
        }
        state.is_new = false;
        state.last_accessed = state.accessed;
        state.accessed = now.wall;
        state.touched = now.steady;
        true
    }

    pub(crate) fn has_expired(&self, now: Now) -> bool {
        self.state().has_expired(now)
    }

    /// Ends it; its values are gone. True the first time.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.state();
        self.total.fetch_sub(state.bytes, Ordering::Relaxed);
        state.bytes = 0;
        state.values.clear();
        state.notes.clear();
        std::mem::replace(&mut state.valid, false)
    }

    /// This copy of it is not used again: it takes no room.
    pub(crate) fn forget(&self) {
        self.end();
    }

    pub(crate) fn set_id(&self, id: &str) {
        self.state().id = id.into();
    }

    /// Its id.
    pub fn id(&self) -> Arc<str> {
        self.state().id.clone()
    }

    /// Version of the application it began in; empty without one.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it has been neither invalidated nor found expired.
    pub fn is_valid(&self) -> bool {
        self.state().valid
    }

    /// Whether the client does not know of it yet.
    pub fn is_new(&self) -> bool {
        self.state().is_new
    }

    /// When it began.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// When the client last sent a request for it, before the present one.
    pub fn last_accessed(&self) -> SystemTime {
        self.state().last_accessed
    }

    /// Without a request for so long, it ends; `None`: never.
    pub fn max_inactive(&self) -> Option<Duration> {
        self.state().max_inactive
    }

    /// Sets [`Session::max_inactive`].
    pub fn set_max_inactive(&self, max: Option<Duration>) {
        self.state().max_inactive = max;
    }

    /// Names of its values, in their order.
    pub fn names(&self) -> Vec<String> {
        self.state().values.keys().map(ToString::to_string).collect()
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.state().values.get(name).cloned()
    }

    /// Sets a value. Returns the one before.
    ///
    /// # Errors
    /// When it is invalid, or there would be too many bytes. Nothing has changed then.
    pub fn set(&self, name: &str, value: Value) -> Result<Option<Value>, Refused> {
        let mut state = self.state();
        if !state.valid {
            return Err(Refused::Invalid);
        }
        let before = state.values.get(name).map_or(0, |v| v.size(name));
        self.make_room(&mut state, before, value.size(name))?;
        Ok(state.values.insert(name.into(), value))
    }

    /// Counts something that takes so many bytes, in place of what took so many `before`.
    fn make_room(&self, state: &mut State, before: u64, after: u64) -> Result<(), Refused> {
        let bytes = state.bytes - before + after;
        if bytes > self.limits.session_bytes {
            return Err(Refused::SessionTooLarge { limit: self.limits.session_bytes });
        }
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes - state.bytes;
        if bytes > state.bytes && total > self.limits.total_bytes {
            self.total.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused::ApplicationTooLarge { limit: self.limits.total_bytes });
        }
        self.total.fetch_sub(state.bytes, Ordering::Relaxed);
        state.bytes = bytes;
        Ok(())
    }

    /// What the container keeps with the session under this name. The application's code never sees it.
    pub fn note(&self, name: &str) -> Option<Arc<str>> {
        self.state().notes.get(name).cloned()
    }

    /// Sets a note, or takes it away.
    ///
    /// # Errors
    /// As [`Session::set`].
    pub fn set_note(&self, name: &str, text: Option<&str>) -> Result<(), Refused> {
        let mut state = self.state();
        if !state.valid {
            return Err(Refused::Invalid);
        }
        let before = state.notes.get(name).map_or(0, |text| note_size(name, text));
        self.make_room(&mut state, before, text.map_or(0, |text| note_size(name, text)))?;
        match text {
            Some(text) => drop(state.notes.insert(name.into(), text.into())),
            None => drop(state.notes.remove(name)),
        }
        Ok(())
    }

    /// Removes a value. Returns it.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn remove(&self, name: &str) -> Result<Option<Value>, Refused> {
        let mut state = self.state();
        if !state.valid {
            return Err(Refused::Invalid);
        }
        let removed = state.values.remove(name);
        if let Some(value) = &removed {
            state.bytes -= value.size(name);
            self.total.fetch_sub(value.size(name), Ordering::Relaxed);
        }
        Ok(removed)
    }
}

fn note_size(name: &str, text: &str) -> u64 {
    (name.len() + text.len() + 64) as u64
}

impl State {
    fn has_expired(&self, now: Now) -> bool {
        self.max_inactive.is_some_and(|max| now.steady.saturating_sub(self.touched) >= max)
    }
}
