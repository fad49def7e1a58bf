//! Sessions that several containers have together: each request reads its session from where they are kept, and writes it back
//! before its response is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_kernel::resource::SharedStore;
use wharf_kernel::session::{Refused, Session};
use wharf_session_state::Stored;

use crate::form;

/// The sessions of one context in a store.
pub(crate) struct Shared {
    store: Arc<dyn SharedStore>,
    context: String,
    /// Ids that have been given up, and are to be removed before the next response.
    given_up: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn new(store: Arc<dyn SharedStore>, context: &str) -> Self {
        Self { store, context: context.to_owned(), given_up: Mutex::default() }
    }

    /// The name of a session in the store, which says nothing of its id.
    fn key(&self, id: &str) -> String {
        format!("wharf:session:{}:{}", &form::hex(&self.context)[..32], form::hex(id))
    }

    pub(crate) async fn load(&self, id: &str) -> Result<Option<Stored>, Refused> {
        let found = self.store.load(self.key(id)).await.map_err(Refused::Unavailable)?;
        let Some(text) = found else { return Ok(None) };
        match form::read(&self.context, &text) {
            Ok(stored) if stored.id == id => Ok(Some(stored)),
            Ok(_) => Ok(None),
            Err(why) => {
                tracing::warn!(context = self.context, "a shared session was not taken: {why}");
                Ok(None)
            }
        }
    }

    /// Writes a session as it is now, or removes it where it has ended.
    pub(crate) async fn save(&self, session: &Session) -> Result<(), String> {
        let given_up = std::mem::take(&mut *self.given_up.lock().unwrap_or_else(PoisonError::into_inner));
        for id in given_up {
            self.store.remove(self.key(&id)).await?;
        }
        let stored = session.stored();
        let key = self.key(&stored.id);
        if !session.is_valid() {
            return self.store.remove(key).await;
        }
        let text = form::write(&self.context, &stored).map_err(|e| e.to_string())?;
        let time = stored.max_inactive.filter(|time| *time > Duration::ZERO);
        self.store.save(key, text, time).await
    }

    /// This id is to open nothing any more.
    pub(crate) fn give_up(&self, id: &str) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
    }
}
