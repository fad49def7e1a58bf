//! One generation, as the deployer sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_kernel::admin::GenerationStatus;
use wharf_kernel::launch::Launched;
use wharf_kernel::lifecycle::{Event, State, next};
use wharf_kernel::{AppId, Route, Share};

/// How long after a hold the first second look comes; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

pub(crate) struct Generation {
    pub(crate) name: String,
    pub(crate) id: AppId,
    pub(crate) number: u64,
    pub(crate) state: State,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) since: Instant,
    pub(crate) launched: Option<Arc<dyn Launched>>,
    pub(crate) route: Option<Arc<Route>>,
    /// What it may take.
    pub(crate) share: Share,
    /// Number of the kept copy of its file.
    pub(crate) copy: Option<u64>,
    pub(crate) held_by: Vec<String>,
    /// When a held one is looked at again; `None` while a look is under way.
    pub(crate) retry_at: Option<Instant>,
    retry_after: Duration,
}

impl Generation {
    pub(crate) fn new(name: String, id: AppId, number: u64) -> Self {
        Self {
            name,
            id,
            number,
            state: State::Found,
            version: String::new(),
            sha256: String::new(),
            since: Instant::now(),
            launched: None,
            route: None,
            share: Share::default(),
            copy: None,
            held_by: Vec::new(),
            retry_at: None,
            retry_after: FIRST_RETRY,
        }
    }

    /// Moves it on, with a line in the log. An event that can't happen now is a mistake of the deployer: it is logged and
    /// changes nothing.
    pub(crate) fn step(&mut self, event: Event) {
        match next(&self.state, event) {
            Ok(state) => self.state = state,
            Err(error) => {
                tracing::error!(app = %self.id, generation = self.number, %error, "the life cycle of a generation is broken");
                return;
            }
        }
        let (app, version, generation, state) = (&self.id, self.version.as_str(), self.number, self.state.name());
        match &self.state {
            State::Serving | State::Retired | State::Draining => tracing::info!(%app, version, generation, "{state}"),
            State::Held => tracing::warn!(%app, version, generation, held_by = self.held_by.join(", "), "{state}"),
            State::Failed { error, .. } => tracing::error!(%app, version, generation, code = %error.code, "{error}"),
            _ => tracing::debug!(%app, version, generation, "{state}"),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// Says when a held generation shall be looked at again.
    pub(crate) fn plan_retry(&mut self) {
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
    }

    pub(crate) fn status(&self) -> GenerationStatus {
        GenerationStatus {
            generation: self.number,
            state: self.state.clone(),
            package_version: self.version.clone(),
            sha256: self.sha256.clone(),
            age_seconds: self.since.elapsed().as_secs(),
            leases: self.launched.as_ref().map_or(0, |l| l.gate().leases()),
            live_bytes: self.launched.as_ref().and_then(|l| l.live_bytes()),
            held_by: self.held_by.clone(),
        }
    }
}
