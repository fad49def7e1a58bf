//! Runs modules: admission, private copy, load, start; each in time or not at all.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wharf_kernel::AppId;
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::refusal::{Code, Refusal};
use wharf_kernel::resource::{BadNeed, BindError, BoundResources, Need, Resources};
use wharf_kernel::session::SessionManagers;
use wharf_kernel::workers::Workers;

use crate::generation::Generation;
use crate::loaded::{Failed, Loaded, Made, on_short_lived_thread};
use crate::resident::Frugal;
use crate::{probe, trial};

/// Where a [`ModuleLauncher`] works.
#[derive(Clone)]
pub struct ModuleConfig {
    /// Folder for private copies and verdicts; made when it is not there, only for its owner.
    pub state_dir: PathBuf,
    /// The program that does the trial load when called with [`trial::COMMAND`]: the container's own.
    pub trial_program: PathBuf,
    /// The sessions of the applications; without them, there are none.
    pub sessions: Option<Arc<dyn SessionManagers>>,
    /// The resources of the applications.
    pub resources: Arc<dyn Resources>,
}

/// Runs compiled modules.
pub struct ModuleLauncher {
    config: ModuleConfig,
    workers: Arc<dyn Workers>,
    /// Keys of the files that have passed the trial: by content, parameters and container.
    passed: Mutex<HashSet<String>>,
}

impl ModuleLauncher {
    /// A launcher. Removes the private copies that an earlier process left.
    ///
    /// # Errors
    /// When the folders can't be made.
    pub fn new(config: ModuleConfig, workers: Arc<dyn Workers>) -> std::io::Result<Self> {
        crate::interpose::keep();
        let copies = copies(&config.state_dir);
        let _ = fs::remove_dir_all(&copies);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true);
        builder.create(&copies)?;
        builder.create(config.state_dir.join("verdicts"))?;
        // The dynamic linker compares names: they must be what it prints.
        let state_dir = config.state_dir.canonicalize()?;
        Ok(Self { config: ModuleConfig { state_dir, ..config }, workers, passed: Mutex::default() })
    }

    fn verdict_key(&self, plan: &Plan, description: &Description) -> String {
        let mut hash = Sha256::new();
        hash.update(concat!("wharf ", env!("CARGO_PKG_VERSION"), "\n"));
        hash.update(&description.sha256);
        hash.update(format!("{:?}{:?}{:?}", plan.id, plan.init, plan.folder));
        hash.update(plan.options.web.to_json());
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Whether everything that it needs is there.
    fn check_resources(&self, plan: &Plan, description: &Description) -> Result<(), Refusal> {
        let needs = needs(description)?;
        let checked = self.config.resources.check(&needs, &plan.options.resources);
        checked.map_err(|what| Refusal::new(Code::MissingResource, what))
    }

    fn bind(&self, plan: &Plan, description: &Description) -> Result<Option<Arc<dyn BoundResources>>, Refusal> {
        let needs = needs(description)?;
        if needs.is_empty() && plan.options.resources.is_empty() {
            return Ok(None);
        }
        let bound = self.config.resources.bind(&plan.id, plan.generation, &needs, &plan.options.resources);
        bound.map(Some).map_err(|error| match error {
            BindError::Missing(what) => Refusal::new(Code::MissingResource, what),
            BindError::Down(what) => Refusal::new(Code::ResourceDown, what),
        })
    }

    /// The trial in a child process, unless the same file has passed it before.
    fn admit(&self, plan: &Plan, description: &Description) -> Result<(), Refusal> {
        let key = self.verdict_key(plan, description);
        let known = |set: &Mutex<HashSet<String>>| set.lock().unwrap_or_else(PoisonError::into_inner).contains(&key);
        let file = self.config.state_dir.join("verdicts").join(&key);
        if known(&self.passed) || file.exists() {
            return Ok(());
        }
        trial::run(&self.config.trial_program, &copies(&self.config.state_dir), plan)?;
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        // Only a memory for the next start of the container.
        let _ = fs::write(file, b"");
        Ok(())
    }
}

/// What the descriptor says that it needs.
fn needs(description: &Description) -> Result<Vec<Need>, Refusal> {
    let parse = |text: &String| text.parse().map_err(|e: BadNeed| Refusal::new(Code::BadDescriptor, e.to_string()));
    description.resources.iter().map(parse).collect()
}

fn copies(state_dir: &Path) -> PathBuf {
    state_dir.join("generations")
}

/// Where the process with this id puts the private copy of a module.
pub(crate) fn copy_path(folder: &Path, plan: &Plan, pid: u32) -> PathBuf {
    let stem: String =
        plan.id.path.display().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    folder.join(format!("{}.{}.{}.so", stem.trim_start_matches('_'), plan.generation, pid))
}

/// Writes the private copy of a module: under a name that no generation had, and without the flag that would pin it.
pub(crate) fn write_copy(folder: &Path, plan: &Plan, bytes: &mut [u8]) -> Result<(PathBuf, bool), Refusal> {
    let cleared = probe::clear_nodelete(bytes);
    let path = copy_path(folder, plan, std::process::id());
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o500).open(&path).and_then(|mut file| {
        use std::io::Write;
        file.write_all(bytes)
    });
    match written {
        Ok(()) => Ok((path, cleared)),
        Err(e) => {
            let _ = fs::remove_file(&path);
            Err(Refusal::new(Code::CopyFailed, format!("{}: {e}", path.display())))
        }
    }
}

