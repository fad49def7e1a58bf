//! The load: wrk, with a script that says what came out as one line of JSON.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde::Deserialize;
use wharf_bench::{Result, on};

use crate::Client;
use crate::report::Sample;
use crate::servers::Running;
use crate::works::Work;

#[derive(Deserialize)]
struct Outcome {
    requests: f64,
    /// Microseconds.
    duration: f64,
    bytes: f64,
    failed: f64,
    /// Microseconds each.
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Has a server do the work for so many seconds.
///
/// # Errors
/// When wrk is missing or a request fails.
pub(crate) fn measure(server: &Running, work: &Work, seconds: u32, client: &Client) -> Result<Sample> {
    let path = server.path(work).ok_or("the server does not do this")?;
    let script = server.folder.join(format!("{}.lua", work.name));
    let cookie = if work.session { Some(begin_session(&server.process.address, &path)?) } else { None };
    std::fs::write(&script, lua(work, cookie.as_deref()))?;
    let before = server.cpu_seconds()?;
    let output = on(1, client.apart, "wrk")
        .args([
            "-t",
            &client.threads.to_string(),
            "-c",
            &work.connections.to_string(),
            "-d",
            &format!("{seconds}s"),
            "--timeout",
            "20s",
            "-s",
        ])
        .arg(&script)
        .arg(format!("http://{}{path}", server.process.address))
        .output()
        .map_err(|e| format!("wrk (Debian package wrk): {e}"))?;
    let cpu = server.cpu_seconds()? - before;
    let report = String::from_utf8_lossy(&output.stdout);
    let line = report.lines().find(|l| l.starts_with('{')).ok_or_else(|| format!("wrk said nothing:\n{report}"))?;
    let outcome: Outcome = serde_json::from_str(line)?;
    if outcome.failed > 0.0 || outcome.requests < 1.0 {
        return Err(format!("{}, {}: {} requests failed:\n{report}", server.name, work.name, outcome.failed).into());
    }
    Ok(Sample {
        per_second: outcome.requests / outcome.duration * 1e6,
        megabytes_per_second: outcome.bytes / outcome.duration,
        cpu: cpu / outcome.requests * 1e5,
        p50: outcome.p50 / 1e3,
        p99: outcome.p99 / 1e3,
        p999: outcome.p999 / 1e3,
        resident_kib: server.resident_kib()?,
    })
}

/// Has a server answer so many requests per second, and no more. What a client that sends the next request when it has the answer
/// can't see is in the figures: how long requests take where the processors have something to spare.
///
/// # Errors
/// When h2load is missing, or the server does not answer as many.
pub(crate) fn paced(server: &Running, work: &Work, seconds: u32, client: &Client) -> Result<Sample> {
    let path = server.path(work).ok_or("the server does not do this")?;
    let log = server.folder.join("paced.log");
    let _ = std::fs::remove_file(&log);
    let before = server.cpu_seconds()?;
    let output = on(1, client.apart, "h2load")
        .args(["--h1", "-t", "1", "-c", &work.connections.to_string(), "-D", &seconds.to_string()])
        .arg(format!("--rps={}", work.rate / work.connections))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("http://{}{path}", server.process.address))
        .output()
        .map_err(|e| format!("h2load (Debian package nghttp2-client): {e}"))?;
    let cpu = server.cpu_seconds()? - before;
    // When it began, its status, and how long it took in microseconds.
    let text = std::fs::read_to_string(&log)?;
    let took = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next() == Some("200")).then(|| fields.next()?.parse::<f64>().ok()).flatten()
    };
    let mut times: Vec<f64> = text.lines().filter_map(took).collect();
    let wanted = work.rate as usize * seconds as usize;
    if times.len() < wanted * 9 / 10 {
        let (name, report) = (server.name, String::from_utf8_lossy(&output.stdout));
        return Err(format!("{name}: {} of {wanted} requests were answered:\n{report}", times.len()).into());
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[(times.len() as f64 * part) as usize] / 1e3;
    Ok(Sample {
        per_second: times.len() as f64 / f64::from(seconds),
        megabytes_per_second: 0.0,
        cpu: cpu / times.len() as f64 * 1e5,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        resident_kib: server.resident_kib()?,
    })
}

/// Begins a session, and gives the cookie that carries it.
fn begin_session(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cookie = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap_or_default().trim().to_owned())
    });
    Ok(cookie.ok_or_else(|| format!("no session was begun:\n{answer}"))?)
}

fn lua(work: &Work, cookie: Option<&str>) -> String {
    let mut script = String::from("wrk.headers['Accept-Language'] = 'en'\nwrk.headers['X-Client'] = 'suite'\n");
    if let Some(cookie) = cookie {
        script += &format!("wrk.headers['Cookie'] = '{cookie}'\n");
    }
    if work.content > 0 {
        let kind = if work.form { "application/x-www-form-urlencoded" } else { "application/octet-stream" };
        let start = if work.form { "name=Ada&text=" } else { "" };
        script += &format!(
            "wrk.method = 'POST'\nwrk.headers['Content-Type'] = '{kind}'\nwrk.body = '{start}' .. string.rep('x', {})\n",
            work.content - start.len()
        );
    }
    script
        + r#"done = function(summary, latency)
  local e = summary.errors
  print(string.format('{"requests":%d,"duration":%d,"bytes":%.0f,"failed":%d,"p50":%.1f,"p99":%.1f,"p999":%.1f}',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#
}

/// Connections that do nothing.
pub(crate) struct Idle {
    _open: Vec<wharf_bench::Client>,
}

impl Idle {
    /// Opens them, as many as the work wants: each has had an answer and waits for its next request.
    ///
    /// # Errors
    /// When the server takes no more, or the limit on open files (`ulimit -n`) is too low.
    pub(crate) fn open(server: &Running, work: &Work) -> Result<Self> {
        let path = server.path(work).ok_or("the server does not do this")?;
        let begin = || -> Result<wharf_bench::Client> {
            let mut client = wharf_bench::Client::connect(&server.process.address)?;
            client.get(&path)?;
            Ok(client)
        };
        let mut open = Vec::with_capacity(work.idle_connections);
        while open.len() < work.idle_connections {
            open.push(begin().map_err(|e| format!("idle connection {}: {e}", open.len() + 1))?);
        }
        Ok(Self { _open: open })
    }
}
