//! `wharf backends`: what the admin API says of a proxy's backends, and draining one.

use std::fmt::Write;
use std::process::ExitCode;

use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wharf_kernel::backends::{BackendState, BackendStatus};

use crate::cli::{BackendsArgs, Global};
use crate::client::{Client, app_path};
use crate::failure::Failure;
use crate::out;

/// Shows them, after draining one where that is asked.
pub(crate) fn backends(global: &Global, args: &BackendsArgs) -> Result<ExitCode, Failure> {
    let base = format!("{}/backends", app_path(&args.name));
    let (method, path) = match (&args.drain, &args.undrain) {
        (Some(url), _) => (Method::POST, format!("{base}/drain?url={}", utf8_percent_encode(url, NON_ALPHANUMERIC))),
        (None, Some(url)) => {
            (Method::POST, format!("{base}/undrain?url={}", utf8_percent_encode(url, NON_ALPHANUMERIC)))
        }
        (None, None) => (Method::GET, base),
    };
    let all: Vec<BackendStatus> = Client::new(global)?.send(method, &path, Bytes::new())?;
    if global.json {
        out::print_line(format_args!("{:#}", serde_json::to_value(&all).map_err(Failure::failed)?))?;
    } else {
        out::print(table(&all))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[BackendStatus]) -> String {
    let width = all.iter().map(|b| b.url.len()).max().unwrap_or(0).max(3);
    let mut text = format!("{:<width$}  WEIGHT  STATE      IN FLIGHT  REQUESTS  FAILURES  LATENCY\n", "URL");
    for b in all {
        let state = match b.state {
            BackendState::Healthy => "healthy",
            BackendState::Ejected => "ejected",
            BackendState::Unhealthy => "unhealthy",
            BackendState::Drained => "drained",
        };
        let _ = writeln!(
            text,
            "{:<width$}  {:<6}  {state:<9}  {:<9}  {:<8}  {:<8}  {:.1} ms",
            b.url, b.weight, b.in_flight, b.requests, b.failures, b.latency_ms
        );
    }
    text
}
