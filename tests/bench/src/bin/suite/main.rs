//! Wharf beside what one would use instead, in one run and in turns: a table, and JSON for machines.
//!
//! `cargo run --release -p wharf-bench --bin suite`; needs wrk and h2load (nghttp2-client). Tomcat 10 and nginx are measured where they are installed
//! (Debian: tomcat10, default-jdk-headless, nginx).
#![forbid(unsafe_code)]

mod load;
mod report;
mod servers;
mod works;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use wharf_bench::{Result, exit_code};

use load::{Idle, measure, paced};
use report::{Cell, Report, Sample};
use servers::{Running, Servers};
use works::{WORKS, Work};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures every server once for each piece of work.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Seconds of load before the first round, for each server.
    #[arg(long, default_value_t = 3)]
    warm_up: u32,
    #[command(flatten)]
    client: Client,
    /// Only this work; may be given more than once. The names are those of the table.
    #[arg(long)]
    work: Vec<String>,
    /// Only servers whose name contains this; may be given more than once.
    #[arg(long)]
    server: Vec<String>,
    /// Options for the container, as for `wharf run --set`.
    #[arg(long)]
    set: Vec<String>,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// Who asks.
#[derive(clap::Args)]
struct Client {
    /// Threads of wrk.
    #[arg(long = "client-threads", default_value_t = 1)]
    threads: usize,
    /// A processor for each side: the servers on the first, the client on the second (taskset of util-linux).
    #[arg(long)]
    apart: bool,
}

/// Keeps this process, and with it the servers that it starts, on the first processor.
fn keep_apart() -> Result<()> {
    let done = Command::new("taskset").args(["-cp", "0", &std::process::id().to_string()]).output();
    let done = done.map_err(|e| format!("taskset (Debian package util-linux): {e}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned().into()) }
}

fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|w| name.contains(w.as_str()));
    let works: Vec<&Work> = WORKS.iter().filter(|w| wanted(&arguments.work, w.name)).collect();
    if arguments.client.apart {
        keep_apart()?;
    }
    let mut servers = Servers::start(&works, &arguments.set)?;
    servers.list.retain(|s| wanted(&arguments.server, s.name));
    for skipped in &servers.skipped {
        eprintln!("not measured: {skipped}");
    }
    let mut report = Report::new(arguments.rounds, arguments.seconds, arguments.client.apart);
    for work in works {
        let measured: Vec<_> = servers.list.iter().filter(|s| s.path(work).is_some()).collect();
        for server in &measured {
            once(server, work, arguments.warm_up, &arguments.client)?;
        }
        let mut cells: Vec<Cell> = measured.iter().map(|s| Cell::new(work.name, s.name)).collect();
        for _ in 0..arguments.rounds {
            for (server, cell) in measured.iter().zip(&mut cells) {
                cell.samples.push(once(server, work, arguments.seconds, &arguments.client)?);
            }
        }
        report.add(cells);
    }
    report.write(&arguments.json)?;
    println!("JSON: {}", arguments.json.display());
    Ok(())
}

/// One measurement, with its idle connections beside it: those of all servers at once would be too many for one process.
fn once(server: &Running, work: &Work, seconds: u32, client: &Client) -> Result<Sample> {
    let _idle = Idle::open(server, work)?;
    if work.rate > 0 { paced(server, work, seconds, client) } else { measure(server, work, seconds, client) }
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
