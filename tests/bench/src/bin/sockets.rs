//! Keeps WebSockets open through one redeploy after the other, with requests of sessions beside them, and says what became of them.
//!
//! `cargo run --release -p wharf-bench --bin sockets`. Exits with 1 when a promise is broken: a socket that was not closed with
//! 1001 within the drain time, a request that failed, a session value that was lost, a generation that stayed.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use wharf_bench::{Client, Result, Server, build, median_and_p99, program, wait_for};

#[derive(Parser)]
struct Arguments {
    /// How often to redeploy.
    #[arg(long, default_value_t = 50)]
    redeploys: u64,
    /// Open WebSockets.
    #[arg(long, default_value_t = 200)]
    sockets: usize,
    /// Requests beside them, at least.
    #[arg(long, default_value_t = 1000)]
    requests: u64,
    /// The drain time of the container, in seconds.
    #[arg(long, default_value_t = 30)]
    drain: u64,
}

/// What a socket saw.
enum Seen {
    /// It is open, to this generation.
    Open(u64),
    /// It was closed with this code (none: it was cut), so long after the new version first answered.
    Closed(Option<u16>, Duration),
    /// It could not be opened.
    Refused(String),
}

/// The generation in `v00001 generation 2`.
fn generation(text: &str) -> Option<u64> {
    text.trim_end().rsplit_once("generation ")?.1.parse().ok()
}

/// Opens a socket again and again, and tells what becomes of each.
async fn socket(address: String, served: watch::Receiver<Instant>, tell: mpsc::UnboundedSender<Seen>) {
    loop {
        let opened = async {
            let stream = TcpStream::connect(&address).await?;
            let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/app/named"), stream).await?;
            let first = socket.next().await.ok_or("closed before the first message")??;
            let number = generation(first.to_text()?).ok_or("no generation in the first message")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((socket, number))
        };
        let (mut socket, number) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                let _ = tell.send(Seen::Refused(error.to_string()));
                return;
            }
        };
        if tell.send(Seen::Open(number)).is_err() {
            return;
        }
        let mut code = None;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                code = Some(frame.code.into());
            }
        }
        let late = served.borrow().elapsed();
        if tell.send(Seen::Closed(code, late)).is_err() {
            return;
        }
    }
}

/// What became of the requests.
#[derive(Default)]
struct Asked {
    all: AtomicU64,
    failed: AtomicU64,
    /// Answers whose number was not the next one of the session.
    lost: AtomicU64,
}

