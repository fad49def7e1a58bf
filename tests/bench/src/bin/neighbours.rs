//! What an application has to bear from the one beside it: its latency quiet, and beside each kind of bad neighbour.
//!
//! `cargo run --release -p wharf-bench --bin neighbours`. Each kind gets a container of its own. What was asked within the first
//! second of the trouble stands apart: by then the container is to have dealt with it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use wharf_bench::{Client, Result, Server, build, exit_code, median_and_p99, program};

#[derive(Parser)]
struct Arguments {
    /// Seconds for each kind.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Clients of the good application.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Workers of the container.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Folder with the built programs, instead of building them.
    #[arg(long)]
    programs: Option<PathBuf>,
}

/// A kind of bad neighbour.
struct Kind {
    name: &'static str,
    /// What its TOML file says.
    toml: &'static str,
    /// What is asked of it.
    target: &'static str,
    /// By how many clients.
    clients: usize,
}

const KINDS: [Kind; 9] = [
    Kind { name: "quiet", toml: "", target: "", clients: 0 },
    Kind { name: "saturates its limit of 16", toml: "max_requests = 16", target: "/bad/wait?millis=50", clients: 64 },
    Kind { name: "fills its pool for blocking work", toml: "", target: "/bad/block?millis=50", clients: 64 },
    Kind { name: "sleeps 150 ms in async code", toml: "", target: "/bad/hog?millis=150", clients: 8 },
    Kind { name: "the same, threads = \"own\"", toml: "threads = \"own\"", target: "/bad/hog?millis=150", clients: 8 },
    Kind { name: "spins for ever", toml: "", target: "/bad/spin", clients: 1 },
    Kind { name: "the same, threads = \"own\"", toml: "threads = \"own\"", target: "/bad/spin", clients: 1 },
    Kind {
        name: "is above its memory budget",
        toml: "memory_budget = 20000000",
        target: "/bad/allocate?bytes=30000000",
        clients: 2,
    },
    Kind { name: "is above its processor limit", toml: "cpu_limit = 0.2", target: "/bad/burn?millis=20", clients: 2 },
];

/// Asks the good application on and on: when each request began, and how long it took in milliseconds. Every tenth request
/// comes over a new connection.
fn ask(address: &str, began: Instant, stop: &AtomicBool, lost: &AtomicU64) -> Vec<(Duration, f64)> {
    let (mut all, mut client) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(2));
        if all.len() % 10 == 0 {
            client = None;
        }
        let asked = Instant::now();
        let answer = match &mut client {
            None => Client::connect(address).and_then(|c| client.insert(c).get("/good/")),
            Some(client) => client.get("/good/"),
        };
        match answer {
            Ok((200, _)) => all.push((asked - began, asked.elapsed().as_secs_f64() * 1e3)),
            _ => {
                lost.fetch_add(1, Ordering::Relaxed);
                client = None;
            }
        }
    }
    all
}

fn trouble(address: &str, target: &str, stop: &AtomicBool) {
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let done = match &mut client {
            None => Client::connect(address).and_then(|c| client.insert(c).get(target)),
            Some(client) => client.get(target),
        };
        match done {
            Ok((200, _)) => {}
            // Refused: a moment, as its clients would wait.
            Ok(_) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => client = None,
        }
    }
}

fn measure(kind: &Kind, programs: &Path, arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let deploy = folder.path().join("deploy");
    std::fs::create_dir(&deploy)?;
    for name in ["good.so", "bad.so"] {
        std::fs::copy(programs.join("libchameleon.so"), deploy.join(name))?;
    }
    std::fs::write(deploy.join("bad.toml"), kind.toml)?;
    let workers = format!("server.workers={}", arguments.workers);
    let server = Server::start(
        Command::new(program(programs))
            .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "access_log.format=off", "--set", &workers])
            .current_dir(&folder)
            .stderr(std::fs::File::create(folder.path().join("log"))?),
    )?;
    let (address, stop, bad_stop, lost) =
        (&*server.address, AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let all: Vec<(Duration, f64)> = std::thread::scope(|scope| {
        for _ in 0..kind.clients {
            scope.spawn(|| trouble(address, kind.target, &bad_stop));
        }
        let clients: Vec<_> =
            (0..arguments.clients).map(|_| scope.spawn(|| ask(address, began, &stop, &lost))).collect();
        std::thread::sleep(Duration::from_secs(arguments.seconds));
        stop.store(true, Ordering::Relaxed);
        bad_stop.store(true, Ordering::Relaxed);
        // Whatever spins comes back, so that every client gets its answer.
        let _ = Client::connect(address).and_then(|mut c| c.get("/bad/spin-end"));
        clients.into_iter().flat_map(|c| c.join().unwrap_or_default()).collect()
    });
    let (first, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at < Duration::from_secs(1));
    let longest = first.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let longest_after = after.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let requests = first.len() + after.len();
    let (median, p99) = median_and_p99(after.into_iter().map(|(_, took)| took).collect());
    println!(
        "| {} | {requests} | {} | {longest:.1} | {median:.2} | {p99:.2} | {longest_after:.1} |",
        kind.name,
        lost.load(Ordering::Relaxed)
    );
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    let programs = match &arguments.programs {
        Some(folder) => folder.canonicalize()?,
        None => build(&["wharf", "chameleon"])?,
    };
    println!(
        "| the neighbour | requests | lost | longest in the first second, ms | median, ms | p99, ms | longest, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    KINDS.iter().try_for_each(|kind| measure(kind, &programs, arguments))
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
