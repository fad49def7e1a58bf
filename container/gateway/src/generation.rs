//! A running application that is no module: its gate, its endpoint, and what ends with it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wharf_kernel::launch::{Description, Launched, Retirement, Servlet};
use wharf_kernel::{Endpoint, Gate, Hold};

/// A generation of a gateway.
pub(crate) struct Generation {
    description: Description,
    endpoint: Arc<dyn Endpoint>,
    gate: Gate,
    /// Told when the last lease is back.
    idle: Arc<(Mutex<()>, Condvar)>,
    /// What ends with it; called when the last lease is back, or was waited for in vain. May block for a moment.
    stop: Box<dyn Fn() + Send + Sync>,
}

impl Generation {
    /// A generation that serves. `stop` ends what it runs: processes, tasks, connections. It may be called more than once.
    pub(crate) fn new(
        description: Description,
        endpoint: Arc<dyn Endpoint>,
        stop: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let idle = Arc::new((Mutex::new(()), Condvar::new()));
        let gate = Gate::new({
            let idle = idle.clone();
            move || {
                let _held = idle.0.lock().unwrap_or_else(PoisonError::into_inner);
                idle.1.notify_all();
            }
        });
        Arc::new(Self { description, endpoint, gate, idle, stop: Box::new(stop) })
    }

    fn report(&self) -> Retirement {
        let held = |kind, what: &str| match self.gate.held(kind) {
            0 => None,
            1 => Some(format!("1 {what}")),
            n => Some(format!("{n} {what}s")),
        };
        let held_by =
            [(Hold::Request, "request"), (Hold::Body, "response body"), (Hold::Upgrade, "upgraded connection")];
        Retirement {
            held_by: held_by.into_iter().filter_map(|(kind, what)| held(kind, what)).collect(),
            unmapped: true,
            ..Retirement::default()
        }
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
        &[]
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn live_bytes(&self) -> Option<u64> {
        None
    }

    fn take_own_time(&self) -> Duration {
        self.endpoint.take_own_time()
    }

    fn retire(&self, drain_timeout: Duration) -> Retirement {
        self.gate.close();
        let guard = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.idle.1.wait_timeout_while(guard, drain_timeout, |()| !self.gate.is_idle());
        drop(waited);
        let cut_upgrades = self.gate.held(Hold::Upgrade);
        self.gate.cut();
        (self.stop)();
        Retirement { cut_upgrades, ..self.report() }
    }

    fn retry_retire(&self) -> Retirement {
        (self.stop)();
        self.report()
    }
}
