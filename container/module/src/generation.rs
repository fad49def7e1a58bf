//! A generation: one loaded copy of a module, from its start to its retirement.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use wharf_kernel::launch::{Description, Launched, Retirement, Servlet};
use wharf_kernel::options::Constraint;
use wharf_kernel::per_thread::{Count, PerThread};
use wharf_kernel::session::{SessionEvents, SessionManager};
use wharf_kernel::workers::Workers;
use wharf_kernel::{Endpoint, Gate, Hold};

use crate::endpoint::{Common, Handles, ModuleEndpoint};
use crate::loaded::{Loaded, Made};
use crate::session::{Expiry, Sessions};

/// Tells whoever waits that the gate is idle.
#[derive(Default)]
pub(crate) struct Idle {
    idle: Mutex<bool>,
    changed: Condvar,
}

impl Idle {
    fn wait(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while !*idle {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            idle = self.changed.wait_timeout(idle, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn tell(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// A generation that runs.
pub(crate) struct Generation {
    description: Description,
    made: Made,
    gate: Gate,
    idle: Arc<Idle>,
    endpoint: Arc<ModuleEndpoint>,
    expiry: Arc<Expiry>,
    loaded: Mutex<Loaded>,
    workers: Arc<dyn Workers>,
    stop_timeout: Duration,
}

impl Generation {
    /// Takes over a module that has been started. `None` when it has not.
    pub(crate) fn new(
        loaded: Loaded,
        made: Made,
        description: Description,
        workers: Arc<dyn Workers>,
        stop_timeout: Duration,
        sessions: Option<Arc<dyn SessionManager>>,
        version: Arc<str>,
    ) -> Option<Self> {
        let (module, instance) = loaded.service()?;
        let idle = Arc::<Idle>::default();
        let gate = Gate::new({
            let idle = idle.clone();
            move || idle.tell()
        });
        let common = PerThread::new(|| Common {
            handles: Handles::default(),
            sessions: sessions.as_ref().map(|manager| Sessions::new(manager.clone(), version.clone())),
        });
        let resources = loaded.resources();
        let endpoint = Arc::new(ModuleEndpoint { module, instance, common, resources });
        let expiry = Arc::new(Expiry { endpoint: endpoint.clone(), gate: gate.clone() });
        let loaded = Mutex::new(loaded);
        Some(Self { description, made, gate, idle, endpoint, expiry, loaded, workers, stop_timeout })
    }

    /// Who hears of this application's sessions that expire.
    pub(crate) fn session_events(&self) -> Weak<dyn SessionEvents> {
        let expiry: Weak<Expiry> = Arc::downgrade(&self.expiry);
        expiry
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unload(&self) -> Retirement {
        if !self.gate.is_idle() {
            let count = |hold, what: &str| {
                Some((self.gate.held(hold), what)).filter(|(n, _)| *n > 0).map(|(n, w)| plural(n, w))
            };
            let held_by = [
                count(Hold::Request, "request"),
                count(Hold::Body, "response body"),
                count(Hold::Upgrade, "upgraded connection"),
            ];
            return Retirement { held_by: held_by.into_iter().flatten().collect(), ..Retirement::default() };
        }
        let mut retirement = self.loaded().unload(&*self.workers, self.stop_timeout);
        let sum = |of: fn(&Handles) -> &Count| self.endpoint.common.sum(|common| of(&common.handles));
        for (left, what) in
            [(sum(|h| &h.requests), "request"), (sum(|h| &h.bodies), "request body"), (sum(|h| &h.sessions), "session")]
        {
            if retirement.unmapped && left > 0 {
                retirement.notes.push(format!("it never gave back {}", plural(left, what)));
            }
        }
        retirement
    }
}

fn plural(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ => format!("{count} {what}s"),
    }
}

impl Launched for Generation {
    fn description(&self) -> &Description {
        &self.description
    }

    fn endpoint(&self) -> Arc<dyn Endpoint> {
        self.endpoint.clone()
    }

    fn servlets(&self) -> &[Servlet] {
        &self.made.servlets
    }

    fn constraints(&self) -> &[Constraint] {
        &self.made.constraints
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn live_bytes(&self) -> Option<u64> {
        // While it is being unloaded, which may take its time, nobody shall wait for a number.
        self.loaded.try_lock().ok().map(|loaded| loaded.live_bytes())
    }

    fn take_own_time(&self) -> Duration {
        self.loaded.try_lock().map_or(Duration::ZERO, |mut loaded| loaded.take_own_time())
    }

    fn panics(&self) -> u64 {
        self.loaded.try_lock().map_or(0, |loaded| loaded.panics())
    }

    fn drain(&self) {
        self.gate.drain();
        self.loaded().draining();
    }

    fn retire(&self, drain_timeout: Duration) -> Retirement {
        self.gate.close();
        // Once more where it was told before: a start may have come in between.
        self.drain();
        self.idle.wait(drain_timeout);
        let cut = self.gate.held(Hold::Upgrade);
        if cut > 0 {
            self.gate.cut();
            // Their tasks end at their next poll, unless a worker is stuck in one.
            self.idle.wait(self.stop_timeout);
        }
        Retirement { cut_upgrades: cut, ..self.unload() }
    }

    fn retry_retire(&self) -> Retirement {
        self.unload()
    }
}
