//! The other end of FastCGI for the tests: a responder that says what it is told to, and a client that keeps cookies.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use wharf_gateway::codec::{self, Record, kind};

use crate::{Answer, Wharf, is_required};

/// A request as the responder got it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// 1 for Responder, 2 for Authorizer.
    pub role: u8,
    /// Whether the connection is to be kept.
    pub keep: bool,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
    /// Its content.
    pub stdin: Vec<u8>,
    /// Counts the connections, from 1.
    pub connection: usize,
    /// Counts the requests on the connection, from 1.
    pub nth: usize,
}

impl Asked {
    /// A parameter; empty without one.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }
}

/// A connection, from the responder's end.
#[derive(Debug)]
pub struct Talk {
    stream: UnixStream,
    read: BytesMut,
}

impl Talk {
    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one stream of the response.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        codec::put(&mut out, kind, 1, bytes);
        self.raw(&out)
    }

    /// Ends the request.
    ///
    /// # Errors
    /// As the socket says.
    pub fn end(&mut self, app_status: u32, protocol_status: u8) -> io::Result<()> {
        let mut out = BytesMut::new();
        codec::put_end_request(&mut out, 1, app_status, protocol_status);
        self.raw(&out)
    }

    /// Answers with this text, head included.
    ///
    /// # Errors
    /// As the socket says.
    pub fn answer(&mut self, text: &str) -> io::Result<()> {
        self.send(kind::STDOUT, text.as_bytes())?;
        self.end(0, 0)
    }

    /// The next record; `None` at the end of the connection.
    ///
    /// # Errors
    /// As the socket says, or what is no record.
    pub fn record(&mut self) -> io::Result<Option<Record>> {
        loop {
            let taken = codec::take(&mut self.read);
            if let Some(record) = taken.map_err(|v| io::Error::other(format!("version {v}")))? {
                return Ok(Some(record));
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                length => self.read.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn request(&mut self) -> io::Result<Option<Asked>> {
        let (mut asked, mut params) = (Asked::default(), Vec::new());
        while let Some(record) = self.record()? {
            match (record.kind, record.content.len()) {
                (kind::BEGIN_REQUEST, 8) => (asked.role, asked.keep) = (record.content[1], record.content[2] & 1 == 1),
                (kind::PARAMS, 0) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let pairs = codec::pairs(&params).ok_or_else(|| io::Error::other("parameters that are none"))?;
                    asked.params = pairs.into_iter().map(|(n, v)| (text(n), text(v))).collect();
                    if asked.role == 2 {
                        return Ok(Some(asked));
                    }
                }
                (kind::PARAMS, _) => params.extend_from_slice(&record.content),
                (kind::STDIN, 0) => return Ok(Some(asked)),
                (kind::STDIN, _) => asked.stdin.extend_from_slice(&record.content),
                (kind::ABORT_REQUEST, _) => {}
                other => return Err(io::Error::other(format!("a record {other:?}"))),
            }
        }
        Ok(None)
    }
}

/// A FastCGI application in threads of the test.
#[derive(Debug)]
pub struct Responder {
    /// Connections that it has accepted.
    pub connections: Arc<AtomicUsize>,
}

impl Responder {
    /// Listens on a Unix socket and has `answer` answer each request. A connection is closed when it returns an error, or when
    /// it is not to be kept.
    ///
    /// # Panics
    /// When the socket can't be made.
    pub fn start(socket: &Path, answer: impl Fn(&Asked, &mut Talk) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, answer) = (connections.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = counter.fetch_add(1, Ordering::SeqCst) + 1;
                let answer = answer.clone();
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                    let mut talk = Talk { stream, read: BytesMut::new() };
                    let mut nth = 0;
                    while let Ok(Some(mut asked)) = talk.request() {
                        nth += 1;
                        (asked.connection, asked.nth) = (connection, nth);
                        if answer(&asked, &mut talk).is_err() || !asked.keep {
                            return;
                        }
                    }
                });
            }
        });
        Self { connections }
    }
}

/// Whether the files are there; a test that needs them is skipped else, if it may be.
///
/// # Panics
/// When one is missing, and all are required.
pub fn installed(files: &[&str]) -> bool {
    let missing = files.iter().find(|f| !Path::new(f).exists());
    if let Some(missing) = missing {
        assert!(!is_required(), "{missing} is not installed");
        println!("skipped: {missing} is not installed");
    }
    missing.is_none()
}

/// A client that keeps cookies and follows redirects, as a person's browser does.
#[derive(Debug)]
pub struct Browser<'a> {
    wharf: &'a Wharf,
    /// The cookies that it was given.
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    /// Without cookies.
    pub fn new(wharf: &'a Wharf) -> Self {
        Self { wharf, cookies: BTreeMap::new() }
    }

    /// GET, with redirects followed.
    pub fn get(&mut self, target: &str) -> Answer {
        let answer = self.send("GET", target, &[], b"");
        self.follow(answer)
    }

    /// Posts a form, and follows where it leads.
    pub fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<_> = fields.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect();
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = self.send("POST", target, &headers, pairs.join("&").as_bytes());
        self.follow(answer)
    }

    fn follow(&mut self, mut answer: Answer) -> Answer {
        for _ in 0..5 {
            let Some(location) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
                break;
            };
            let location = match location.split_once("://") {
                Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
                None => location.to_owned(),
            };
            answer = self.send("GET", location.split('#').next().unwrap_or_default(), &[], b"");
        }
        answer
    }

    /// One request, with its cookies.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let (cookies, host) = (cookies.join("; "), self.wharf.addr().to_string());
        let mut all = vec![("Host", host.as_str())];
        if !cookies.is_empty() {
            all.push(("Cookie", &cookies));
        }
        all.extend_from_slice(headers);
        let answer = self.wharf.send(method, target, &all, body);
        for (_, value) in answer.headers.iter().filter(|(n, _)| n == "set-cookie") {
            if let Some((name, value)) = value.split(';').next().and_then(|pair| pair.split_once('=')) {
                if value == "deleted" || value.is_empty() {
                    self.cookies.remove(name);
                } else {
                    self.cookies.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        answer
    }
}

fn escape(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
