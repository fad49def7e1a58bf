//! What CGI and FastCGI share: a request's way to a program and the answer's way back. Only how the program is reached differs.

use std::path::{Path, PathBuf};

use wharf_kernel::Refusal;
use wharf_kernel::launch::{Description, Plan};
use wharf_kernel::refusal::Code;

pub(crate) mod errors;
pub(crate) mod input;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod runtime;
pub(crate) mod send_file;
pub(crate) mod slots;
pub(crate) mod talk;
pub(crate) mod times;

/// Checks that the document root is a folder.
pub(crate) fn check_root(plan: &Plan) -> Result<(), Refusal> {
    let refuse = |code, what: String| Refusal::new(code, format!("{}: {what}", plan.source.display()));
    let metadata = std::fs::metadata(&plan.source).map_err(|e| refuse(Code::Unreadable, e.to_string()))?;
    if metadata.is_dir() { Ok(()) } else { Err(refuse(Code::NotRegular, "not a folder".into())) }
}

/// Checks the folders, relative to `base`, that answers may have files sent from.
pub(crate) fn check_send_folders<'a>(
    base: &Path,
    mut folders: impl Iterator<Item = &'a PathBuf>,
) -> Result<(), String> {
    match folders.find(|folder| !base.join(folder).is_dir()) {
        Some(folder) => Err(format!("sendfile_roots, accel_redirects: {} is not a folder", folder.display())),
        None => Ok(()),
    }
}

/// What is known of such an application: the name of its folder.
pub(crate) fn describe(plan: &Plan) -> Description {
    let folder = plan.folder.as_deref().unwrap_or(&plan.source);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Description { name, ..Description::default() }
}
