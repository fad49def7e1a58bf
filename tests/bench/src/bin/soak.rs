//! Redeploys one application again and again, under load, and says what became of requests, memory and old generations.
//!
//! `cargo run --release -p wharf-bench --bin soak -- --redeploys 2000`; needs wrk. Exits with 1 when a promise is broken.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use wharf_bench::{Client, Result, Server, build, median_and_p99, program, wait_for, wrk_number};

#[derive(Parser)]
struct Arguments {
    /// How often to redeploy.
    #[arg(long, default_value_t = 2000)]
    redeploys: u64,
    /// After how many redeploys resident memory is taken as the base.
    #[arg(long, default_value_t = 200)]
    base: u64,
    /// How far resident memory may be above the base at the end, in KiB.
    #[arg(long, default_value_t = 4096)]
    growth: u64,
    /// Connections of wrk.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Time between two redeploys, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause: u64,
}

/// What the checking clients see.
#[derive(Default)]
struct Seen {
    /// The newest generation that has answered anybody.
    newest: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
    stop: AtomicBool,
}

fn generation(body: &str) -> Option<u64> {
    body.trim_end().rsplit_once("generation ")?.1.parse().ok()
}

/// Asks on and on. A generation that answers after a newer one had answered before the request began is stale: the newer one
/// answered because the older one was out of service.
fn check(address: &str, path: &str, seen: &Seen) {
    let mut client = None;
    while !seen.stop.load(Ordering::Relaxed) {
        let before = seen.newest.load(Ordering::SeqCst);
        let answer = match &mut client {
            None => Client::connect(address).and_then(|c| client.insert(c).get(path)),
            Some(client) => client.get(path),
        };
        seen.requests.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok((200, body)) => match generation(&body) {
                Some(number) if number < before => _ = seen.stale.fetch_add(1, Ordering::Relaxed),
                Some(number) => _ = seen.newest.fetch_max(number, Ordering::SeqCst),
                None => _ = seen.failed.fetch_add(1, Ordering::Relaxed),
            },
            Ok((status, _)) => {
                eprintln!("status {status}");
                seen.failed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                eprintln!("{error}");
                seen.failed.fetch_add(1, Ordering::Relaxed);
                client = None;
            }
        }
    }
}

/// The load, until it is told to end; it ends with this program, whatever happens.
struct Wrk(Child);

