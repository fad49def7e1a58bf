//! Runs applications behind FastCGI 1.0, such as PHP, and ASP.NET pages behind Mono's FastCGI server.

mod app;
mod authorizer;
pub mod codec;
mod connection;
mod output;
mod request;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use wharf_kernel::launch::{Description, Kind, Launched, Launcher, Plan};
use wharf_kernel::options::FastCgiOptions;
use wharf_kernel::refusal::Code;
use wharf_kernel::{Endpoint, Exchange, Lease, Refusal, ResponseFuture};

use self::app::App;
use crate::generation::Generation;
use crate::program;
use crate::program::request::begin;
use crate::program::runtime::Threads;

/// Launches applications behind FastCGI.
#[derive(Debug)]
pub struct FastCgi {
    threads: Threads,
}

impl Default for FastCgi {
    fn default() -> Self {
        Self { threads: Threads::new("wharf-fastcgi") }
    }
}

impl Launcher for FastCgi {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        program::check_root(plan)?;
        let options = options(plan);
        let bad =
            |what: String| Refusal::new(Code::BadAppToml, format!("[fastcgi] {what}")).fix("correct the key named");
        options.check().map_err(bad)?;
        let folders = options.sendfile_roots.iter().chain(options.accel_redirects.values());
        program::check_send_folders(base(plan), folders).map_err(bad)?;
        Ok(program::describe(plan))
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let runtime = self.threads.handle()?;
        let app = Arc::new(App::open(plan, options(plan), base(plan), &runtime)?);
        let endpoint = Arc::new(Application { app: app.clone(), runtime });
        Ok(Generation::new(description, endpoint, move || app.stop()))
    }
}

fn options(plan: &Plan) -> FastCgiOptions {
    let options = plan.options.fastcgi.clone().unwrap_or_default();
    if plan.kind == Kind::Aspnet { options.for_aspnet() } else { options }
}

/// Where relative paths of the options begin.
fn base(plan: &Plan) -> &Path {
    plan.folder.as_ref().map_or(&plan.source, |folder: &PathBuf| folder)
}

/// The endpoint of an application.
struct Application {
    app: Arc<App>,
    runtime: Handle,
}

impl Endpoint for Application {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        // A connection that is kept must outlive the thread that it was opened on; one for a single request need not, and no thread has to
        // be woken for it.
        match Handle::try_current() {
            Ok(here) if self.app.options.keep_connections() == 0 => begin(self.app.clone(), &here, exchange, lease),
            _ => begin(self.app.clone(), &self.runtime, exchange, lease),
        }
    }

    fn take_own_time(&self) -> Duration {
        self.app.take_time()
    }
}
