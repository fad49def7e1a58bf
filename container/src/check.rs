//! `wharf check FILE`: would the container take this module?

use std::process::ExitCode;

use wharf_kernel::launch::{Kind, Plan};
use wharf_kernel::{AppId, ContextPath, Version};

use crate::cli::{CheckArgs, Global};
use crate::failure::Failure;
use crate::{out, settings_load};

/// Looks at the file; with `--load` it is loaded, started and stopped in a child process too.
pub(crate) fn check(global: &Global, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let description = wharf_module::probe(&args.file).map_err(Failure::refused)?;
    let mut servlets = None;
    if args.load {
        let deploy = settings_load::load(global)?.settings.deploy;
        let copies = tempfile::tempdir().map_err(Failure::failed)?;
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let id = AppId {
            host: "default".into(),
            path: ContextPath::parse("/check").map_err(Failure::failed)?,
            version: Version::default(),
        };
        let plan = Plan {
            id,
            kind: Kind::Module,
            source: args.file.clone(),
            folder: None,
            init: std::collections::BTreeMap::new(),
            generation: 1,
            trial_timeout: deploy.trial_timeout,
            start_timeout: deploy.start_timeout,
            stop_timeout: deploy.stop_timeout,
            runtime_threads: deploy.runtime_threads,
            blocking_threads: deploy.blocking_threads,
            options: std::sync::Arc::default(),
        };
        servlets = Some(wharf_module::trial::run(&program, copies.path(), &plan).map_err(Failure::refused)?);
    }
    if global.json {
        out::print_line(format_args!("{:#}", serde_json::json!({ "description": description, "servlets": servlets })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{}: a Wharf module\n", args.file.display());
    for (key, value) in [
        ("name", description.name),
        ("version", description.version),
        ("sdk", description.sdk),
        ("abi", description.abi),
        ("compiler", description.rustc),
        ("sha256", description.sha256),
        ("size", format!("{} bytes", description.size)),
    ] {
        text.push_str(&format!("  {key:<9} {value}\n"));
    }
    for servlet in servlets.iter().flatten() {
        text.push_str(&format!("  servlet   {} {}\n", servlet.name, servlet.patterns.join(" ")));
    }
    if servlets.is_none() {
        text.push_str("it was not loaded; 'wharf check --load' tries that in a process of its own\n");
    }
    out::print(text)?;
    Ok(ExitCode::SUCCESS)
}
