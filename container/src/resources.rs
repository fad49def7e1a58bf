//! `wharf resources`: what the admin API says of the databases that the container manages.

use std::fmt::Write;
use std::process::ExitCode;

use bytes::Bytes;
use http::Method;
use wharf_kernel::resource::ResourceState;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::out;

/// Shows them.
pub(crate) fn resources(global: &Global) -> Result<ExitCode, Failure> {
    let all: Vec<ResourceState> = Client::new(global)?.send(Method::GET, "/v1/resources", Bytes::new())?;
    if global.json {
        out::print_line(format_args!("{:#}", serde_json::to_value(&all).map_err(Failure::failed)?))?;
    } else {
        out::print(table(&all))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[ResourceState]) -> String {
    let width = all.iter().map(|r| r.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  ENGINE    STATE  IN USE  IDLE  MAX  WAITING  STATEMENTS  PLACE\n", "NAME");
    for r in all {
        let (state, figures) = (if r.down.is_empty() { "up" } else { "down" }, &r.figures);
        let _ = writeln!(
            text,
            "{:<width$}  {:<8}  {state:<5}  {:<6}  {:<4}  {:<3}  {:<7}  {:<10}  {}",
            r.name, r.engine, figures.in_use, figures.idle, figures.max, figures.waiting, figures.statements, r.place
        );
        if !r.down.is_empty() {
            let _ = writeln!(text, "{:<width$}  {}", "", r.down);
        }
    }
    text
}
