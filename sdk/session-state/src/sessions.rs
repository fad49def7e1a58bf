//! All sessions of one context: they begin, are found, change their ids and end here, within limits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Now, Refused, Session, Stored, is_id};

/// What the sessions of one application may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many there may be.
    pub sessions: u64,
    /// Bytes of the values of one.
    pub session_bytes: u64,
    /// Bytes of the values of all.
    pub total_bytes: u64,
}

/// What has become of the sessions so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// There now.
    pub active: u64,
    /// Begun.
    pub created: u64,
    /// Ended for want of requests.
    pub expired: u64,
    /// Ended by the application.
    pub invalidated: u64,
    /// Not begun, because of a limit.
    pub rejected: u64,
    /// Bytes of all values.
    pub bytes: u64,
}

/// At the limit, those that have expired are looked for once in this time, not at every request.
const SWEEP_AT_LIMIT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Map {
    /// By the whole id. The hash is keyed with random bytes of this process, so how long a look-up takes says nothing about
    /// how much of a guess was right.
    by_id: HashMap<Arc<str>, Arc<Session>>,
    /// Found to be expired, but not yet told to anybody.
    expired: Vec<Arc<Session>>,
    swept: Duration,
}

/// The sessions of one context.
#[derive(Default)]
pub struct Sessions {
    map: Mutex<Map>,
    total: Arc<AtomicU64>,
    created: AtomicU64,
    expired: AtomicU64,
    invalidated: AtomicU64,
    rejected: AtomicU64,
}

impl Sessions {
    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session with a fresh id.
    ///
    /// # Errors
    /// When there are too many, or too many bytes.
    pub fn create(
        &self,
        id: &str,
        version: &str,
        now: Now,
        max_inactive: Option<Duration>,
        limits: Limits,
    ) -> Result<Arc<Session>, Refused> {
        let mut map = self.map();
        if map.by_id.len() as u64 >= limits.sessions && now.steady.saturating_sub(map.swept) >= SWEEP_AT_LIMIT {
            self.sweep(&mut map, now);
        }
        let refused = if map.by_id.len() as u64 >= limits.sessions {
            Some(Refused::TooMany { limit: limits.sessions })
        } else if self.total.load(Ordering::Relaxed) >= limits.total_bytes {
            Some(Refused::ApplicationTooLarge { limit: limits.total_bytes })
        } else if map.by_id.contains_key(id) {
            Some(Refused::Unavailable("the id is in use".into()))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(refused);
        }
        let session = Arc::new(Session::begin(id, version, now, max_inactive, limits, self.total.clone()));
        map.by_id.insert(session.id(), session.clone());
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(session)
    }

    /// The session with this id, for a request. One that has expired is as good as none.
    pub fn find(&self, id: &str, now: Now) -> Option<Arc<Session>> {
        self.peek(id).filter(|session| session.touch(now))
    }

    /// The session with this id, without counting as a request.
    pub fn peek(&self, id: &str) -> Option<Arc<Session>> {
        if !is_id(id) {
            return None;
        }
        self.map().by_id.get(id).cloned()
    }

    /// Ends those that have had no request for too long. Returns them with their values, to be told to listeners; whoever
    /// takes them calls [`Sessions::bury`].
    pub fn expire(&self, now: Now) -> Vec<Arc<Session>> {
        let mut map = self.map();
        self.sweep(&mut map, now);
        std::mem::take(&mut map.expired)
    }

    fn sweep(&self, map: &mut Map, now: Now) {
        map.swept = now.steady;
        let Map { by_id, expired, .. } = map;
        let before = expired.len();
        by_id.retain(|_, session| {
            let over = session.has_expired(now);
            if over {
                expired.push(session.clone());
            }
            !over
        });
        self.expired.fetch_add((expired.len() - before) as u64, Ordering::Relaxed);
    }

    /// Makes a session that has expired invalid, after its listeners were told.
    pub fn bury(&self, session: &Session) {
        session.end();
    }

