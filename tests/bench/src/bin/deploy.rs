//! What deployment costs: time from the rename of a module's file to its first answer, by the size of the file; memory of idle
//! applications, and what they cost the one under load; look-ups by the number of contexts.
//!
//! `cargo run --release -p wharf-bench --bin deploy`; needs wrk. `--part sizes`, `idle` or `mapper` runs that part alone.
#![forbid(unsafe_code)]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tempfile::TempDir;
use wharf_bench::{
    Client, Rate, Result, Rounds, Server, build, exit_code, in_turns, median_and_p99, rate, wait_for, wharf,
};
use wharf_kernel::routes::{Lookup, Route, RouteTable};
use wharf_kernel::{AppCounters, AppId, Body, ContextPath, Endpoint, Exchange, Gate, Lease, ResponseFuture, Version};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Sizes,
    Idle,
    Mapper,
}

#[derive(Parser)]
struct Arguments {
    /// Only this part; may be given more than once.
    #[arg(long)]
    part: Vec<Part>,
    /// Sizes of the module's file in MB; one below the smallest that the compiler makes is left out.
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 2.5, 5.0, 10.0, 20.0, 50.0])]
    sizes: Vec<f64>,
    /// Deployments of each size.
    #[arg(long, default_value_t = 21)]
    deployments: usize,
    /// Numbers of applications.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    applications: Vec<usize>,
    // Of load on one application among them, beside one among the fewest.
    #[command(flatten)]
    rounds: Rounds,
    /// Numbers of contexts.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000])]
    contexts: Vec<usize>,
}

fn start(release: &Path, folder: &Path) -> Result<Server> {
    let log = fs::File::create(folder.join("log"))?;
    Server::start(wharf(release, folder).stderr(log))
}

/// A copy of the module, filled up to `size` bytes with what no segment covers, as debug information would. `number` makes it
/// one that was never seen, so that it goes through its trial.
fn padded(module: &[u8], size: usize, number: usize) -> Vec<u8> {
    let mut file = module.to_vec();
    file.resize(size.max(module.len() + 8) - 8, 0x5a);
    file.extend((number as u64).to_le_bytes());
    file
}

fn sizes(arguments: &Arguments, release: &Path) -> Result<()> {
    let module = release.join("libbench_hello.so");
    let folder = tempfile::tempdir()?;
    let deploy = folder.path().join("deploy");
    fs::create_dir(&deploy)?;
    let stripped = folder.path().join("stripped.so");
    let small = Command::new("strip").arg("-o").args([&stripped, &module]).status().is_ok_and(|s| s.success());
    let module = fs::read(if small { stripped } else { module })?;
    println!("the module: {:.1} MB{}", module.len() as f64 / 1e6, if small { ", stripped" } else { "" });
    let server = start(release, folder.path())?;
    let mut number = 0;
    for size in &arguments.sizes {
        let bytes = (size * 1e6) as usize;
        if bytes < module.len() {
            println!("{size:5.1} MB: smaller than the module");
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..arguments.deployments {
            number += 1;
            let part = deploy.join(".part");
            fs::write(&part, padded(&module, bytes, number))?;
            let path = format!("/app{number}/");
            fs::rename(part, deploy.join(format!("app{number}.so")))?;
            let began = Instant::now();
            let mut client = Client::connect(&server.address)?;
            wait_for(Duration::from_secs(30), || Ok((client.get(&path)?.0 == 200).then_some(())))?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            fs::remove_file(deploy.join(format!("app{number}.so")))?;
            wait_for(Duration::from_secs(30), || Ok((client.get(&path)?.0 == 404).then_some(())))?;
        }
        let (median, p99) = median_and_p99(times);
        println!(
            "{size:5.1} MB: from the rename to the first answer, trial included: median {median:.1} ms, p99 {p99:.1} ms"
        );
    }
    Ok(())
}

/// Memory of a process that no other process has a share in, in KiB, and the part of it that is no file.
fn private_kib(pid: u32) -> Result<(u64, u64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Ok((field("Private_Clean:") + field("Private_Dirty:"), field("Anonymous:")))
}

/// A container with copies of the module, each asked once, and the seconds until all of them were served.
struct Container {
    server: Server,
    ready: f64,
    _folder: TempDir,
}

impl Container {
    fn start(release: &Path, module: &Path, copies: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let deploy = folder.path().join("deploy");
        fs::create_dir(&deploy)?;
        for n in 0..copies {
            fs::copy(module, deploy.join(format!("app{n}.so")))?;
        }
        let began = Instant::now();
        let server = start(release, folder.path())?;
        let ready = began.elapsed().as_secs_f64();
        let mut client = Client::connect(&server.address)?;
        for n in 0..copies {
            let (status, body) = client.get(&format!("/app{n}/"))?;
            if status != 200 {
                return Err(format!("/app{n}/ answered {status}: {body}").into());
            }
        }
        Ok(Self { server, ready, _folder: folder })
    }

    /// What measures one of its applications.
    fn load(&self) -> Box<dyn Fn(u32) -> Result<Rate> + '_> {
        Box::new(|seconds| rate(&self.server, "/app0/", 32, seconds, false))
    }
}

