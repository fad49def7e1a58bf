//! Finds application crates and builds them, for `wharf dev`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{CrateType, Message, Metadata, MetadataCommand, PackageId};

/// The application crates of one cargo workspace.
pub(crate) struct Workspace {
    /// Root of the workspace.
    pub(crate) root: PathBuf,
    /// Names of the packages, by id.
    pub(crate) packages: BTreeMap<PackageId, String>,
    /// Folders of those packages and of all local packages that they depend on.
    pub(crate) sources: BTreeSet<PathBuf>,
}

/// What a build gave.
pub(crate) struct Built {
    /// Whether cargo was content.
    pub(crate) success: bool,
    /// The modules, by package name.
    pub(crate) modules: BTreeMap<String, PathBuf>,
}

/// Finds the application crates under the paths: packages with a `cdylib` target that depend on `wharf-sdk`.
///
/// `others` says that there is something to serve beside them.
///
/// # Errors
/// What cargo said, or that nothing was found.
pub(crate) fn discover(paths: &[PathBuf], others: bool) -> Result<Vec<Workspace>, String> {
    let mut by_root: BTreeMap<PathBuf, (Metadata, BTreeMap<PackageId, String>)> = BTreeMap::new();
    for path in paths {
        let path = fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut known: HashSet<PathBuf> = HashSet::new();
        for manifest in manifests(&path, 4) {
            if known.contains(&manifest) {
                continue;
            }
            let metadata = MetadataCommand::new().manifest_path(&manifest).exec().map_err(|e| e.to_string())?;
            let mut found = BTreeMap::new();
            for package in metadata.workspace_packages() {
                let own = package.manifest_path.as_std_path();
                known.insert(own.to_owned());
                let module = package.targets.iter().any(|t| t.crate_types.contains(&CrateType::CDyLib));
                let sdk = package.dependencies.iter().any(|d| d.name == "wharf-sdk");
                if own.starts_with(&path) && module && sdk {
                    found.insert(package.id.clone(), package.name.to_string());
                }
            }
            let root = metadata.workspace_root.clone().into_std_path_buf();
            by_root.entry(root).or_insert_with(|| (metadata, BTreeMap::new())).1.extend(found);
        }
    }
    let workspaces: Vec<Workspace> = by_root
        .into_iter()
        .filter(|(_, (_, packages))| !packages.is_empty())
        .map(|(root, (metadata, packages))| Workspace { root, sources: sources(&metadata, &packages), packages })
        .collect();
    if workspaces.is_empty() && !others {
        let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        return Err(format!(
            "no application crate under {}: one has crate-type = [\"cdylib\"] and depends on wharf-sdk; 'wharf new NAME' makes one; and no folder with an app.toml",
            paths.join(", ")
        ));
    }
    let mut names = HashSet::new();
    for name in workspaces.iter().flat_map(|w| w.packages.values()) {
        if !names.insert(name) {
            return Err(format!("two packages are called '{name}'"));
        }
    }
    Ok(workspaces)
}

fn manifests(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let own = dir.join("Cargo.toml");
    if own.is_file() {
        all.push(own);
    }
    if depth > 0 {
        all.extend(source_folders(dir).iter().flat_map(|d| manifests(d, depth - 1)));
    }
    all
}

/// The folders in `dir` that can have sources: not hidden ones, and not `target`.
pub(crate) fn source_folders(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|e| {
            let entry = e.ok()?;
            let name = entry.file_name();
            let skipped = name == "target" || name.as_encoded_bytes().starts_with(b".");
            (!skipped && entry.file_type().ok()?.is_dir()).then(|| entry.path())
        })
        .collect();
    all.sort();
    all
}

fn sources(metadata: &Metadata, packages: &BTreeMap<PackageId, String>) -> BTreeSet<PathBuf> {
    let nodes: HashMap<&PackageId, _> =
        metadata.resolve.iter().flat_map(|r| &r.nodes).map(|n| (&n.id, &n.dependencies)).collect();
    let mut folders = BTreeSet::new();
    let mut seen: HashSet<&PackageId> = HashSet::new();
    let mut queue: Vec<&PackageId> = packages.keys().collect();
    while let Some(id) = queue.pop() {
        if !seen.insert(id) {
            continue;
        }
        let local = metadata.packages.iter().find(|p| p.id == *id && p.source.is_none());
        if let Some(folder) = local.and_then(|p| p.manifest_path.parent()) {
            folders.insert(folder.as_std_path().to_owned());
            queue.extend(nodes.get(id).into_iter().flat_map(|d| d.iter()));
        }
    }
    folders
}

/// Builds the packages of a workspace in one run of cargo. Compile errors go to standard error as cargo writes them; what
/// can be built is built.
///
/// # Errors
/// When cargo can't be started.
pub(crate) fn build(workspace: &Workspace, release: bool) -> Result<Built, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root);
    command.args(["build", "--lib", "--keep-going", "--message-format=json-render-diagnostics"]);
    if release {
        command.arg("--release");
    }
    for name in workspace.packages.values() {
        command.args(["--package", name]);
    }
    let failed = |e: std::io::Error| format!("cargo could not be run: {e}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut modules = BTreeMap::new();
    if let Some(out) = child.stdout.take() {
        for message in Message::parse_stream(BufReader::new(out)) {
            if let Message::CompilerArtifact(artifact) = message.map_err(failed)?
                && let Some(name) = workspace.packages.get(&artifact.package_id)
                && let Some(file) = artifact.filenames.iter().find(|f| f.extension() == Some("so"))
            {
                modules.insert(name.clone(), file.clone().into_std_path_buf());
            }
        }
    }
    let success = child.wait().map_err(failed)?.success();
    Ok(Built { success, modules })
}

/// Copies a module into the deploy folder as `NAME.so`, unless that content is there: written under another name and
/// renamed, so that it appears whole. Says whether it was copied.
///
/// # Errors
/// Those of the file system.
pub(crate) fn install(module: &Path, dir: &Path, name: &str) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let content = fs::read(module)?;
    let target = dir.join(format!("{name}.so"));
    if fs::read(&target).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let temporary = tempfile::Builder::new()
        .prefix(".dev-")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    fs::write(temporary.path(), content)?;
    temporary.persist(target)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_is_installed_once() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("libx.so");
        fs::write(&module, "1").unwrap();
        assert!(install(&module, dir.path(), "x").unwrap());
        assert!(!install(&module, dir.path(), "x").unwrap());
        fs::write(&module, "2").unwrap();
        assert!(install(&module, dir.path(), "x").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("x.so")).unwrap(), "2");
    }

    #[test]
    fn a_folder_without_crates_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = discover(&[dir.path().to_owned()], false).err().unwrap();
        assert!(error.contains("no application crate") && error.contains("wharf new"), "{error}");
    }

    #[test]
    fn target_and_hidden_folders_are_no_sources() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["src", "target", ".git", "templates"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> = source_folders(dir.path()).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["src", "templates"]);
    }
}
