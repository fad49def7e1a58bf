//! Runs folders of CGI programs.

mod app;
mod errors;
mod input;
mod process;
mod request;
mod send_file;
mod talk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::options::CgiOptions;
use wharf_kernel::refusal::Code;
use wharf_kernel::{Endpoint, Exchange, Refusal, ResponseFuture};

use self::app::App;
use crate::generation::Generation;

/// Launches folders of CGI programs.
///
/// All their requests are served on a runtime of its own, made with the first application: to start a program blocks the
/// thread that does it for a millisecond, which a thread with many connections must not be.
#[derive(Debug, Default)]
pub struct Cgi {
    runtime: OnceLock<Owned>,
}

#[derive(Debug)]
struct Owned(Option<Runtime>);

impl Drop for Owned {
    fn drop(&mut self) {
        // Never waits: the programs were ended with their applications.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cgi {
    fn runtime(&self) -> Result<Handle, Refusal> {
        if self.runtime.get().is_none() {
            let threads = std::thread::available_parallelism().map_or(4, usize::from).max(4);
            let made =
                Builder::new_multi_thread().worker_threads(threads).thread_name("wharf-cgi").enable_all().build();
            let made = made.map_err(|e| Refusal::new(Code::StartFailed, format!("the threads for CGI: {e}")))?;
            // Another may have been first; this one ends then.
            let _ = self.runtime.set(Owned(Some(made)));
        }
        let made = self.runtime.get().and_then(|r| r.0.as_ref()).map(|r| r.handle().clone());
        made.ok_or_else(|| Refusal::new(Code::StartFailed, "the threads for CGI are gone"))
    }
}

impl Launcher for Cgi {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        let refuse = |code, what: String| Refusal::new(code, format!("{}: {what}", plan.source.display()));
        let metadata = std::fs::metadata(&plan.source).map_err(|e| refuse(Code::Unreadable, e.to_string()))?;
        if !metadata.is_dir() {
            return Err(refuse(Code::NotRegular, "not a folder".into()));
        }
        let options = options(plan);
        let bad = |what: String| Refusal::new(Code::BadAppToml, format!("[cgi] {what}")).fix("correct the key named");
        options.check().map_err(bad)?;
        if let Some(program) = &options.program {
            process::check_program(&base(plan).join(program))
                .map_err(|what| bad(format!("program: {}: {what}", program.display())))?;
        }
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
        let runtime = self.runtime()?;
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
    fn call(&self, exchange: Exchange) -> ResponseFuture {
        request::begin(self.app.clone(), &self.runtime, exchange)
    }
}