fn idle(arguments: &Arguments, release: &Path) -> Result<()> {
    let module = release.join("libbench_hello.so");
    println!("copies of a module of {:.1} MB, each asked once", fs::metadata(&module)?.len() as f64 / 1e6);
    let mut base: Option<(usize, u64, u64)> = None;
    for count in &arguments.applications {
        // Nothing else runs while its memory is looked at: what two containers share is neither's.
        let many = Container::start(release, &module, *count)?;
        let (resident, (private, anonymous)) = (many.server.resident_kib()?, private_kib(many.server.pid())?);
        print!("{count:5} applications: ready after {:.1} s; {:.1} MiB resident", many.ready, resident as f64 / 1024.0);
        print!(", {} threads", many.server.threads()?);
        let Some((few, first, heap)) = base else {
            base = Some((*count, private, anonymous));
            println!();
            continue;
        };
        let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1024.0 / (count - few) as f64;
        println!("; {:.2} MiB for each more, {:.2} of it no file", each(private, first), each(anonymous, heap));
        // One of them under load, beside one of the fewest, in a container of their own.
        let alone = Container::start(release, &module, few)?;
        let (name, beside) = (format!("one of {count}"), format!("one of {few}"));
        in_turns(&arguments.rounds, &[(&*name, many.load()), (&*beside, alone.load())])?;
    }
    Ok(())
}

struct Nothing;

impl Endpoint for Nothing {
    fn call(&self, _: Box<Exchange>, _: Lease) -> ResponseFuture {
        Box::pin(async { http::Response::new(Body::empty()) })
    }
}

fn table(contexts: usize) -> Result<RouteTable> {
    let route = |n: usize| -> Result<Arc<Route>> {
        let path = ContextPath::parse(&format!("/app{n}")).map_err(|e| e.to_string())?;
        let id = AppId { host: "default".into(), path, version: Version::new("") };
        Ok(Arc::new(Route {
            gate: Gate::new(|| {}),
            endpoint: Arc::new(Nothing),
            servlets: None,
            guard: None,
            counters: Arc::new(AppCounters::new(id.clone())),
            id,
            generation: n as u64,
            suspended: false,
        }))
    };
    let routes: Vec<_> = (0..contexts).map(route).collect::<Result<_>>()?;
    Ok(RouteTable::new([], routes).map_err(|e| e.to_string())?)
}

/// Nanoseconds of one look-up: always of one context, or of all in turn.
fn look_up(table: &RouteTable, paths: &[String]) -> f64 {
    const LOOK_UPS: usize = 200_000;
    let began = Instant::now();
    for path in paths.iter().cycle().take(LOOK_UPS) {
        assert!(matches!(black_box(table.find("localhost", black_box(path))), Lookup::Found(..)));
    }
    began.elapsed().as_nanos() as f64 / LOOK_UPS as f64
}

fn mapper(arguments: &Arguments) -> Result<()> {
    let tables: Vec<_> = arguments.contexts.iter().map(|n| Ok((*n, table(*n)?))).collect::<Result<_>>()?;
    let last = arguments.contexts.iter().min().copied().unwrap_or(1) - 1;
    let one = [format!("/app{last}/index.html")];
    // A fixed stride visits all of them in an order that no cache foresees.
    let all: Vec<Vec<String>> =
        tables.iter().map(|(n, _)| (0..*n).map(|i| format!("/app{}/index.html", i * 7919 % n)).collect()).collect();
    let mut times = vec![(Vec::new(), Vec::new()); tables.len()];
    for _ in 0..21 {
        for (((_, table), paths), (same, each)) in tables.iter().zip(&all).zip(&mut times) {
            same.push(look_up(table, &one));
            each.push(look_up(table, paths));
        }
    }
    let medians: Vec<_> =
        times.into_iter().map(|(same, each)| (median_and_p99(same).0, median_and_p99(each).0)).collect();
    for ((contexts, _), (same, each)) in tables.iter().zip(&medians) {
        let ratio = |time: f64, first: f64| time / first;
        println!(
            "{contexts:6} contexts: a look-up of one of them {same:.0} ns ({:.2} of the first row), of each in turn {each:.0} ns ({:.2})",
            ratio(*same, medians[0].0),
            ratio(*each, medians[0].1)
        );
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |part| arguments.part.is_empty() || arguments.part.contains(&part);
    if wanted(Part::Mapper) {
        mapper(arguments)?;
    }
    let release = build(&["wharf", "bench-hello"])?;
    if wanted(Part::Sizes) {
        sizes(arguments, &release)?;
    }
    if wanted(Part::Idle) {
        idle(arguments, &release)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
