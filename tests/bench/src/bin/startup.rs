//! From the start of `wharf run` with many modules to all of them serving: the first time, when each goes through its trial
//! load, and once their verdicts are kept.
//!
//! `cargo run --release -p wharf-bench --bin startup -- --modules 20`
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use wharf_bench::{Client, Result, Server, build, exit_code, median_and_p99, program};

#[derive(Parser)]
struct Arguments {
    /// How many modules; half of each of two builds.
    #[arg(long, default_value_t = 20)]
    modules: usize,
    /// Starts of each kind.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

fn start(release: &std::path::Path, folder: &std::path::Path, modules: usize) -> Result<(f64, Server)> {
    let began = Instant::now();
    let server = Server::start(
        Command::new(program(release))
            .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "log.level=warn"])
            .current_dir(folder),
    )?;
    let mut client = Client::connect(&server.address)?;
    for n in 0..modules {
        let (status, body) = client.get(&format!("/app{n}/"))?;
        if status != 200 {
            return Err(format!("/app{n}/ answered {status}: {body}").into());
        }
    }
    Ok((began.elapsed().as_secs_f64() * 1e3, server))
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "redeploy-a", "redeploy-b"])?;
    let (mut first, mut again, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..arguments.rounds {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("deploy"))?;
        for n in 0..arguments.modules {
            let build = ["a", "b"][n % 2];
            let file = release.join(format!("libredeploy_{build}.so"));
            std::fs::copy(file, folder.path().join(format!("deploy/app{n}.so")))?;
        }
        first.push(start(&release, folder.path(), arguments.modules)?.0);
        let (time, server) = start(&release, folder.path(), arguments.modules)?;
        again.push(time);
        memory = server.resident_kib()?;
    }
    println!("{} modules, medians of {} starts, each module asked once", arguments.modules, arguments.rounds);
    println!("first start, with a trial load for each: {:.0} ms", median_and_p99(first).0);
    println!("verdicts kept: {:.0} ms; {memory} KiB resident", median_and_p99(again).0);
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
