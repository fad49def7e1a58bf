//! The side-car file beside a module that a command looks at.

use std::path::{Path, PathBuf};

pub(crate) use wharf_deployer::app_toml::AppToml;
use wharf_deployer::app_toml::Place;

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
