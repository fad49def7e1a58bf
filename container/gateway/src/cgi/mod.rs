//! Runs folders of CGI programs.

mod app;
mod request;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::options::CgiOptions;
use wharf_kernel::refusal::Code;
use wharf_kernel::{Endpoint, Exchange, Lease, Refusal, ResponseFuture};

use self::app::App;
use crate::generation::Generation;
use crate::program;
use crate::program::process;
use crate::program::request::begin;
use crate::program::runtime::Threads;

/// Launches folders of CGI programs.
#[derive(Debug)]
pub struct Cgi {
    threads: Threads,
}

impl Default for Cgi {
    fn default() -> Self {
        Self { threads: Threads::new("wharf-cgi") }
    }
}

impl Launcher for Cgi {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        program::check_root(plan)?;
        let options = options(plan);
        let bad = |what: String| Refusal::new(Code::BadAppToml, format!("[cgi] {what}")).fix("correct the key named");
        options.check().map_err(bad)?;
        if let Some(program) = &options.program {
            process::check_program(&base(plan).join(program))
                .map_err(|what| bad(format!("program: {}: {what}", program.display())))?;
        }
        let folders = options.sendfile_roots.iter().chain(options.accel_redirects.values());
        program::check_send_folders(base(plan), folders).map_err(bad)?;
        Ok(program::describe(plan))
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let runtime = self.threads.handle()?;
        let app = App::open(plan, options(plan), base(plan))
            .map_err(|e| Refusal::new(Code::Unreadable, format!("{}: {e}", plan.source.display())))?;
        let app = Arc::new(app);
        let endpoint = Arc::new(Programs { app: app.clone(), runtime });
        Ok(Generation::new(description, endpoint, move || app.stop()))
    }
}

fn options(plan: &Plan) -> CgiOptions {
    plan.options.cgi.clone().unwrap_or_default()
}

/// Where relative paths of the options begin.
fn base(plan: &Plan) -> &Path {
    plan.folder.as_ref().map_or(&plan.source, |folder: &PathBuf| folder)
}

/// The endpoint of an application.
struct Programs {
    app: Arc<App>,
    runtime: Handle,
}

impl Endpoint for Programs {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        begin(self.app.clone(), &self.runtime, exchange, lease)
    }

    fn take_own_time(&self) -> Duration {
        self.app.processes.take_time()
    }
}
