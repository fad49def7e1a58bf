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

use tokio::runtime::Handle;
use wharf_kernel::launch::{Description, Kind, Launched, Launcher, Plan};
use wharf_kernel::options::FastCgiOptions;
use wharf_kernel::refusal::Code;
use wharf_kernel::{Endpoint, Exchange, Refusal, ResponseFuture};

use self::app::App;
use crate::generation::Generation;
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
        let refuse = |code, what: String| Refusal::new(code, format!("{}: {what}", plan.source.display()));
        let metadata = std::fs::metadata(&plan.source).map_err(|e| refuse(Code::Unreadable, e.to_string()))?;
        if !metadata.is_dir() {
            return Err(refuse(Code::NotRegular, "not a folder".into()));
        }
        let options = options(plan);
        let bad =
            |what: String| Refusal::new(Code::BadAppToml, format!("[fastcgi] {what}")).fix("correct the key named");
        options.check().map_err(bad)?;
        for folder in options.sendfile_roots.iter().chain(options.accel_redirects.values()) {
            if !base(plan).join(folder).is_dir() {
                return Err(bad(format!("sendfile_roots, accel_redirects: {} is not a folder", folder.display())));
            }
        }
        let folder = plan.folder.as_deref().unwrap_or(&plan.source);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Description { name, ..Description::default() })
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
    fn call(&self, exchange: Exchange) -> ResponseFuture {
        begin(self.app.clone(), &self.runtime, exchange)
    }
}
