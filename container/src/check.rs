//! `wharf check FILE`: would the container take this module or folder, and what would it be made of?

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_kernel::launch::{Kind, Plan};
use wharf_kernel::{AppId, ContextPath, Version};

use crate::cli::{CheckArgs, Global};
use crate::failure::Failure;
use crate::side_car::Described;
use crate::{check_text, out, settings_load, side_car};

/// Looks at the file and the side-car file beside it; with `--load` it is loaded, started and stopped in a child process
/// too, and what builder and file make of it together is shown.
pub(crate) fn check(global: &Global, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let (file, side_car, folder) = match side_car::described(&args.file)? {
        None => (args.file.clone(), side_car::read(&args.file)?, None),
        Some(Described { module: Some(module), toml, .. }) => (module, Some(toml), Some(args.file.clone())),
        Some(Described { kind, toml: (path, toml), module: None }) => {
            return no_module(global, args, &kind, &path, &toml);
        }
    };
    let description = wharf_module::probe(&file).map_err(Failure::refused)?;
    let toml = side_car.as_ref().map(|(_, toml)| toml.clone()).unwrap_or_default();
    let init: BTreeMap<String, String> =
        toml.init.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    let mut tried = None;
    if args.load {
        let deploy = settings_load::load(global)?.settings.deploy;
        let copies = tempfile::tempdir().map_err(Failure::failed)?;
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let path = toml.context_path.as_deref().unwrap_or("/check");
        let id = AppId {
            host: "default".into(),
            path: ContextPath::parse(path).map_err(Failure::failed)?,
            version: Version::default(),
        };
        let plan = Plan {
            id,
            kind: Kind::Module,
            source: file.clone(),
            folder,
            init: init.clone(),
            generation: 1,
            trial_timeout: deploy.trial_timeout,
            start_timeout: toml.start_timeout.unwrap_or(deploy.start_timeout),
            stop_timeout: toml.stop_timeout.unwrap_or(deploy.stop_timeout),
            runtime_threads: toml.runtime_threads.unwrap_or(deploy.runtime_threads),
            blocking_threads: toml.blocking_threads.unwrap_or(deploy.blocking_threads),
            options: Arc::new(toml.options()),
        };
        tried = Some(wharf_module::trial::run(&program, copies.path(), &plan).map_err(Failure::refused)?);
    }
    let beside = side_car.map(|(path, _)| path.display().to_string());
    let declared = tried.as_ref().map(|tried| tried.constraints.as_slice()).unwrap_or_default();
    let security = toml.security().with_declared(declared);
    // The module's own text: whatever it is, it is shown as JSON or not at all.
    let app: Value = tried.as_ref().and_then(|tried| serde_json::from_str(&tried.description).ok()).unwrap_or_default();
    let servlets = tried.map(|tried| tried.servlets);
    if global.json {
        let all = json!({
            "description": description, "servlets": servlets, "application": app, "init": init, "side_car": beside,
            "login": security.login, "constraints": security.constraints,
        });
        out::print_line(format_args!("{all:#}"))?;
    } else {
        let mut text = check_text::render(&file, &description, servlets.as_deref(), &app, &init, beside.as_deref());
        check_text::security(&mut text, &security);
        out::print(text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said of an application that the container itself runs.
fn no_module(
    global: &Global,
    args: &CheckArgs,
    kind: &Kind,
    path: &Path,
    toml: &side_car::AppToml,
) -> Result<ExitCode, Failure> {
    let security = toml.security();
    if global.json {
        let all = json!({
            "kind": kind, "context_path": toml.context_path, "side_car": path.display().to_string(),
            "login": security.login, "constraints": security.constraints,
        });
        out::print_line(format_args!("{all:#}"))?;
    } else {
        let mut text = format!("{}: an application of kind {}\n", args.file.display(), check_text::word(kind));
        check_text::place(&mut text, toml.context_path.as_deref(), &path.display().to_string());
        check_text::security(&mut text, &security);
        out::print(text)?;
    }
    Ok(ExitCode::SUCCESS)
}
