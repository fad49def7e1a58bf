//! Runs static sites: a folder of files as an application.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wharf_kernel::launch::{Description, Launched, Launcher, Plan, Retirement, Servlet};
use wharf_kernel::refusal::Code;
use wharf_kernel::{Endpoint, Gate, Hold, Refusal};

use crate::beneath::Beneath;
use crate::endpoint::Files;

/// Launches applications of the kind [`Static`](wharf_kernel::launch::Kind::Static).
#[derive(Debug, Default, Clone, Copy)]
pub struct StaticSite;

impl Launcher for StaticSite {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        let root = &plan.source;
        let refuse = |code, what: &str| {
            Refusal::new(code, format!("document root {}: {what}", root.display()))
                .fix("name an existing folder in app.toml, or create it")
        };
        let metadata = std::fs::metadata(root).map_err(|error| refuse(Code::Unreadable, &error.to_string()))?;
        if !metadata.is_dir() {
            return Err(refuse(Code::NotRegular, "not a folder"));
        }
        std::fs::read_dir(root).map_err(|error| refuse(Code::Unreadable, &error.to_string()))?;
        let folder = plan.folder.as_deref().unwrap_or(root);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Description { name, ..Description::default() })
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let root = Beneath::open_root(&plan.source).map_err(|error| {
            Refusal::new(Code::Unreadable, format!("document root {}: {error}", plan.source.display()))
        })?;
        let idle = Arc::new((Mutex::new(()), Condvar::new()));
        let gate = Gate::new({
            let idle = idle.clone();
            move || {
                let _held = idle.0.lock().unwrap_or_else(PoisonError::into_inner);
                idle.1.notify_all();
            }
        });
        let endpoint = Arc::new(Files::new(root, plan.id.path.as_str()));
        Ok(Arc::new(Site { description, endpoint, gate, idle }))
    }
}

/// A static site that is served.
struct Site {
    description: Description,
    endpoint: Arc<Files>,
    gate: Gate,
    /// Told when the last lease is back.
    idle: Arc<(Mutex<()>, Condvar)>,
}

impl Site {
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

impl Launched for Site {
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

    fn retire(&self, drain_timeout: Duration) -> Retirement {
        self.gate.close();
        let guard = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.idle.1.wait_timeout_while(guard, drain_timeout, |()| !self.gate.is_idle());
        drop(waited);
        self.report()
    }

    fn retry_retire(&self) -> Retirement {
        self.report()
    }
}
