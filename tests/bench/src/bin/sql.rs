//! A select by primary key through the border, beside the same with sqlx in a plain axum program, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin sql`; needs wrk and PostgreSQL. Prints medians over the rounds and their ratios.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::Parser;
use wharf_bench::{Rate, Result, Server, build, exit_code, median_and_p99, rate, wharf};
use wharf_tests::{Database, Engine};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 16)]
    connections: u32,
}

fn compare(engine: Engine, arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "databases", "wharf-bench"])?;
    let database = Database::start(engine).ok_or("the database is not installed")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("deploy"))?;
    std::fs::copy(release.join("libdatabases.so"), folder.path().join("deploy/db.so"))?;
    let url = database.url();
    std::fs::write(folder.path().join("wharf.toml"), format!("[resource.db]\nkind = \"sql\"\nurl = \"{url}\"\n"))?;
    let wharf = Server::start(&mut wharf(&release, folder.path()))?;
    // After it: the application has made the schema.
    let plain = Server::start(Command::new(release.join("plain_sql")).arg(&url))?;
    let measure = |server: &Server, seconds| rate(server, "/db/select?id=2", arguments.connections, seconds, false);
    for server in [&wharf, &plain] {
        measure(server, 1)?;
    }
    let mut rounds: Vec<[Rate; 2]> = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push([measure(&wharf, arguments.seconds)?, measure(&plain, arguments.seconds)?]);
    }
    let median = |of: &dyn Fn(&[Rate; 2]) -> f64| median_and_p99(rounds.iter().map(of).collect()).0;
    println!(
        "{engine:?}: wharf {:.0}, axum with sqlx {:.0} requests/s: {:.2} of its rate, {:.2} times its CPU per request",
        median(&|r| r[0].per_second),
        median(&|r| r[1].per_second),
        median(&|r| r[0].per_second / r[1].per_second),
        median(&|r| r[0].cpu / r[1].cpu)
    );
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    compare(Engine::Sqlite, arguments)?;
    compare(Engine::Postgres, arguments)
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
