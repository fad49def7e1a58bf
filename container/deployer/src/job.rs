//! One attempt to bring up a generation: verify, launch, map, health check. Runs on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use wharf_kernel::endpoint::{Connection, Exchange, PathElements};
use wharf_kernel::guard::{Guard, Guards};
use wharf_kernel::launch::{Description, Kind, Launched, Launcher, Plan};
use wharf_kernel::options::Options;
use wharf_kernel::refusal::Code;
use wharf_kernel::{Body, Hold, Refusal};
use wharf_mapping::ServletMap;

use crate::keep::Kept;
use crate::scan::Print;

/// What to bring up.
pub(crate) struct Job {
    /// Who makes guards.
    pub(crate) guards: Option<Arc<dyn Guards>>,
    /// The plan for the launcher.
    pub(crate) plan: Plan,
    /// Path for the health check.
    pub(crate) health: Option<String>,
    /// Where good files are kept, the print of the file alone, and how many; `None` for what has no single file.
    pub(crate) keep: Option<(Kept, Print, usize)>,
}

/// A generation that is ready for traffic.
pub(crate) struct Ready {
    /// The generation.
    pub(crate) launched: Arc<dyn Launched>,
    /// Its servlets as a map; `None` where the endpoint takes the whole context.
    pub(crate) servlets: Option<ServletMap>,
    /// Who may reach its paths; `None` where it has no constraints.
    pub(crate) guard: Option<Arc<dyn Guard>>,
    /// Number of the kept copy of its file.
    pub(crate) copy: Option<u64>,
}

impl Job {
    /// Brings it up. `verified` is called when the look at the source found nothing wrong.
    ///
    /// # Errors
    /// The refusal. Nothing of the generation is left then, or what is left is logged.
    pub(crate) fn run(self, launcher: &dyn Launcher, verified: impl FnOnce(&Description)) -> Result<Ready, Refusal> {
        // First of all: an application whose constraints can't be held is never started.
        let guard = self.guard()?;
        verified(&launcher.verify(&self.plan)?);
        let launched = launcher.launch(&self.plan)?;
        match self.prepare(&*launched).and_then(|servlets| Ok((servlets, self.declared(&*launched)?.or(guard)))) {
            Ok((servlets, guard)) => {
                let copy = self.keep(&launched.description().sha256);
                Ok(Ready { launched, servlets, guard, copy })
            }
            Err(refusal) => {
                launched.gate().close();
                let retirement = launched.retire(self.plan.stop_timeout);
                if !retirement.held_by.is_empty() {
                    tracing::warn!(app = %self.plan.id, generation = self.plan.generation,
                        held_by = retirement.held_by.join(", "), "the refused generation stays in memory");
                }
                Err(refusal)
            }
        }
    }

    fn guard(&self) -> Result<Option<Arc<dyn Guard>>, Refusal> {
        if self.plan.options.security.is_empty() {
            return Ok(None);
        }
        self.guard_for(&self.plan, Code::BadAppToml).map(Some)
    }

    /// The guard with the constraints that the application declares itself, where it does.
    fn declared(&self, launched: &dyn Launched) -> Result<Option<Arc<dyn Guard>>, Refusal> {
        let declared = launched.constraints();
        if declared.is_empty() {
            return Ok(None);
        }
        let options = &self.plan.options;
        let security = options.security.with_declared(declared);
        let wrong =
            |what| Refusal::new(Code::BadMapping, format!("with the constraints of the application itself: {what}"));
        security.check().map_err(wrong)?;
        let plan = Plan { options: Arc::new(Options { security, ..(**options).clone() }), ..self.plan.clone() };
        self.guard_for(&plan, Code::BadMapping).map(Some)
    }

    fn guard_for(&self, plan: &Plan, code: Code) -> Result<Arc<dyn Guard>, Refusal> {
        let refused = |what: String| Refusal::new(code, what);
        let guards = self.guards.as_ref().ok_or_else(|| refused("this container knows no constraints".into()))?;
        guards.guard(plan).map_err(refused)
    }

    fn prepare(&self, launched: &dyn Launched) -> Result<Option<ServletMap>, Refusal> {
        let servlets = launched.servlets();
        let map = if servlets.is_empty() {
            None
        } else {
            let map = ServletMap::new(servlets.iter().map(|s| s.patterns.clone()).enumerate())
                .map_err(|e| Refusal::new(Code::BadMapping, e.to_string()))?;
            Some(map)
        };
        if let Some(path) = &self.health {
            let unhealthy = |what: String| Refusal::new(Code::Unhealthy, format!("GET {path}: {what}"));
            let exchange = self.exchange(path, map.as_ref()).map_err(unhealthy)?;
            let status = call(launched, exchange, self.plan.start_timeout).map_err(unhealthy)?;
            if !status.is_success() {
                return Err(unhealthy(format!("status {status}")));
            }
        }
        Ok(map)
    }

    /// The request of the health check, mapped as one from the network would be.
    fn exchange(&self, path: &str, map: Option<&ServletMap>) -> Result<Box<Exchange>, String> {
        let context = &self.plan.id.path;
        let canonical = wharf_mapping::canonicalise(path).map_err(|e| e.to_string())?;
        let encoded = format!("{}{}", context.as_str(), canonical.encoded);
        let decoded = format!("{}{}", context.as_str(), canonical.decoded);
        let found = match map {
            None => None,
            Some(map) => Some(map.find(&canonical.decoded).ok_or("no servlet of the application has this path")?),
        };
        let request = http::Request::get(&encoded)
            .header(http::header::HOST, "localhost")
            .header(http::header::USER_AGENT, "wharf-health-check")
            .body(Body::empty())
            .map_err(|e| e.to_string())?;
        Ok(Box::new(Exchange {
            session: wharf_kernel::session::SessionSlot::default(),
            request,
            path: PathElements::new(encoded, &decoded, context, found),
            authority: "localhost".into(),
            connection: Arc::new(Connection::new(None, None, false)),
            id: format!("health-{}", self.plan.generation).into(),
        }))
    }

    fn keep(&self, sha256: &str) -> Option<u64> {
        let (kept, print, keep) = self.keep.as_ref()?;
        if self.plan.kind != Kind::Module || sha256.is_empty() || *keep == 0 {
            return None;
        }
        kept.keep(&self.plan.source, sha256, print, *keep).unwrap_or_else(|error| {
            tracing::warn!(app = %self.plan.id, %error, "no copy of this version could be kept; it can't be rolled back to");
            None
        })
    }
}

/// Calls the endpoint on a small runtime of this thread; the response and its body are gone when it returns.
fn call(launched: &dyn Launched, exchange: Box<Exchange>, timeout: Duration) -> Result<http::StatusCode, String> {
    let lease = launched.gate().try_lease().ok_or("the generation is closed")?.held_for(Hold::Request);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        match tokio::time::timeout(timeout, launched.endpoint().call(exchange, lease)).await {
            Ok(response) => Ok(response.status()),
            Err(_) => Err(format!("no answer in {timeout:?}")),
        }
    })
}
