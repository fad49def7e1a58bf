//! Runs HTTP servers behind this one.

use std::sync::Arc;

use wharf_kernel::Refusal;
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::refusal::Code;

/// Launches HTTP servers behind this one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Proxy;

impl Launcher for Proxy {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        Err(Refusal::new(Code::BadAppToml, format!("{}: this kind is not there yet", plan.source.display())))
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        Err(Refusal::new(Code::BadAppToml, format!("{}: this kind is not there yet", plan.source.display())))
    }
}
