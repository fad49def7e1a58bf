//! Sends uploads to the sample application `transfer`, cuts every other one in the middle, and says what became of answers,
//! memory and temporary files.
//!
//! `cargo run --release -p wharf-bench --bin multipart -- --uploads 1000`. Exits with 1 when a promise is broken.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use wharf_bench::{Result, Server, build, program, wait_for};

#[derive(Parser)]
struct Arguments {
    /// How many uploads.
    #[arg(long, default_value_t = 1000)]
    uploads: u64,
    /// Bytes of the file in each.
    #[arg(long, default_value_t = 10_000_000)]
    size: usize,
    /// How many at a time.
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// How far resident memory may be above that after the first tenth, in KiB.
    #[arg(long, default_value_t = 4_096)]
    growth: u64,
    /// Folder with `wharf` and `libtransfer.so`; built in release when it is not given.
    #[arg(long)]
    built: Option<PathBuf>,
}

#[derive(Default)]
struct Seen {
    begun: AtomicU64,
    whole: AtomicU64,
    cut: AtomicU64,
    failed: AtomicU64,
    done: AtomicBool,
}

const HEAD: &str = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ten.bin\"\r\n\r\n";
const END: &str = "\r\n--XX--\r\n";

/// One upload; `cut` is after how many bytes of the file the client goes away.
fn upload(address: &str, size: usize, cut: Option<usize>) -> Result<bool> {
    let piece = [b'x'; 64 * 1024];
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let len = HEAD.len() + size + END.len();
    write!(
        stream,
        "POST /transfer/upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: {len}\r\n\r\n{HEAD}"
    )?;
    let mut left = cut.unwrap_or(size);
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now])?;
        left -= now;
    }
    if cut.is_some() {
        stream.shutdown(Shutdown::Both)?;
        return Ok(true);
    }
    stream.write_all(END.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("ten.bin: {size} bytes")))
}

fn client(address: &str, arguments: &Arguments, seen: &Seen) {
    loop {
        let number = seen.begun.fetch_add(1, Ordering::Relaxed);
        if number >= arguments.uploads {
            return;
        }
        // Spread over the whole file, and the same in each run.
        let cut = (number % 2 == 1).then(|| (number as usize).wrapping_mul(7_919_317) % arguments.size);
        let counter = match upload(address, arguments.size, cut) {
            Ok(true) if cut.is_some() => &seen.cut,
            Ok(true) => &seen.whole,
            _ => &seen.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Part of the name of every application's folder for temporary files.
const TEMPORARY: &str = "/wharf-app-";

/// Temporary files below a folder.
fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        count += if path.is_dir() { files(&path)? } else { usize::from(path.to_string_lossy().contains(TEMPORARY)) };
    }
    Ok(count)
}

/// Open temporary files of any process of the server; those without a name count too.
fn open_files(server: &Server) -> Result<usize> {
    let mut count = 0;
    for pid in server.family()? {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let at = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        count += at.filter(|path| path.to_string_lossy().contains(TEMPORARY)).count();
    }
    Ok(count)
}

fn run(arguments: &Arguments) -> Result<bool> {
    let built = match &arguments.built {
        Some(folder) => folder.clone(),
        None => build(&["wharf", "transfer"])?,
    };
    let folder = tempfile::tempdir()?;
    let deploy = folder.path().join("deploy");
    std::fs::create_dir(&deploy)?;
    std::fs::copy(built.join("libtransfer.so"), deploy.join("transfer.so"))?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let server = Server::start(
        Command::new(std::path::absolute(program(&built))?)
            .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "access_log.format=off"])
            .args(["--set", "log.level=error", "--set", &format!("server.limits.body={}", arguments.size + 10_000)])
            .current_dir(&folder)
            .stderr(log),
    )?;
    let seen = Seen::default();
    let began = Instant::now();
    let (mut base, mut peak, mut most_open) = (0, 0, 0);
    std::thread::scope(|scope| -> Result<()> {
        let watcher = scope.spawn(|| -> Result<(u64, u64, usize)> {
            let (mut base, mut peak, mut most_open) = (0, 0, 0);
            while !seen.done.load(Ordering::Relaxed) {
                let resident = server.resident_kib()?;
                if seen.begun.load(Ordering::Relaxed) < arguments.uploads / 10 {
                    base = base.max(resident);
                }
                peak = peak.max(resident);
                most_open = most_open.max(open_files(&server)?);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((base, peak, most_open))
        });
        let clients: Vec<_> =
            (0..arguments.clients).map(|_| scope.spawn(|| client(&server.address, arguments, &seen))).collect();
        for client in clients {
            client.join().map_err(|_| "a client panicked")?;
        }
        seen.done.store(true, Ordering::Relaxed);
        (base, peak, most_open) = watcher.join().map_err(|_| "the watcher panicked")??;
        Ok(())
    })?;
    // The last ones to be cut are noticed in a moment.
    let gone = wait_for(Duration::from_secs(10), || Ok((open_files(&server)? == 0).then_some(()))).is_ok();
    let (open, left) = (open_files(&server)?, files(folder.path())?);
    let end = server.resident_kib()?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (whole, cut, failed) = (count(&seen.whole), count(&seen.cut), count(&seen.failed));
    println!("{whole} whole, {cut} cut, {failed} failed, in {:.1} s", began.elapsed().as_secs_f64());
    println!("resident memory: {base} KiB in the first tenth, {peak} KiB at most, {end} KiB at the end");
    println!("temporary files: {most_open} open at most, {open} open at the end, {left} left");
    Ok(failed == 0 && gone && left == 0 && most_open > 0 && peak <= base + arguments.growth)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a promise is broken");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
