//! What the measuring programs share: building, starting and watching servers, and wrk.
#![forbid(unsafe_code)]

mod nginx;
mod per_core;
mod php;
mod rate;
mod turns;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub use nginx::{Killed, Nginx};
pub use per_core::listen_on_all;
pub use php::php_pool;
pub use rate::{Rate, h2_rate_of, on, rate, rate_of};
pub use turns::{Measured, Rounds, in_turns};

/// Anything that goes wrong ends a measurement.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Builds packages and returns the folder with what was built. The profile is `release`, or what the variable `WHARF_PROFILE` names.
///
/// # Errors
/// When cargo fails.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    wharf_tests::without_package(&mut cargo);
    let profile = std::env::var("WHARF_PROFILE").unwrap_or_else(|_| "release".into());
    cargo.args(["build", "--profile", &profile, "--quiet"]).current_dir(&workspace);
    packages.iter().for_each(|p| _ = cargo.args(["-p", p]));
    if !cargo.status()?.success() {
        return Err("cargo build failed".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    Ok(target.join(if profile == "dev" { "debug" } else { &profile }))
}

/// The container that is measured: the one that was built, or what the variable `WHARF_PROGRAM` names, such as what `.ci/dist` made.
pub fn program(release: &Path) -> PathBuf {
    let named = std::env::var_os("WHARF_PROGRAM").map(PathBuf::from);
    named.map_or_else(|| release.join("wharf"), |path| std::path::absolute(&path).unwrap_or(path))
}

/// `wharf run` on a free port, without an access log and, as its rivals, without an end of its connections, in a folder with a `deploy`.
pub fn wharf(release: &Path, folder: &Path) -> Command {
    run(Command::new(program(release)), folder)
}

/// The same for a command that starts the container.
pub fn run(mut wharf: Command, folder: &Path) -> Command {
    wharf.args([
        "run",
        "--set",
        "server.listen=127.0.0.1:0",
        "--set",
        "log.level=warn",
        "--set",
        "access_log.format=off",
        "--set",
        "server.limits.keep_alive_requests=0",
    ]);
    wharf.current_dir(folder);
    wharf
}

/// A container's folder with a certificate ([`wharf_tests::Authority::certify`]).
///
/// # Errors
/// When a file can't be written.
pub fn certify(folder: &Path) -> Result<()> {
    Ok(wharf_tests::Authority::new("bench").certify(folder)?)
}

/// A server process. Killed on drop.
pub struct Server {
    child: Child,
    /// Where it listens: `127.0.0.1:4711`.
    pub address: String,
}

impl Server {
    /// Starts a program that prints `listening on http://ADDRESS`, or the same with `https`.
    ///
    /// # Errors
    /// When it can't be started, or ends before it listens.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = loop {
            let line = lines.next().ok_or("the server ended before it listened")??;
            let address = line.strip_prefix("listening on http://").or(line.strip_prefix("listening on https://"));
            if let Some(address) = address {
                break address.to_owned();
            }
        };
        // Whatever else it prints is read and thrown away.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// Watches a program that was started otherwise.
    pub fn watch(child: Child, address: String) -> Self {
        Self { child, address }
    }

    /// Its process id and those of its descendants.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn family(&self) -> Result<Vec<u32>> {
        family(self.pid())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it as an operator would, by SIGTERM, and waits for that.
    ///
    /// # Errors
    /// When it ends with an error.
    pub fn end(mut self) -> Result<()> {
        Command::new("kill").arg(self.pid().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        resident_kib(self.pid())
    }

    /// Number of threads.
    ///
    /// # Errors
    /// When it is gone.
    pub fn threads(&self) -> Result<u64> {
        status_field(self.pid(), "Threads:")
    }

    /// Open file descriptors.
    ///
    /// # Errors
    /// When it is gone.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Mapped generations of modules.
    ///
    /// # Errors
    /// When it is gone.
    pub fn generations(&self) -> Result<usize> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        let files: std::collections::BTreeSet<_> =
            maps.lines().filter(|l| l.contains("/generations/")).filter_map(|l| l.split(' ').next_back()).collect();
        Ok(files.len())
    }

    /// Processor seconds used so far, by user code and kernel.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid())
    }
}

/// The id of a process and those of its descendants.
///
/// # Errors
/// When `/proc` can't be read.
pub fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        at += 1;
        for thread in std::fs::read_dir(format!("/proc/{parent}/task"))? {
            let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            family.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(family)
}

/// Processor seconds that a process has used so far, by user code and kernel.
///
/// # Errors
/// When it is gone.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_ascii_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every Linux.
    Ok(ticks / 100.0)
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// When it is gone.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_field(pid, "VmRSS:")
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with(field)).ok_or("no such field")?;
    Ok(line.split_ascii_whitespace().nth(1).ok_or("no value")?.parse()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number on the line of wrk's report that starts with `label`.
pub fn wrk_number(report: &str, label: &str) -> Option<f64> {
    let rest = report.lines().find_map(|l| l.trim_start().strip_prefix(label))?;
    rest.trim_start().split([' ', ',']).next()?.parse().ok()
}

/// One keep-alive connection, made anew after an answer that said `Connection: close` (RFC 9112 section 9.6).
pub struct Client {
    stream: BufReader<TcpStream>,
    host: String,
    /// The last answer said that it is the last of its connection.
    closed: bool,
    /// Sent with each request; what the server last set.
    pub cookie: Option<String>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(address: &str) -> Result<Self> {
        Ok(Self { stream: open(address)?, host: address.to_owned(), closed: false, cookie: None })
    }

    /// GET: status and content.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn get(&mut self, path: &str) -> Result<(u16, String)> {
        if std::mem::take(&mut self.closed) {
            self.stream = open(&self.host)?;
        }
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or("no status line")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("cut in the header".into());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            } else if let Some(options) = lower.strip_prefix("connection:") {
                self.closed = options.split(',').any(|option| option.trim() == "close");
            } else if lower.starts_with("set-cookie:") {
                let cookie = line["set-cookie:".len()..].split(';').next().unwrap_or_default();
                self.cookie = Some(cookie.trim().to_owned());
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn open(address: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(BufReader::new(stream))
}

/// How a program ends: an error is said, and makes it a failure.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The value in the middle, and the one at the 99th percentile.
pub fn median_and_p99(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.99))
}

/// Calls `look` until it gives something, for at most `time`.
///
/// # Errors
/// When time runs out, or `look` fails.
pub fn wait_for<T>(time: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + time;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("not within {time:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
