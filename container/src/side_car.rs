//! The TOML file of an application that a command looks at: beside a module, in a folder, or alone.

use std::path::{Path, PathBuf};

pub(crate) use wharf_deployer::app_toml::AppToml;
use wharf_deployer::app_toml::Place;
use wharf_kernel::launch::Kind;

use crate::failure::Failure;

/// The side-car file beside `module`, if there is one.
pub(crate) fn read(module: &Path) -> Result<Option<(PathBuf, AppToml)>, Failure> {
    let path = module.with_extension("toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
    };
    let toml = AppToml::parse(&path.display().to_string(), &text, Place::SideCar).map_err(Failure::usage)?;
    Ok(Some((path, toml)))
}

/// An application that is no module alone.
pub(crate) struct Described {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its TOML file, and what that says.
    pub(crate) toml: (PathBuf, AppToml),
    /// Of kind `module`: the module.
    pub(crate) module: Option<PathBuf>,
}

/// Reads `app.toml` of a folder, or a TOML file that is an application by itself. `None` for whatever is neither.
pub(crate) fn described(path: &Path) -> Result<Option<Described>, Failure> {
    let (file, place) = if path.is_dir() {
        (path.join("app.toml"), Place::Folder)
    } else if path.extension().is_some_and(|e| e == "toml") {
        (path.to_owned(), Place::Alone)
    } else {
        return Ok(None);
    };
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(&file).map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    let toml = AppToml::parse(&shown, &text, place).map_err(Failure::usage)?;
    let bad = |what: String| Failure::usage(format!("{shown}: {what}"));
    let kind = toml.kind.clone().ok_or_else(|| bad("there is no 'kind'".into()))?;
    let module = match (&kind, &toml.module) {
        (Kind::Module, Some(module)) => Some(path.join(module)),
        (Kind::Module, None) => Some(wharf_deployer::only_module(path).map_err(bad)?),
        _ => None,
    };
    Ok(Some(Described { kind, toml: (file, toml), module }))
}
