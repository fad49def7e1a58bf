//! Wharf as a reverse proxy beside nginx, in front of the same two backends, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin proxy`; needs wrk and nginx. Prints medians and the ratios of each round.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::Parser;
use wharf_bench::{Nginx, Result, Rounds, Server, build, exit_code, in_turns, rate_of, wharf};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// Keep-alive connections of the client.
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "wharf-bench"])?;
    let backend = || Server::start(&mut Command::new(release.join("plain_hyper")));
    let backends = [backend()?, backend()?];
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("deploy"))?;
    let urls: Vec<String> = backends.iter().map(|b| format!("http://{}", b.address)).collect();
    let toml = format!("kind = \"proxy\"\n[proxy]\nbackends = {urls:?}\n");
    std::fs::write(folder.path().join("deploy/ROOT.toml"), toml)?;
    let wharf = Server::start(&mut wharf(&release, folder.path()))?;

    let servers: String = backends.iter().map(|b| format!("server {}; ", b.address)).collect();
    let nginx = Nginx::start(
        folder.path(),
        &format!("upstream b {{ {servers} keepalive 64; keepalive_requests 100000000; }}"),
        "location / { proxy_pass http://b; proxy_http_version 1.1;
        proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;
        proxy_set_header Forwarded \"for=$remote_addr;host=$host;proto=$scheme\"; proxy_set_header Via \"1.1 nginx\"; }",
    )?;
    let (own, other) = (format!("http://{}/", wharf.address), format!("{}/", nginx.url));
    let connections = arguments.connections;
    println!("{connections} connections");
    in_turns(
        &arguments.rounds,
        &[
            ("wharf", Box::new(|s| rate_of(&own, || wharf.cpu_seconds(), connections, s, false))),
            ("nginx", Box::new(|s| rate_of(&other, || nginx.cpu_seconds(), connections, s, false))),
        ],
    )
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
