//! Requests in a row by wrk, and what a server pays for them.

use std::ffi::OsStr;
use std::process::Command;

use crate::{Result, Server, wrk_number};

/// A command, held to one processor where client and servers are kept apart (taskset of util-linux).
pub fn on(processor: u32, apart: bool, program: impl AsRef<OsStr>) -> Command {
    if !apart {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &processor.to_string()]).arg(program);
    command
}

/// What a server did.
pub struct Rate {
    /// Requests answered in a second.
    pub per_second: f64,
    /// Processor seconds of the server for 100,000 requests.
    pub cpu: f64,
}

/// Lets wrk ask a server for `target`, for so many seconds, over so many connections.
///
/// # Errors
/// When wrk is not there, or a request failed.
pub fn rate(server: &Server, target: &str, connections: u32, seconds: u32, apart: bool) -> Result<Rate> {
    let url = format!("http://{}{target}", server.address);
    rate_of(&url, || server.cpu_seconds(), connections, seconds, apart)
}

/// The same for a server whose processor seconds so far are counted by `cpu`.
///
/// # Errors
/// As [`rate`].
pub fn rate_of(url: &str, cpu: impl Fn() -> Result<f64>, connections: u32, seconds: u32, apart: bool) -> Result<Rate> {
    let before = cpu()?;
    let output = on(1, apart, "wrk")
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), url])
        .output()
        .map_err(|e| format!("wrk (Debian package wrk): {e}"))?;
    let report = String::from_utf8_lossy(&output.stdout);
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        return Err(format!("requests failed:\n{report}").into());
    }
    let per_second = wrk_number(&report, "Requests/sec:").ok_or("wrk gave no rate")?;
    let requests = report.lines().find_map(|l| l.trim().split_once(" requests in")).ok_or("wrk gave no count")?;
    let cpu = (cpu()? - before) / requests.0.parse::<f64>()? * 1e5;
    Ok(Rate { per_second, cpu })
}

/// The same by h2load: HTTP/2, over so many connections, with so many requests at once on each.
///
/// # Errors
/// When h2load is not there, or a request failed.
pub fn h2_rate_of(
    url: &str,
    cpu: impl Fn() -> Result<f64>,
    connections: u32,
    streams: u32,
    seconds: u32,
) -> Result<Rate> {
    let before = cpu()?;
    let output = Command::new("h2load")
        .args(["-t", "1", "-c", &connections.to_string(), "-m", &streams.to_string(), "-D", &seconds.to_string(), url])
        .output()
        .map_err(|e| format!("h2load (Debian package nghttp2-client): {e}"))?;
    let report = String::from_utf8_lossy(&output.stdout);
    // "finished in 3.00s, 61234.50 req/s, 2.1MB/s" and "requests: 183703 total, …, 183703 succeeded, 0 failed, 0 errored, 0 timeout".
    let word_before = |line: &str, word: &str| {
        let line = report.lines().find(|l| l.starts_with(line))?;
        let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        words.iter().position(|w| *w == word).and_then(|at| words[at - 1].parse::<f64>().ok())
    };
    let number = |line, word| word_before(line, word).ok_or_else(|| format!("h2load gave no {word}:\n{report}"));
    if number("requests:", "failed")? + number("requests:", "timeout")? > 0.0 {
        return Err(format!("requests failed:\n{report}").into());
    }
    let requests = number("requests:", "succeeded")?;
    Ok(Rate { per_second: number("finished", "req/s")?, cpu: (cpu()? - before) / requests * 1e5 })
}
