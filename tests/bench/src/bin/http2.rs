//! 'Hello' by HTTP/2 over TLS: a servlet beside bare hyper with the same certificate, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin http2`; needs h2load. Prints medians and the ratios of each round.
#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, ExitCode};

use clap::Parser;
use wharf_bench::{Result, Rounds, Server, build, certify, exit_code, h2_rate_of, in_turns, wharf};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// Connections of the client.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Requests at once on each.
    #[arg(long, default_value_t = 16)]
    streams: u32,
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "bench-hello", "wharf-bench"])?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("deploy"))?;
    fs::copy(release.join("libbench_hello.so"), at("deploy/hello.so"))?;
    certify(folder.path())?;
    let mut wharf = wharf(&release, folder.path());
    let wharf = Server::start(wharf.args(["--set", "server.listen=https://127.0.0.1:0"]))?;
    let mut plain = Command::new(release.join("plain_hyper_tls"));
    let plain = Server::start(plain.args([at("chain.pem"), at("key.pem")]))?;
    println!("{} connections with {} requests at once on each", arguments.connections, arguments.streams);
    let rate = |server: &Server, seconds| {
        let url = format!("https://{}/hello/", server.address);
        h2_rate_of(&url, || server.cpu_seconds(), arguments.connections, arguments.streams, seconds)
    };
    let servers: [wharf_bench::Measured<'_>; 2] =
        [("wharf", Box::new(|s| rate(&wharf, s))), ("bare hyper", Box::new(|s| rate(&plain, s)))];
    in_turns(&arguments.rounds, &servers)
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
