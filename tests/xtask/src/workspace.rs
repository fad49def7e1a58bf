//! The crates of the workspace, as far as the laws speak of them.

use std::path::PathBuf;

use cargo_metadata::{DependencyKind, MetadataCommand, Package, TargetKind};

/// The workspace.
pub(crate) struct Workspace {
    /// Its root folder.
    pub(crate) root: PathBuf,
    /// Its members.
    pub(crate) crates: Vec<Crate>,
}

/// A member of the workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crate {
    /// Package name.
    pub(crate) name: String,
    /// Folder, relative to the root of the workspace, with forward slashes.
    pub(crate) folder: String,
    /// Crates that the library or the program itself imports.
    pub(crate) imports: Vec<String>,
    /// Crates that only tests, examples and the build script import.
    pub(crate) dev_imports: Vec<String>,
    /// Root files of its library and its programs, relative to the root of the workspace.
    pub(crate) roots: Vec<String>,
}

impl Crate {
    /// Everything it imports, whatever for.
    pub(crate) fn all_imports(&self) -> impl Iterator<Item = &str> {
        self.imports.iter().chain(&self.dev_imports).map(String::as_str)
    }

    /// Whether it lies in this folder or below.
    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.folder.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo fails, with its words.
    pub(crate) fn read() -> Result<Self, String> {
        let metadata = MetadataCommand::new().no_deps().exec().map_err(|e| format!("cargo metadata: {e}"))?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let crates = metadata.workspace_packages().into_iter().map(|p| member(p, metadata.workspace_root.as_str()));
        Ok(Self { root, crates: crates.collect() })
    }
}

fn member(package: &Package, root: &str) -> Crate {
    let relative = |path: &str| path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').to_owned();
    let (normal, dev): (Vec<_>, Vec<_>) = package.dependencies.iter().partition(|d| d.kind == DependencyKind::Normal);
    let names = |all: Vec<&cargo_metadata::Dependency>| all.into_iter().map(|d| d.name.clone()).collect();
    let is_product = |kind: &TargetKind| {
        matches!(
            kind,
            TargetKind::Bin | TargetKind::Lib | TargetKind::RLib | TargetKind::CDyLib | TargetKind::ProcMacro
        )
    };
    Crate {
        name: package.name.to_string(),
        folder: package.manifest_path.parent().map(|f| relative(f.as_str())).unwrap_or_default(),
        imports: names(normal),
        dev_imports: names(dev),
        roots: package
            .targets
            .iter()
            .filter(|t| t.kind.iter().any(is_product))
            .map(|t| relative(t.src_path.as_str()))
            .collect(),
    }
}
