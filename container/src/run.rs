//! `wharf run`: the container in the foreground.

use std::process::ExitCode;

use wharf_deployer::DeployerHandle;

use crate::cli::Global;
use crate::failure::Failure;
use crate::{compose, settings_load};

/// What is known once the container is ready.
pub(crate) struct Running {
    /// The addresses, as URLs without a path (`http://127.0.0.1:8080`).
    pub(crate) urls: Vec<String>,
    /// The deployer.
    pub(crate) deployer: DeployerHandle,
}

/// Called once the applications of the first look serve or are refused.
pub(crate) type OnReady = Box<dyn FnOnce(Running) + Send>;

/// Runs until it is told to stop.
pub(crate) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let settings = settings_load::load(global)?.settings;
    let ready: OnReady = Box::new(|running| announce(&running));
    compose::run(settings, ready).map_err(Failure::failed)
}

/// Says where it listens, all in one write: who waits for the first line has the others too.
pub(crate) fn announce(running: &Running) {
    let lines: String = running.urls.iter().map(|url| format!("listening on {url}\n")).collect();
    print!("{lines}");
}
