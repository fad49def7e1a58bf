//! `wharf list`, `deploy`, `undeploy`, `start`, `stop`, `reload` and `rollback`: the admin API on the command line.

use std::process::ExitCode;

use bytes::Bytes;
use http::Method;
use wharf_kernel::admin::{AppState, AppStatus};

use crate::cli::{DeployArgs, Global};
use crate::client::{Client, app_path, upload_path};
use crate::failure::Failure;
use crate::out;

/// Lists the applications.
pub(crate) fn list(global: &Global) -> Result<ExitCode, Failure> {
    let apps: Vec<AppStatus> = Client::new(global)?.send(Method::GET, "/v1/apps", Bytes::new())?;
    if global.json {
        out::print_line(format_args!("{:#}", serde_json::to_value(&apps).map_err(Failure::failed)?))?;
    } else if apps.is_empty() {
        out::print_line("no applications")?;
    } else {
        out::print(table(&apps))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Uploads a module and waits until it serves or is refused.
pub(crate) fn deploy(global: &Global, args: &DeployArgs) -> Result<ExitCode, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let stem = args.file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            stem.strip_prefix("lib").unwrap_or(stem).to_owned()
        }
    };
    let content = std::fs::read(&args.file).map_err(|e| Failure::failed(format!("{}: {e}", args.file.display())))?;
    let status: AppStatus = Client::new(global)?.send(Method::POST, &upload_path(&name), content.into())?;
    done(global, &status)
}

/// Sends an operation on one application.
pub(crate) fn operate(global: &Global, method: &str, name: &str, suffix: &str) -> Result<ExitCode, Failure> {
    let method = if method == "DELETE" { Method::DELETE } else { Method::POST };
    let path = format!("{}{suffix}", app_path(name));
    let status: AppStatus = Client::new(global)?.send(method, &path, Bytes::new())?;
    done(global, &status)
}

fn done(global: &Global, status: &AppStatus) -> Result<ExitCode, Failure> {
    if global.json {
        out::print_line(format_args!("{:#}", serde_json::to_value(status).map_err(Failure::failed)?))?;
    } else {
        out::print_line(format_args!("{}: {}", status.name, word(status.state)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn word(state: AppState) -> &'static str {
    match state {
        AppState::Starting => "starting",
        AppState::Serving => "serving",
        AppState::Stopped => "stopped",
        AppState::Disabled => "disabled",
        AppState::Superseded => "superseded",
        AppState::Failed => "failed",
        AppState::Removed => "removed",
    }
}

fn table(apps: &[AppStatus]) -> String {
    let mut rows = vec![["NAME", "URL PATH", "STATE", "GENERATION", "VERSION", "MEMORY", "CPU"].map(str::to_owned)];
    let mut notes = Vec::new();
    for app in apps {
        let current = app.generations.iter().find(|g| g.state.is_routed());
        rows.push([
            app.name.clone(),
            if app.host == "default" { app.context_path.clone() } else { format!("{}{}", app.host, app.context_path) },
            word(app.state).to_owned(),
            current.map_or_else(|| "-".into(), |g| g.generation.to_string()),
            current.map_or_else(|| "-".into(), |g| g.package_version.clone()),
            current.and_then(|g| g.live_bytes).map_or_else(|| "-".into(), |b| format!("{} KiB", b.div_ceil(1024))),
            format!("{:.1} s", app.load.cpu_seconds),
        ]);
        for generation in app.generations.iter().filter(|g| !g.state.is_routed()) {
            let held = if generation.held_by.is_empty() {
                format!("{} leases", generation.leases)
            } else {
                format!("held by {}", generation.held_by.join(", "))
            };
            notes.push(format!(
                "{} generation {}: {}, {held}",
                app.name,
                generation.generation,
                generation.state.name()
            ));
        }
        let load = app.load.notes();
        if !load.is_empty() {
            notes.push(format!("{}: {}", app.name, load.join(", ")));
        }
        if let Some(error) = &app.error {
            notes.push(format!("{}: {error}", app.name));
        }
    }
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("  {note}\n"));
    }
    text
}
