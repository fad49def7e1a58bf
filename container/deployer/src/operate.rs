//! What the admin API asks for, done one after the other on the deployer's thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{SystemTime, UNIX_EPOCH};

use wharf_kernel::admin::{AppState, AppStatus, Load, OperationError};
use wharf_kernel::launch::Kind;

use crate::app::App;
use crate::deployer::{Deployer, Operation};
use crate::keep::Kept;

type Reply = SyncSender<Result<AppStatus, OperationError>>;

fn failed(what: &Path, error: &io::Error) -> OperationError {
    OperationError::Failed(format!("{}: {error}", what.display()))
}

impl Deployer {
    /// Does it. The answer comes at once, or when the application has settled.
    pub(crate) fn operate(&mut self, operation: Operation, reply: Reply) {
        let done = match operation {
            _ if self.is_shutting_down() => Err(OperationError::Conflict("the container is stopping".into())),
            Operation::Install { name, file } => self.install(&name, file).map(|()| (name, true)),
            Operation::Undeploy { name } => self.find(&name).and_then(|name| self.undeploy(&name, &reply)),
            Operation::Start { name } => self.find(&name).map(|name| {
                self.restart(&name);
                (name, true)
            }),
            Operation::Stop { name } => self.find(&name).map(|name| {
                self.stop(&name);
                (name, false)
            }),
            Operation::Reload { name } => self.find(&name).and_then(|name| {
                let app = self.apps.get_mut(&name).filter(|a| !a.stopped);
                let app =
                    app.ok_or_else(|| OperationError::Conflict(format!("'{name}' is stopped; start it instead")))?;
                app.force = true;
                Ok((name, true))
            }),
            Operation::Rollback { name } => {
                self.find(&name).and_then(|name| self.rollback(&name).map(|()| (name, true)))
            }
        };
        match done {
            Ok((name, true)) => self.waiters.push((name, reply)),
            Ok((name, false)) => {
                if let Some(app) = self.apps.get(&name) {
                    let _ = reply.send(Ok(self.status(&name, app)));
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// The application by its name, or by its id as printed (`/shop##2`).
    fn find(&self, name: &str) -> Result<String, OperationError> {
        if self.apps.contains_key(name) {
            return Ok(name.to_owned());
        }
        let by_id = self.apps.iter().find(|(_, a)| a.spec().is_some_and(|s| s.id.to_string() == name));
        by_id.map(|(n, _)| n.clone()).ok_or_else(|| OperationError::NotFound(name.to_owned()))
    }

    fn install(&mut self, name: &str, file: tempfile::NamedTempFile) -> Result<(), OperationError> {
        let target = match self.apps.get(name).and_then(|a| a.source.as_ref()) {
            Some(source) if source.path.is_dir() => {
                return Err(OperationError::Conflict(format!("'{name}' is a folder: replace its files instead")));
            }
            Some(source) => source.path.clone(),
            None => self.config.roots[0].dir.join(format!("{name}.so")),
        };
        file.persist(&target).map_err(|e| failed(&target, &e.error))?;
        self.closed.insert(target);
        if let Some(app) = self.apps.get_mut(name) {
            app.stopped = false;
            app.error = None;
        }
        self.scan();
        Ok(())
    }

    fn undeploy(&mut self, name: &str, reply: &Reply) -> Result<(String, bool), OperationError> {
        let Some(source) = self.apps.get(name).and_then(|a| a.source.clone()) else {
            return Err(OperationError::NotFound(name.to_owned()));
        };
        if source.path.is_dir() {
            // A folder is somebody's work: it is put out of the way, not deleted.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let file_name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let aside = source.path.with_file_name(format!(".{file_name}.undeployed-{now}"));
            fs::rename(&source.path, &aside).map_err(|e| failed(&source.path, &e))?;
            tracing::info!(name, folder = %aside.display(), "undeployed; the folder was renamed");
        } else {
            for file in &source.files {
                match fs::remove_file(file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(file, &error)),
                    _ => {}
                }
            }
        }
        self.scan();
        let status = self.apps.get(name).map(|app| self.status(name, app));
        // The routes are gone before the answer is given.
        self.reconcile();
        if let Some(status) = status {
            let _ = reply.send(Ok(status));
        }
        Ok((name.to_owned(), false))
    }

    fn restart(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name)
            && (app.stopped || app.serving.is_none())
        {
            app.stopped = false;
            app.error = None;
            app.force = true;
        }
    }

    fn stop(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.stopped = true;
        app.error = None;
        let serving = app.serving.take();
        self.swap();
        if let Some(generation) = serving {
            self.retire(generation);
        }
    }

    /// Puts an earlier file back: the one that serves, when the newest was refused; else the one before it.
    fn rollback(&mut self, name: &str) -> Result<(), OperationError> {
        let none = || OperationError::Conflict(format!("no earlier file of '{name}' is kept"));
        let app = self.apps.get(name).ok_or_else(none)?;
        let source = app.source.clone().ok_or_else(none)?;
        if source.path.is_dir() {
            return Err(OperationError::Conflict(format!(
                "'{name}' is a folder: only single files can be rolled back"
            )));
        }
        let kept = Kept::new(&self.config.state_dir, name);
        let copy = match (app.serving.as_ref().and_then(|g| g.copy), &app.error) {
            (Some(number), Some(_)) => kept.get(number),
            (Some(number), None) => kept.before(number),
            (None, _) => kept.list().pop(),
        };
        let copy = copy.ok_or_else(none)?;
        let temporary = temporary_beside(&source.path).map_err(|e| failed(&source.path, &e))?;
        fs::copy(&copy.path, temporary.path()).map_err(|e| failed(&copy.path, &e))?;
        kept.mark_rollback(&copy.sha256).map_err(|e| failed(&copy.path, &e))?;
        tracing::info!(name, sha256 = copy.sha256, "rolling back");
        self.install(name, temporary)
    }

    pub(crate) fn statuses(&self) -> Vec<AppStatus> {
        let mut all: Vec<AppStatus> = self.apps.iter().map(|(name, app)| self.status(name, app)).collect();
        for generation in &self.leaving {
            if !self.apps.contains_key(&generation.name) && !all.iter().any(|s| s.name == generation.name) {
                all.push(AppStatus {
                    name: generation.name.clone(),
                    host: generation.id.host.to_string(),
                    context_path: generation.id.path.to_string(),
                    version: generation.id.version.to_string(),
                    kind: Kind::Module,
                    source: String::new(),
                    state: AppState::Removed,
                    error: None,
                    load: Load::default(),
                    generations: self.leaving_of(&generation.name),
                });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn leaving_of(&self, name: &str) -> Vec<wharf_kernel::admin::GenerationStatus> {
        let mut all: Vec<_> = self.leaving.iter().filter(|g| g.name == name).map(|g| g.status()).collect();
        all.sort_by_key(|g| std::cmp::Reverse(g.generation));
        all
    }

    pub(crate) fn status(&self, name: &str, app: &App) -> AppStatus {
        let id = app.serving.as_ref().map(|g| &g.id).or_else(|| app.spec().map(|s| &s.id));
        let mut generations: Vec<_> = app.pending.iter().map(|p| p.generation.status()).collect();
        generations.extend(app.serving.iter().map(|g| g.status()));
        generations.extend(self.leaving_of(name));
        let state = if app.source.is_none() {
            AppState::Removed
        } else if app.stopped {
            AppState::Stopped
        } else if app.serving.is_some() {
            AppState::Serving
        } else if app.superseded {
            AppState::Superseded
        } else if !app.may_serve() {
            AppState::Disabled
        } else if app.error.is_some() && app.pending.is_none() {
            AppState::Failed
        } else {
            AppState::Starting
        };
        AppStatus {
            name: name.to_owned(),
            host: id.map(|i| i.host.to_string()).unwrap_or_default(),
            context_path: id.map(|i| i.path.to_string()).unwrap_or_default(),
            version: id.map(|i| i.version.to_string()).unwrap_or_default(),
            kind: app.spec().map_or(Kind::Module, |s| s.kind.clone()),
            source: app.source.as_ref().map(|s| s.path.display().to_string()).unwrap_or_default(),
            state,
            error: app.error.clone(),
            load: id.and_then(|id| self.counters.get(id)).map(|c| Load::of(c)).unwrap_or_default(),
            generations,
        }
    }
}

/// A temporary file in the folder of `path`, by a name that is never looked at, readable as deployed files are.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let dir: PathBuf = path.parent().unwrap_or(Path::new(".")).to_owned();
    tempfile::Builder::new()
        .prefix(".upload-")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)
}