/// A module that has been started, and what it made of itself.
pub(crate) type Started = Result<(Box<Loaded>, Made), Failed>;

/// Loads and starts the copy at `file`. What was loaded comes back with a refusal, for its caller to unload.
pub(crate) fn load_and_start(
    file: &Path,
    plan: &Plan,
    version: String,
    resources: Option<Arc<dyn BoundResources>>,
    trial: bool,
) -> Started {
    // SAFETY: a private copy that nobody writes to, checked by `probe`, and (unless this is it) by a trial.
    let mut loaded = Box::new(unsafe { Loaded::open(file, plan, version, resources, trial) }?);
    match loaded.start(plan, trial) {
        Ok(made) => Ok((loaded, made)),
        Err(refusal) => Err(Failed { refusal, loaded: Some(loaded) }),
    }
}

impl Launcher for ModuleLauncher {
    fn undeployed(&self, id: &AppId) {
        if let Some(sessions) = &self.config.sessions {
            sessions.undeployed(id);
        }
    }

    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        let description = probe::read(&plan.source)?.description;
        self.check_resources(plan, &description)?;
        self.admit(plan, &description)?;
        Ok(description)
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let _frugal = Frugal::begin();
        let mut probed = probe::read(&plan.source)?;
        // The file may be another one than `verify` saw: what is loaded is what was tried.
        self.admit(plan, &probed.description)?;
        let sessions = self.config.sessions.as_ref().map(|s| s.of(&plan.id, &plan.options.session)).transpose();
        let sessions = sessions.map_err(|what| Refusal::new(Code::BadAppToml, what))?;
        let resources = self.bind(plan, &probed.description)?;
        let (file, cleared) = write_copy(&copies(&self.config.state_dir), plan, &mut probed.bytes)?;
        // As large as the file, and done with.
        probed.bytes = Vec::new();
        if cleared {
            tracing::debug!(app = %plan.id, "cleared DF_1_NODELETE in the private copy");
        }
        if probed.descriptor.allocator == "own" {
            tracing::warn!(app = %plan.id, "brings its own allocator: what it forgets on its heap is not freed when it goes");
        }
        let description = probed.description;
        let load = {
            let (file, plan, version) = (file.clone(), plan.clone(), description.version.clone());
            move || load_and_start(&file, &plan, version, resources, false)
        };
        let timeout = plan.start_timeout;
        match on_short_lived_thread(format!("load-{}", plan.generation), timeout, load) {
            Ok(Ok((loaded, made))) => {
                let workers = self.workers.clone();
                let (stop, version) = (plan.stop_timeout, plan.id.version.as_str().into());
                let manager = sessions.clone();
                match Generation::new(*loaded, made, description, workers, stop, manager, version) {
                    Some(generation) => {
                        if let Some(sessions) = sessions {
                            sessions.attach(generation.session_events());
                        }
                        Ok(Arc::new(generation))
                    }
                    None => Err(Refusal::new(Code::NoRootModule, "it was loaded without an instance")),
                }
            }
            Ok(Err(Failed { refusal, loaded })) => {
                self.clean_up(loaded, &file, plan.stop_timeout, &plan.id.to_string());
                Err(refusal)
            }
            Err(Some(hanging)) => {
                self.clean_up_later(hanging, file, plan);
                let what = format!("no answer within {timeout:?}; its thread 'load-{}' goes on", plan.generation);
                Err(Refusal::new(Code::StartHung, what))
            }
            Err(None) => Err(Refusal::new(Code::LoadFailed, "no thread could be started to load it")),
        }
    }
}

impl ModuleLauncher {
    fn clean_up(&self, loaded: Option<Box<Loaded>>, file: &Path, timeout: Duration, app: &str) {
        clean_up(loaded, file, timeout, app, &*self.workers);
    }

    /// Waits, on a thread of its own, for a start that hangs, and cleans up after it if it ever ends.
    fn clean_up_later(&self, hanging: JoinHandle<Started>, file: PathBuf, plan: &Plan) {
        let (workers, timeout, app) = (self.workers.clone(), plan.stop_timeout, plan.id.to_string());
        let wait = move || {
            let Ok(result) = hanging.join() else { return };
            let loaded = match result {
                Ok((loaded, _)) => Some(loaded),
                Err(failed) => failed.loaded,
            };
            clean_up(loaded, &file, timeout, &app, &*workers);
        };
        let _ = std::thread::Builder::new().name(format!("reap-{}", plan.generation)).spawn(wait);
    }
}

fn clean_up(loaded: Option<Box<Loaded>>, file: &Path, timeout: Duration, app: &str, workers: &dyn Workers) {
    let Some(mut loaded) = loaded else {
        let _ = fs::remove_file(file);
        return;
    };
    let retirement = loaded.unload(workers, timeout);
    if !retirement.held_by.is_empty() {
        tracing::warn!(app, "after a failed start it stays mapped, held by {}", retirement.held_by.join(", "));
    }
}
