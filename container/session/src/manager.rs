//! The sessions of one context: state by the shared rules, kept in memory and, where that is asked for, in files.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use wharf_kernel::options::{SessionSettings, SessionStore};
use wharf_kernel::session::{Counts, Refused, Session, SessionEvents, SessionFuture, SessionManager};
use wharf_session_state::{Limits, Sessions, is_id};

use crate::clock::{new_id, now};
use crate::files::Files;
use crate::shared::Shared;

/// See the module.
pub(crate) struct Manager {
    sessions: Arc<Sessions>,
    settings: RwLock<Arc<SessionSettings>>,
    /// Where they are kept for several containers, if they are.
    shared: RwLock<Option<Arc<Shared>>>,
    files: Arc<Files>,
    /// Held while a file is written or deleted, so that of two requests the later state is what stays.
    writing: Arc<Mutex<()>>,
    events: Mutex<Option<Weak<dyn SessionEvents>>>,
}

fn limits(settings: &SessionSettings) -> Limits {
    Limits {
        sessions: settings.max_sessions,
        session_bytes: settings.max_session_bytes,
        total_bytes: settings.max_bytes,
    }
}

impl Manager {
    /// A manager with the sessions that the files have.
    pub(crate) fn open(files: Files, settings: SessionSettings, shared: Option<Arc<Shared>>) -> Arc<Self> {
        let sessions = Arc::<Sessions>::default();
        let mut lost = 0;
        for stored in files.read_all() {
            let id = stored.id.clone();
            let kept = sessions.restore(stored, now(), limits(&settings));
            lost += u64::from(!kept);
            // In memory alone, what is read is taken: a crash must not bring an old state back.
            if !kept || settings.store == SessionStore::Memory {
                files.remove(&id);
            }
        }
        if lost > 0 {
            tracing::info!("{lost} stored sessions had expired or did not fit, and were dropped");
        }
        Arc::new(Self {
            sessions,
            settings: RwLock::new(Arc::new(settings)),
            shared: RwLock::new(shared),
            files: Arc::new(files),
            writing: Arc::default(),
            events: Mutex::new(None),
        })
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, settings: SessionSettings, shared: Option<Arc<Shared>>) {
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.sessions.counts()
    }

    /// Ends what nobody has used for too long, and tells the newest generation.
    pub(crate) fn expire(&self) {
        if self.shared().is_some() {
            // These are copies: another container may have served a request of the session since.
            self.sessions.forget_idle(now());
            return;
        }
        let expired = self.sessions.expire(now());
        if expired.is_empty() {
            return;
        }
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        if let Some(events) = events {
            events.expired(&expired);
        }
        for session in expired {
            let id = session.id();
            self.sessions.bury(&session);
            if self.settings().store == SessionStore::File {
                self.files.remove(&id);
            }
        }
    }

    /// Writes all of them, for the next start.
    pub(crate) fn write_all(&self) {
        // Written already, each before its response.
        if self.shared().is_some() {
            return;
        }
        for session in self.sessions.all() {
            if let Err(error) = self.files.write(&session.stored()) {
                tracing::error!("sessions could not be kept for the next start: {error}");
                return;
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.sessions.clear();
        self.files.clear();
    }
}

/// Begins a session.
fn begin(sessions: &Sessions, settings: &SessionSettings, version: &str) -> Result<Arc<Session>, Refused> {
    let idle = Some(settings.timeout).filter(|t| *t > Duration::ZERO);
    let id = new_id().map_err(Refused::Unavailable)?;
    sessions.create(&id, version, now(), idle, limits(settings))
}

impl SessionManager for Manager {
    fn settings(&self) -> Arc<SessionSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(
        &self,
        ids: Vec<String>,
        create: bool,
        version: &str,
    ) -> SessionFuture<Result<Option<Arc<Session>>, Refused>> {
        if let Some(shared) = self.shared() {
            let (sessions, settings, version) = (self.sessions.clone(), self.settings(), version.to_owned());
            return Box::pin(async move {
                for id in ids.iter().filter(|id| is_id(id)) {
                    match shared.load(id).await? {
                        Some(stored) => {
                            if let Some(session) = sessions.adopt(stored, now(), limits(&settings))? {
                                return Ok(Some(session));
                            }
                        }
                        None => sessions.gone(id),
                    }
                }
                if create { begin(&sessions, &settings, &version).map(Some) } else { Ok(None) }
            });
        }
        let now = now();
        let found = ids.iter().find_map(|id| self.sessions.find(id, now));
        let opened = match found {
            Some(session) => Ok(Some(session)),
            None if !create => Ok(None),
            None => begin(&self.sessions, &self.settings(), version).map(Some),
        };
        Box::pin(std::future::ready(opened))
    }

    fn version_of(&self, id: &str) -> Option<String> {
        self.sessions.peek(id).map(|session| session.version().to_owned())
    }

    fn invalidate(&self, session: &Arc<Session>) -> bool {
        if let Some(shared) = self.shared() {
            shared.give_up(&session.id());
        }
        if self.settings().store == SessionStore::File {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.files.remove(&session.id());
        }
        self.sessions.invalidate(session)
    }

    fn rotate(&self, session: &Arc<Session>) -> Result<Arc<str>, Refused> {
        let id = new_id().map_err(Refused::Unavailable)?;
        let before = self.sessions.rotate(session, &id)?;
        if let Some(shared) = self.shared() {
            shared.give_up(&before);
        }
        if self.settings().store == SessionStore::File {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.files.remove(&before);
        }
        Ok(before)
    }

    fn save(&self, session: &Arc<Session>) -> SessionFuture<()> {
        if let Some(shared) = self.shared() {
            let session = session.clone();
            return Box::pin(async move {
                if let Err(error) = shared.save(&session).await {
                    tracing::error!("a session could not be written to where containers share them: {error}");
                }
            });
        }
        if self.settings().store != SessionStore::File {
            return Box::pin(std::future::ready(()));
        }
        let (files, writing, session) = (self.files.clone(), self.writing.clone(), session.clone());
        let write = move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let stored = session.stored();
            if !session.is_valid() {
                files.remove(&stored.id);
            } else if let Err(error) = files.write(&stored) {
                tracing::error!("a session could not be written to its file, and lives in memory alone: {error}");
            }
        };
        Box::pin(async move {
            let _ = tokio::task::spawn_blocking(write).await;
        })
    }

    fn attach(&self, events: Weak<dyn SessionEvents>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }
}