impl Wrk {
    fn start(connections: u32, url: &str) -> Result<Self> {
        let child = Command::new("wrk")
            .args(["-t", "1", "-c", &connections.to_string(), "-d", "24h", url])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("wrk (Debian package wrk): {e}"))?;
        Ok(Self(child))
    }

    /// Ends the load. Returns wrk's report.
    fn end(mut self) -> Result<String> {
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status()?;
        let mut report = String::new();
        self.0.stdout.take().ok_or("no output")?.read_to_string(&mut report)?;
        Ok(report)
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drop_in(file: &Path, deploy: &Path) -> Result<()> {
    let part = deploy.join(".app.part");
    std::fs::copy(file, &part)?;
    std::fs::rename(part, deploy.join("app.so"))?;
    Ok(())
}

fn run(arguments: &Arguments) -> Result<bool> {
    let release = build(&["wharf", "redeploy-a", "redeploy-b"])?;
    let files = ["a", "b"].map(|v| release.join(format!("libredeploy_{v}.so")));
    let folder = tempfile::tempdir()?;
    let deploy = folder.path().join("deploy");
    std::fs::create_dir(&deploy)?;
    drop_in(&files[0], &deploy)?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let mut server = Server::start(
        Command::new(program(&release))
            .args([
                "run",
                "--set",
                "server.listen=127.0.0.1:0",
                "--set",
                "access_log.format=off",
                "--set",
                "log.level=warn",
            ])
            .current_dir(&folder)
            .stderr(log),
    )?;
    let address = server.address.clone();
    let size = std::fs::metadata(&files[0])?.len() as f64 / 1e6;
    println!("wharf pid {} on {address}; a module of {size:.1} MB; {} redeploys", server.pid(), arguments.redeploys);

    let wrk = Wrk::start(arguments.connections, &format!("http://{address}/app/"))?;
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = ["/app/", "/app/sleep", "/app/spawn"]
        .map(|path| {
            let (seen, address) = (seen.clone(), address.clone());
            std::thread::spawn(move || check(&address, path, &seen))
        })
        .into();

    let mut watcher = Client::connect(&address)?;
    let mut latencies = Vec::new();
    let (mut base, mut base_descriptors) = (0, 0);
    let began = Instant::now();
    let mut last = generation(&watcher.get("/app/")?.1).ok_or("no generation in the answer")?;
    for number in 1..=arguments.redeploys {
        let renamed = {
            drop_in(&files[(number % 2) as usize], &deploy)?;
            Instant::now()
        };
        last = wait_for(Duration::from_secs(30), || {
            let (status, body) = watcher.get("/app/")?;
            let answered = generation(&body).ok_or_else(|| format!("status {status}: {body}"))?;
            Ok((answered > last).then_some(answered))
        })
        .map_err(|e| {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            format!("redeploy {number}: {e}; the server: {:?}; its log:\n{log}", server.ended())
        })?;
        latencies.push(renamed.elapsed().as_secs_f64() * 1e3);
        if number == arguments.base {
            base = server.resident_kib()?;
            base_descriptors = server.descriptors()?;
        }
        if number % 100 == 0 || number == arguments.redeploys {
            println!(
                "{number:6} redeploys, {:5.0} s: {} KiB resident, {} mapped, {} threads, {} descriptors, {} requests checked",
                began.elapsed().as_secs_f64(),
                server.resident_kib()?,
                server.generations()?,
                server.threads()?,
                server.descriptors()?,
                seen.requests.load(Ordering::Relaxed)
            );
        }
        std::thread::sleep(Duration::from_millis(arguments.pause));
    }
    // The load ends, and the last old generation goes.
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        let _ = client.join();
    }
    let report = wrk.end()?;
    let mapped = wait_for(Duration::from_secs(15), || Ok(Some(server.generations()?).filter(|n| *n == 1)))
        .or_else(|_| server.generations())?;
    let end = server.resident_kib()?;
    let growth = end.saturating_sub(base);
    let descriptors = server.descriptors()?;
    let wrk_requests = report.lines().find_map(|l| l.trim().split_once(" requests in")).map_or("0", |r| r.0);
    let wrk_bad = wrk_number(&report, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    let wrk_errors = report.lines().find(|l| l.contains("Socket errors")).unwrap_or("").trim();
    let tenth = latencies.len().div_ceil(10);
    let (first, end_tenth) = (latencies[..tenth].to_vec(), latencies[latencies.len() - tenth..].to_vec());
    let (first, late) = (median_and_p99(first).0, median_and_p99(end_tenth).0);
    let (median, p99) = median_and_p99(latencies);
    let (failed, stale) = (seen.failed.load(Ordering::Relaxed), seen.stale.load(Ordering::Relaxed));
    println!("rename to first answer by the new version: median {median:.1} ms, p99 {p99:.1} ms (load running)");
    println!("the first {tenth}: median {first:.1} ms; the last {tenth}: {late:.1} ms");
    println!(
        "wrk: {wrk_requests} requests, {wrk_bad} not 2xx, socket errors: {}",
        if wrk_errors.is_empty() { "0" } else { wrk_errors }
    );
    println!(
        "checked: {} requests, {failed} failed, {stale} by a version retired before they began",
        seen.requests.load(Ordering::Relaxed)
    );
    println!(
        "old generations mapped: {}; {descriptors} descriptors, {base_descriptors} after {}",
        mapped - 1,
        arguments.base
    );
    println!("resident {end} KiB, {growth} KiB above the value after {}", arguments.base);
    let kept = failed == 0 && stale == 0 && wrk_bad == 0.0 && wrk_errors.is_empty() && mapped == 1;
    let flat = base == 0 || (growth <= arguments.growth && descriptors <= base_descriptors + 8);
    if !kept || !flat {
        print!("{}", std::fs::read_to_string(folder.path().join("log"))?);
    }
    println!("{}", if kept && flat { "all promises kept" } else { "A PROMISE IS BROKEN" });
    Ok(kept && flat)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
