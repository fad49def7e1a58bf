//! Wharf as a reverse proxy beside nginx, in front of the same two backends, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin proxy`; needs wrk and nginx. Prints medians and the ratios of each round.
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use wharf_bench::{Result, Server, build, exit_code, median_and_p99, rate_of, wait_for};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures both once.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Keep-alive connections of the client.
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its workers along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Processor seconds of a process and its children.
fn cpu(pid: u32) -> Result<f64> {
    let mut ticks = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(of) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_ascii_whitespace().collect();
        if of == pid || fields[1] == pid.to_string() {
            ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        }
    }
    Ok(ticks / 100.0)
}

/// Requests per second, and processor seconds for 100,000 requests.
type Measured = (f64, f64);

fn measure(pid: u32, url: &str, arguments: &Arguments, seconds: u32) -> Result<Measured> {
    let rate = rate_of(url, || cpu(pid), arguments.connections, seconds, false)?;
    Ok((rate.per_second, rate.cpu))
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
    let mut wharf = Command::new(release.join("wharf"));
    wharf
        .args([
            "run",
            "--set",
            "server.listen=127.0.0.1:0",
            "--set",
            "log.level=warn",
            "--set",
            "access_log.format=off",
        ])
        .current_dir(&folder);
    let wharf = Server::start(&mut wharf)?;

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let servers: String = backends.iter().map(|b| format!("server {}; ", b.address)).collect();
    let config = format!(
        "daemon off; worker_processes auto; pid nginx.pid; error_log stderr crit; events {{ worker_connections 4096; }}
        http {{ access_log off; keepalive_requests 100000000; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
        uwsgi_temp_path t4; scgi_temp_path t5; upstream b {{ {servers} keepalive 64; keepalive_requests 100000000; }}
        server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://b; proxy_http_version 1.1;
        proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;
        proxy_set_header Forwarded \"for=$remote_addr;host=$host;proto=$scheme\"; proxy_set_header Via \"1.1 nginx\"; }} }} }}"
    );
    std::fs::write(folder.path().join("nginx.conf"), config)?;
    let program = if std::path::Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let mut nginx = Command::new(program);
    nginx.arg("-p").arg(folder.path()).args(["-c", "nginx.conf"]);
    let nginx = Killed(nginx.spawn().map_err(|e| format!("nginx (Debian package nginx-core): {e}"))?);
    wait_for(Duration::from_secs(10), || Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop)))?;

    let servers = [
        ("wharf", wharf.pid(), format!("http://{}/", wharf.address)),
        ("nginx", nginx.0.id(), format!("http://127.0.0.1:{port}/")),
    ];
    for (_, pid, url) in &servers {
        measure(*pid, url, arguments, 1)?;
    }
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    for _ in 0..arguments.rounds {
        let round = servers.iter().map(|(_, pid, url)| measure(*pid, url, arguments, arguments.seconds));
        rounds.push(round.collect::<Result<_>>()?);
    }
    let median = |of: &dyn Fn(&[Measured]) -> f64| median_and_p99(rounds.iter().map(|r| of(r)).collect()).0;
    println!("{} rounds of {} s, {} connections; medians", arguments.rounds, arguments.seconds, arguments.connections);
    for (i, (name, ..)) in servers.iter().enumerate() {
        let (rate, cpu) = (median(&|r| r[i].0), median(&|r| r[i].1));
        println!("{name:6} {rate:8.0} requests/s, {cpu:.3} CPU s per 100,000 requests");
    }
    println!(
        "wharf / nginx: {:.2} of its requests/s, {:.2} times its CPU per request",
        median(&|r| r[0].0 / r[1].0),
        median(&|r| r[0].1 / r[1].1)
    );
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