/// Asks on and on, in one session, until told to stop, and until there were enough.
fn ask(address: &str, wanted: u64, asked: &Asked, stop: &AtomicBool) {
    let (mut client, mut cookie, mut last) = (None, None, 0);
    while !stop.load(Ordering::Relaxed) || asked.all.load(Ordering::Relaxed) < wanted {
        let answer = match &mut client {
            None => Client::connect(address).and_then(|mut c| {
                c.cookie.clone_from(&cookie);
                client.insert(c).get("/app/count")
            }),
            Some(client) => client.get("/app/count"),
        };
        asked.all.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok((200, body)) if generation(&body).is_some() => {
                let number = body.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
                asked.lost.fetch_add(u64::from(number != last + 1), Ordering::Relaxed);
                last = number;
                cookie = client.as_ref().and_then(|client| client.cookie.clone());
            }
            _ => {
                asked.failed.fetch_add(1, Ordering::Relaxed);
                client = None;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Puts the module into the deploy folder as another version.
fn drop_in(module: &[u8], version: u64, deploy: &Path) -> Result<()> {
    let mark = format!("{:~<24}", "VERSION:one");
    let at = module.windows(24).position(|w| w == mark.as_bytes()).ok_or("no mark in the module")?;
    let mut bytes = module.to_vec();
    bytes[at..at + 24].copy_from_slice(format!("{:~<24}", format!("VERSION:v{version:05}")).as_bytes());
    let part = deploy.join(".app.part");
    std::fs::write(&part, bytes)?;
    std::fs::rename(part, deploy.join("app.so"))?;
    Ok(())
}

async fn run(arguments: &Arguments) -> Result<bool> {
    let release = build(&["wharf", "sockets"])?;
    let module = std::fs::read(release.join("libsockets.so"))?;
    let folder = tempfile::tempdir()?;
    let deploy = folder.path().join("deploy");
    std::fs::create_dir(&deploy)?;
    drop_in(&module, 0, &deploy)?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let drain = format!("server.drain_timeout={}s", arguments.drain);
    let server = Server::start(
        Command::new(program(&release))
            .args(["run", "--set", "server.listen=127.0.0.1:0", "--set", "access_log.format=off"])
            .args(["--set", "log.level=warn", "--set", &drain])
            .current_dir(&folder)
            .stderr(log),
    )?;
    let address = server.address.clone();
    println!(
        "wharf pid {} on {address}; {} sockets, {} redeploys",
        server.pid(),
        arguments.sockets,
        arguments.redeploys
    );

    let (asked, stop) = (Arc::new(Asked::default()), Arc::new(AtomicBool::new(false)));
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let (address, wanted) = (address.clone(), arguments.requests);
            let (asked, stop) = (asked.clone(), stop.clone());
            std::thread::spawn(move || ask(&address, wanted, &asked, &stop))
        })
        .collect();

    let (served, watched) = watch::channel(Instant::now());
    let (tell, mut seen) = mpsc::unbounded_channel();
    for _ in 0..arguments.sockets {
        tokio::spawn(socket(address.clone(), watched.clone(), tell.clone()));
    }
    let (mut closed, mut wrong, mut refused, mut lateness) = (0_u64, 0_u64, 0_u64, Vec::new());
    let mut watcher = Client::connect(&address)?;
    let mut current = generation(&watcher.get("/app/")?.1).ok_or("no generation in the answer")?;
    let (mut base, mut base_descriptors) = (0, 0);
    for round in 0..=arguments.redeploys {
        if round > 0 {
            drop_in(&module, round, &deploy)?;
            current = tokio::task::block_in_place(|| {
                wait_for(Duration::from_secs(30), || {
                    let answered = generation(&watcher.get("/app/")?.1).ok_or("no generation in the answer")?;
                    Ok((answered > current).then_some(answered))
                })
            })?;
            served.send_replace(Instant::now());
        }
        // All are open to the new version.
        let mut open = 0;
        while open < arguments.sockets {
            let next = tokio::time::timeout(Duration::from_secs(arguments.drain + 10), seen.recv()).await;
            match next.map_err(|_| format!("redeploy {round}: only {open} sockets came back"))? {
                Some(Seen::Open(number)) if number == current => open += 1,
                Some(Seen::Open(_)) | None => {}
                Some(Seen::Closed(code, late)) => {
                    closed += 1;
                    wrong += u64::from(code != Some(1001) || late > Duration::from_secs(arguments.drain));
                    lateness.push(late.as_secs_f64() * 1e3);
                }
                Some(Seen::Refused(error)) => {
                    eprintln!("{error}");
                    refused += 1;
                    open += 1;
                }
            }
        }
        if round == 5 {
            (base, base_descriptors) = (server.resident_kib()?, server.descriptors()?);
        }
    }
    let left = tokio::task::block_in_place(|| {
        wait_for(Duration::from_secs(15), || Ok(Some(server.generations()?).filter(|n| *n == 1)))
            .or_else(|_| server.generations())
    })?;
    let (end, descriptors) = (server.resident_kib()?, server.descriptors()?);
    stop.store(true, Ordering::Relaxed);
    tokio::task::block_in_place(|| askers.into_iter().for_each(|asker| _ = asker.join()));
    let [asked, failed, lost] = [&asked.all, &asked.failed, &asked.lost].map(|n| n.load(Ordering::Relaxed));
    let last = lateness.iter().copied().fold(0.0, f64::max);
    let (median, p99) = median_and_p99(lateness);
    let due = arguments.redeploys * arguments.sockets as u64;
    println!("sockets: {closed} closed of {due}, {wrong} not with 1001 in the drain time, {refused} not opened");
    println!("after the new version's first answer: median {median:.1} ms, p99 {p99:.1} ms, last {last:.1} ms");
    println!("requests: {asked}, {failed} failed, {lost} with a session value lost");
    println!("old generations mapped: {}; {descriptors} descriptors, {base_descriptors} after 5 redeploys", left - 1);
    println!("resident {end} KiB, {base} KiB after 5 redeploys");
    let kept = closed == due && wrong == 0 && refused == 0 && failed == 0 && lost == 0 && left == 1;
    if !kept {
        print!("{}", std::fs::read_to_string(folder.path().join("log"))?);
    }
    println!("{}", if kept { "all promises kept" } else { "A PROMISE IS BROKEN" });
    Ok(kept)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
