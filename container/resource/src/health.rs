//! Whether resources answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::any::AnyResource;

/// So often each is asked.
const EVERY: Duration = Duration::from_secs(2);

/// What the last question said.
pub(crate) struct Health(Mutex<String>);

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new("it has not answered yet".into()))
    }
}

impl Health {
    /// Why it can't be used; empty where it can.
    pub(crate) fn down(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers an answer.
    pub(crate) fn keep(&self, answer: Result<(), String>) -> Result<(), String> {
        let down = answer.as_ref().err().cloned().unwrap_or_default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = down;
        answer
    }
}

/// Asks a resource again and again, and says what changes. `up` is called whenever it answers (again).
pub(crate) async fn watch(name: String, resource: Arc<dyn AnyResource>, up: impl Fn() + Send) {
    let mut before = None;
    loop {
        let now = resource.clone().ask().await;
        if before.as_ref() != Some(&now.is_ok()) {
            match &now {
                Err(down) => tracing::error!(resource = name, "down: {down}"),
                Ok(()) => {
                    tracing::info!(resource = name, "up: it answers");
                    up();
                }
            }
        }
        before = Some(now.is_ok());
        sleep(EVERY).await;
    }
}
