//! `wharf dev PATH…`: build, deploy, run, watch, build again.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use wharf_deployer::DeployerHandle;
use wharf_kernel::admin::{AppState, Operations};

use crate::cli::{DevArgs, Global};
use crate::dev_build::{self, Workspace};
use crate::dev_folders;
use crate::failure::Failure;
use crate::run::{OnReady, Running, announce};
use crate::{compose, local_certificate, settings_load};

/// No change for this long: the editor has written all it wants to.
const QUIET: Duration = Duration::from_millis(100);

/// Runs it until it is told to stop.
pub(crate) fn dev(global: &Global, args: &DevArgs) -> Result<ExitCode, Failure> {
    let mut settings = settings_load::load(global)?.settings;
    let dir = settings.state_dir.join("dev");
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", dir.display()));
    let socket = settings.admin_socket();
    if UnixStream::connect(&socket).is_ok() {
        return Err(Failure::failed(format!(
            "a container runs here already (it answers on {}); stop it first, or give this one another --set state_dir=PATH",
            socket.display()
        )));
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(failed)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
    if args.tls {
        local_certificate::use_it(&mut settings).map_err(Failure::failed)?;
    }
    let dir = fs::canonicalize(&dir).map_err(failed)?;
    let folders = dev_folders::find(&args.paths);
    let workspaces = dev_build::discover(&args.paths, !folders.is_empty()).map_err(Failure::failed)?;
    let builder = Builder {
        release: args.release || default_release(&workspaces),
        dir: dir.clone(),
        paths: args.paths.clone(),
        workspaces,
        folders,
    };
    // Watching begins before the first build: a change during it must not be lost.
    let (watcher, changes) = watch(&builder.workspaces, &builder.folders)?;
    builder.build()?;
    settings.deploy.dir = dir;
    settings.deploy.keep_versions = 0;
    settings.host.clear();
    settings.default_databases = Some(settings.state_dir.join("databases"));
    let ready: OnReady = Box::new(move |running| {
        announce(&running);
        print_apps(&running);
        let deployer = running.deployer;
        let spawned =
            thread::Builder::new().name("dev".into()).spawn(move || rebuild(builder, watcher, &changes, &deployer));
        if let Err(error) = spawned {
            eprintln!("sources are not watched: {error}");
        }
    });
    compose::run(settings, ready).map_err(Failure::failed)
}

/// The profile this program was built with, when the applications are of its own workspace: its build is used again then.
fn default_release(workspaces: &[Workspace]) -> bool {
    let exe = std::env::current_exe().unwrap_or_default();
    !cfg!(debug_assertions) && workspaces.iter().any(|w| exe.starts_with(w.root.join("target/release")))
}

struct Builder {
    release: bool,
    dir: PathBuf,
    paths: Vec<PathBuf>,
    workspaces: Vec<Workspace>,
    folders: Vec<PathBuf>,
}

impl Builder {
    /// Builds everything and installs what is new; gives the names of what was installed.
    fn build(&self) -> Result<Vec<String>, Failure> {
        let mut installed = Vec::new();
        for folder in &self.folders {
            let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", folder.display()));
            if dev_folders::install(folder, &self.dir).map_err(failed)? {
                installed.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        for workspace in &self.workspaces {
            let built = dev_build::build(workspace, self.release).map_err(Failure::failed)?;
            for (name, module) in &built.modules {
                if dev_build::install(module, &self.dir, name).map_err(Failure::failed)? {
                    installed.push(name.clone());
                }
            }
            if !built.success {
                eprintln!("the build failed; what was built before goes on serving. Waiting for a change.");
            }
        }
        Ok(installed)
    }
}

fn watch(workspaces: &[Workspace], folders: &[PathBuf]) -> Result<(RecommendedWatcher, Receiver<()>), Failure> {
    let (sender, receiver) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| !e.kind.is_access() && e.paths.iter().any(|p| is_source(p))) {
            let _ = sender.send(());
        }
    })
    .map_err(Failure::failed)?;
    for folder in workspaces.iter().flat_map(|w| &w.sources).chain(folders) {
        // Folder by folder, so that nothing in target/ is watched.
        let watched = watcher.watch(folder, RecursiveMode::NonRecursive).and_then(|()| {
            dev_build::source_folders(folder).iter().try_for_each(|sub| watcher.watch(sub, RecursiveMode::Recursive))
        });
        watched.map_err(|e| Failure::failed(format!("can't watch {}: {e}", folder.display())))?;
    }
    Ok((watcher, receiver))
}

/// Whether a changed file can matter for a build.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let editor = name.starts_with('.') || name.ends_with('~') || name.ends_with(".swp") || name == "4913";
    // Our own output may go to a log file in the package.
    let generated = name == "Cargo.lock" || name == "target" || name.ends_with(".log");
    !editor && !generated && !path.components().any(|c| c.as_os_str() == "target" || c.as_os_str() == ".git")
}

fn rebuild(mut builder: Builder, mut watcher: RecommendedWatcher, changes: &Receiver<()>, deployer: &DeployerHandle) {
    let mut later = None;
    loop {
        let changes = later.as_ref().unwrap_or(changes);
        if changes.recv().is_err() {
            return;
        }
        while changes.recv_timeout(QUIET).is_ok() {}
        let began = Instant::now();
        println!("a source changed: building");
        match builder.build() {
            Err(failure) => {
                failure.report(false);
            }
            Ok(installed) => {
                deployer.wait_settled(Duration::from_secs(60));
                let names: HashSet<&String> = installed.iter().collect();
                for app in deployer.list().iter().filter(|a| names.contains(&a.name)) {
                    match &app.error {
                        Some(error) => eprintln!("{}: {error}", app.name),
                        None => println!("{}: redeployed after {:.1} s", app.name, began.elapsed().as_secs_f64()),
                    }
                }
            }
        }
        // The change may have brought new folders or dependencies.
        let folders = dev_folders::find(&builder.paths);
        if let Ok(workspaces) = dev_build::discover(&builder.paths, !folders.is_empty()) {
            let sources = |w: &[Workspace]| w.iter().flat_map(|w| w.sources.clone()).collect::<HashSet<_>>();
            if (sources(&workspaces) != sources(&builder.workspaces) || folders != builder.folders)
                && let Ok((new, receiver)) = watch(&workspaces, &folders)
            {
                watcher = new;
                later = Some(receiver);
            }
            (builder.workspaces, builder.folders) = (workspaces, folders);
        }
        let _ = &watcher;
    }
}

fn print_apps(running: &Running) {
    let base = running.urls.first().map_or("", String::as_str);
    for app in running.deployer.list() {
        match (app.state, &app.error) {
            (AppState::Serving, _) => {
                let path = if app.context_path == "/" { String::new() } else { app.context_path.clone() };
                println!("  {}: {base}{path}/", app.name);
            }
            (_, Some(error)) => eprintln!("  {}: {error}", app.name),
            (state, None) => println!("  {}: {state:?}", app.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_cause_a_build() {
        for (path, source) in [
            ("/a/src/lib.rs", true),
            ("/a/Cargo.toml", true),
            ("/a/templates/x.html", true),
            ("/a/Cargo.lock", false),
            ("/a/target/debug/x", false),
            ("/a/src/.lib.rs.swp", false),
            ("/a/src/lib.rs~", false),
            ("/a/.git/index", false),
            ("/a/dev.log", false),
        ] {
            assert_eq!(is_source(Path::new(path)), source, "{path}");
        }
    }
}
