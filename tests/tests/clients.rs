//! Servers that applications ask by HTTP, through the container's clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use wharf_tests::{Site, Wharf, library, wait};

/// What the server was asked.
#[derive(Debug, Clone, Default)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: String,
}

/// A server that answers by the path, and remembers.
#[derive(Clone)]
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { addr: listener.local_addr().unwrap(), asked: Arc::default(), connections: Arc::default() };
        let server = this.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                server.connections.fetch_add(1, Ordering::SeqCst);
                let server = server.clone();
                thread::spawn(move || server.serve(connection));
            }
        });
        this
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        loop {
            let mut asked = Asked::default();
            if reader.read_line(&mut asked.line).unwrap_or(0) == 0 {
                return;
            }
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim_end().to_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(n) = line.strip_prefix("content-length: ") {
                    length = n.parse().unwrap();
                }
                asked.headers.push(line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            asked.body = String::from_utf8(body).unwrap();
            let path = asked.line.split(' ').nth(1).unwrap().to_owned();
            let times = {
                let mut all = self.asked.lock().unwrap();
                all.push(asked);
                all.iter().filter(|a| a.line.split(' ').nth(1) == Some(&path)).count()
            };
            let answer = |status: &str, text: &str| {
                format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            };
            let text = match path.as_str() {
                "/base/twice" if times < 3 => answer("503 Busy", "busy"),
                "/base/dead" => answer("500 Dead", "dead"),
                "/base/moved" => {
                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".into()
                }
                "/base/slow" => {
                    thread::sleep(Duration::from_millis(1500));
                    answer("200 OK", "slow")
                }
                // The end never comes.
                "/base/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut".into(),
                "/base/big" => answer("200 OK", &"x".repeat(20 << 20)),
                _ => answer("200 OK", "well"),
            };
            if connection.write_all(text.as_bytes()).is_err() || path == "/base/cut" {
                return;
            }
        }
    }

    fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }

    fn count(&self, line: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.line.starts_with(line)).count()
    }
}

fn start(url: &str, more: &str) -> Wharf {
    let text = format!("[resource.server]\nkind = \"http\"\nurl = \"{url}\"\nwait = \"1s\"\n{more}");
    Site::new().with("wharf.toml", text).with("deploy/c.so", library("clients")).start(&[])
}

fn ask(wharf: &Wharf, query: &str) -> Value {
    let answer = wharf.get(&format!("/c/ask?{query}"));
    assert_eq!(answer.status, 200, "{}", wharf.log());
    serde_json::from_str(&answer.text()).unwrap()
}

#[test]
fn a_request_goes_to_the_server_of_the_configuration_and_nowhere_else() {
    let server = Server::start();
    let wharf = start(&format!("http://{}/base/", server.addr), "password = \"s3cret-token\"\n");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = wharf.send("GET", "/c/ask?target=/a%3Fx=1", &[("traceparent", trace)], b"");
    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(
        (&answer["status"], &answer["text"], &answer["type"]),
        (&200.into(), &"well".into(), &"text/plain".into())
    );
    let asked = server.last();
    assert_eq!(asked.line.trim_end(), "GET /base/a?x=1 HTTP/1.1");
    let has = |line: &str| asked.headers.iter().any(|header| header.starts_with(line));
    assert!(has("authorization: bearer s3cret-token") && has("x-own: 1") && has("x-request-id: "), "{asked:?}");
    assert!(has(&format!("traceparent: {trace}")), "{asked:?}");
    ask(&wharf, "target=/b&method=POST&body=hi");
    let asked = server.last();
    assert_eq!((asked.line.trim_end(), asked.body.as_str()), ("POST /base/b HTTP/1.1", r#"{"body":"hi"}"#));
    assert!(asked.headers.contains(&"content-type: application/json".to_owned()), "{asked:?}");
    // Neither the application nor the server leads elsewhere.
    for target in ["http://127.0.0.1:1/", "//127.0.0.1:1/", "", "@127.0.0.1:1/"] {
        assert_eq!(ask(&wharf, &format!("target={target}"))["error"], "Invalid", "{target}");
    }
    assert_eq!(ask(&wharf, "target=/moved")["status"], 302);
    // One connection does for all, over a redeploy too.
    for _ in 0..5 {
        ask(&wharf, "target=/c");
    }
    assert_eq!(wharf.cli(&["reload", "c"]).code, 0);
    ask(&wharf, "target=/c");
    // Some are of the looks whether there is a server.
    let asked = server.asked.lock().unwrap().len();
    let with_requests = server.connections.load(Ordering::SeqCst);
    assert!(asked >= 9 && with_requests < asked, "{asked} {with_requests}");
    assert!(!wharf.log().contains("s3cret") && !format!("{:?}", wharf.cli(&["config"])).contains("s3cret"));
    // What is large comes piece by piece.
    let before = wharf.resident_kib();
    assert_eq!(wharf.get("/c/pass?target=/big").body.len(), 20 << 20);
    assert!(wharf.resident_kib().saturating_sub(before) < 12 << 10, "{} {before}", wharf.resident_kib());
}

#[test]
fn what_may_be_repeated_is_tried_again() {
    let server = Server::start();
    let wharf = start(&format!("http://{}/base", server.addr), "retry_budget = 1000\n");
    assert_eq!(ask(&wharf, "target=/twice")["status"], 200);
    assert_eq!(server.count("GET /base/twice"), 3);
    // RFC 9110, section 9.2.2: a POST is not repeated, nor is what the application could have done wrong.
    let posted = Server::start();
    let other = start(&format!("http://{}/base", posted.addr), "");
    assert_eq!(ask(&other, "target=/twice&method=POST")["status"], 503);
    assert_eq!(posted.count("POST /base/twice"), 1);
    assert_eq!(ask(&other, "target=/dead")["status"], 500);
    assert_eq!(posted.count("GET /base/dead"), 1);
}

#[test]
fn times_hold_and_a_server_that_fails_is_left_alone() {
    let server = Server::start();
    let wharf = start(&format!("http://{}/base", server.addr), "breaker = \"800ms\"\nretries = 0\n");
    let began = Instant::now();
    assert_eq!(ask(&wharf, "target=/slow&ms=200")["error"], "Timeout");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(ask(&wharf, "target=/cut")["error"], "Connection");
    // Half of twenty have to fail.
    for _ in 0..25 {
        ask(&wharf, "target=/dead");
    }
    let before = server.asked.lock().unwrap().len();
    let left = ask(&wharf, "target=/well");
    assert_eq!(left["error"], "Open", "{left}");
    assert_eq!(server.asked.lock().unwrap().len(), before);
    assert_eq!(wharf.get("/c/pass?target=/well").status, 503);
    wait("the server to be tried again", || (ask(&wharf, "target=/well")["status"] == 200).then_some(()));
    let state = wharf.admin("GET", "/v1/resources").text();
    assert!(state.contains("\"open\":"), "{state}");
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_down() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wharf = start(&format!("http://{gone}"), "start = \"degraded\"\n");
    assert_eq!(ask(&wharf, "target=/")["error"], "Connection");
    wait("its state", || wharf.admin("GET", "/v1/resources").text().contains("refused").then_some(()));
    // Without it the container is ready all the same: so the configuration says.
    assert_eq!(wharf.admin("GET", "/readyz").status, 200);
}
