//! 'Hello' by a servlet through the border, beside a plain axum program and bare hyper, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin hello`; needs wrk. Prints medians over the rounds and the ratios of each round.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use wharf_bench::{Rate, Result, Server, build, exit_code, median_and_p99, on, program, rate};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Wharf with its access log, written to a file.
    #[arg(long)]
    access_log: bool,
    /// A processor for each side: the servers on the first, the client on the second (taskset of util-linux).
    #[arg(long)]
    apart: bool,
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "bench-hello", "wharf-bench"])?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("deploy"))?;
    std::fs::copy(release.join("libbench_hello.so"), folder.path().join("deploy/hello.so"))?;
    let mut wharf = wharf_bench::run(on(0, arguments.apart, program(&release)), folder.path());
    if arguments.access_log {
        wharf.args(["--set", "access_log.format=combined", "--set", "access_log.file=access.log"]);
    }
    let servers = [
        ("wharf", Server::start(&mut wharf)?),
        ("plain axum", Server::start(&mut on(0, arguments.apart, release.join("plain_axum")))?),
        ("bare hyper", Server::start(&mut on(0, arguments.apart, release.join("plain_hyper")))?),
    ];
    let measure = |server: &Server, seconds| rate(server, "/hello/", arguments.connections, seconds, arguments.apart);
    for (_, server) in &servers {
        measure(server, 1)?;
    }
    let mut rounds: Vec<Vec<Rate>> = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push(servers.iter().map(|(_, s)| measure(s, arguments.seconds)).collect::<Result<_>>()?);
    }
    let median = |of: &dyn Fn(&[Rate]) -> f64| median_and_p99(rounds.iter().map(|r| of(r)).collect()).0;
    println!("{} rounds of {} s, {} connections; medians", arguments.rounds, arguments.seconds, arguments.connections);
    for (i, (name, server)) in servers.iter().enumerate() {
        println!(
            "{name:11} {:8.0} requests/s, {:.3} CPU s per 100,000 requests, {} KiB resident",
            median(&|r| r[i].per_second),
            median(&|r| r[i].cpu),
            server.resident_kib()?
        );
    }
    for (i, (name, _)) in servers.iter().enumerate().skip(1) {
        println!(
            "wharf / {name}: {:.2} of its requests/s, {:.2} times its CPU per request",
            median(&|r| r[0].per_second / r[i].per_second),
            median(&|r| r[0].cpu / r[i].cpu)
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