    /// Ends a session at the application's wish. False when it had ended before.
    pub fn invalidate(&self, session: &Session) -> bool {
        let mut map = self.map();
        let was_there = map.by_id.remove(&session.id()).is_some();
        drop(map);
        let ended = session.end();
        if was_there && ended {
            self.invalidated.fetch_add(1, Ordering::Relaxed);
        }
        ended
    }

    /// Gives a session another id; the one before opens nothing any more. Returns the one before.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rotate(&self, session: &Session, id: &str) -> Result<Arc<str>, Refused> {
        let mut map = self.map();
        let before = session.id();
        if !session.is_valid() || map.by_id.contains_key(id) {
            return Err(Refused::Invalid);
        }
        let this = map.by_id.remove(&before).ok_or(Refused::Invalid)?;
        this.set_id(id);
        map.by_id.insert(this.id(), this);
        Ok(before)
    }

    /// Takes a session over from a store. False when it has expired, its id is none or is there, or a limit is reached.
    pub fn restore(&self, stored: Stored, now: Now, limits: Limits) -> bool {
        let mut map = self.map();
        if !is_id(&stored.id)
            || map.by_id.contains_key(stored.id.as_str())
            || map.by_id.len() as u64 >= limits.sessions
            || self.total.load(Ordering::Relaxed) >= limits.total_bytes
        {
            return false;
        }
        let Some(session) = Session::restore(stored, now, limits, self.total.clone()) else { return false };
        map.by_id.insert(session.id(), Arc::new(session));
        true
    }

    /// Takes a session over that a store has just given, for a request. Where the same one is in use here by another request, that one
    /// counts: whoever has a session open sees one state. `None` when it has expired or its id is none.
    ///
    /// # Errors
    /// When there are too many.
    pub fn adopt(&self, stored: Stored, now: Now, limits: Limits) -> Result<Option<Arc<Session>>, Refused> {
        let mut map = self.map();
        if !is_id(&stored.id) {
            return Ok(None);
        }
        match map.by_id.get(stored.id.as_str()) {
            // The map's own reference alone: nobody has it open.
            Some(here) if Arc::strong_count(here) == 1 => {
                let stale = map.by_id.remove(stored.id.as_str());
                stale.iter().for_each(|session| session.forget());
            }
            Some(here) => return Ok(Some(here.clone()).filter(|session| session.touch(now))),
            None if map.by_id.len() as u64 >= limits.sessions => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                return Err(Refused::TooMany { limit: limits.sessions });
            }
            None => {}
        }
        let Some(session) = Session::restore(stored, now, limits, self.total.clone()) else { return Ok(None) };
        let session = Arc::new(session);
        map.by_id.insert(session.id(), session.clone());
        Ok(Some(session).filter(|session| session.touch(now)))
    }

    /// Lets the copies of sessions go that are kept in a store, and that nobody here has used for too long.
    pub fn forget_idle(&self, now: Now) {
        self.map().by_id.retain(|_, session| {
            let goes = Arc::strong_count(session) == 1 && session.has_expired(now);
            if goes {
                session.forget();
            }
            !goes
        });
    }

    /// A session that the store does not have any more has ended, whoever ended it.
    pub fn gone(&self, id: &str) {
        let session = self.map().by_id.remove(id);
        if let Some(session) = session {
            session.end();
        }
    }

    /// All that are there.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.map().by_id.values().cloned().collect()
    }

    /// Ends all of them.
    pub fn clear(&self) {
        let all: Vec<_> = self.map().by_id.drain().map(|(_, session)| session).collect();
        for session in all {
            session.end();
        }
    }

    /// What has become of them so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            active: self.map().by_id.len() as u64,
            created: read(&self.created),
            expired: read(&self.expired),
            invalidated: read(&self.invalidated),
            rejected: read(&self.rejected),
            bytes: read(&self.total),
        }
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
