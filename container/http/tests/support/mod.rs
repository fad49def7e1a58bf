//! A server on a free port with a small application, and a client that writes raw bytes.
#![allow(dead_code, unreachable_pub)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use wharf_http::{Bound, Limits, Listen, Pipeline, Server, ServerConfig};
use wharf_kernel::{
    AccessRecord, AccessSink, AppCounters, AppId, Body, ContextPath, Endpoint, Exchange, Gate, Lease, ResponseFuture,
    Route, RouteTable, Routes, ServerCounters, Version,
};
use wharf_mapping::ServletMap;

/// Answers with what it was asked, or as the path says.
pub struct Echo;

impl Endpoint for Echo {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        Box::pin(async move {
            let Exchange { request, path, authority, connection, .. } = *exchange;
            let _lease = lease;
            let text = match path.path_info().unwrap_or_default() {
                "/panic" => panic!("as asked"),
                "/bare" => {
                    let mut response = status(400);
                    response.headers_mut().insert("content-length", "0".parse().unwrap());
                    response.headers_mut().insert("connection", "close".parse().unwrap());
                    return response;
                }
                "/status/404" => return status(404),
                "/continue" => return status(102),
                "/upgrade" => return upgrade(request),
                "/lying" => {
                    let mut response = http::Response::new(Body::from("four"));
                    response.headers_mut().insert("content-length", "9".parse().unwrap());
                    response.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
                    return response;
                }
                "/tls" => format!("{} {:?}", connection.secure, connection.tls),
                "/unread" => format!("unread {}", request.method()),
                "/host" => format!("{authority} {:?}", request.headers().get_all("host").iter().collect::<Vec<_>>()),
                _ => {
                    let (method, version) = (request.method().clone(), request.version());
                    match request.into_body().collect().await {
                        Ok(body) => {
                            let body = body.to_bytes();
                            let (servlet, info) = (path.servlet_path(), path.path_info().unwrap_or("null"));
                            let context = if path.context().is_empty() { "/" } else { path.context() };
                            format!("{method} {version:?} {context} {servlet} {info} {}", body.len())
                        }
                        Err(_) => return status(400),
                    }
                }
            };
            http::Response::new(Body::from(text))
        })
    }
}

/// Switches to a protocol that sends back in capitals whatever comes.
fn upgrade(request: http::Request<Body>) -> http::Response<Body> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes.to_ascii_uppercase()).await.unwrap();
    });
    let mut response = status(101);
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "shout".parse().unwrap());
    response
}

fn status(code: u16) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

/// Keeps the records.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<AccessRecord>>);

impl AccessSink for Log {
    fn record(&self, record: AccessRecord) {
        self.0.lock().unwrap().push(record);
    }
}

pub struct Running {
    pub server: Server,
    pub pipeline: Arc<Pipeline>,
    pub log: Arc<Log>,
    pub addr: SocketAddr,
}

pub fn route(path: &str, servlets: Option<&[&str]>, suspended: bool) -> Arc<Route> {
    let id = AppId { host: "default".into(), path: ContextPath::parse(path).unwrap(), version: Version::default() };
    let servlets =
        servlets.map(|patterns| ServletMap::new(patterns.iter().map(|p| vec![(*p).to_owned()]).enumerate()).unwrap());
    Arc::new(Route {
        gate: Gate::new(|| {}),
        endpoint: Arc::new(Echo),
        servlets,
        guard: None,
        counters: Arc::new(AppCounters::new(id.clone())),
        id,
        generation: 1,
        suspended,
    })
}

pub fn start_with(limits: Limits, routes: Vec<Arc<Route>>) -> Running {
    let log = Arc::new(Log::default());
    let pipeline = Arc::new(Pipeline {
        routes: Arc::new(Routes::new(RouteTable::new([], routes).unwrap())),
        access: log.clone(),
        counters: Arc::new(ServerCounters::default()),
        limits: limits.clone(),
        protect: None,
        challenges: None,
    });
    let config = ServerConfig {
        listen: vec![Listen::Tcp("127.0.0.1:0".parse().unwrap())],
        workers: 2,
        limits,
        ..ServerConfig::default()
    };
    let server = Server::start(&config, pipeline.clone()).unwrap();
    server.accept();
    let Bound::Tcp(addr) = server.bound()[0].clone() else { panic!("a TCP listener") };
    Running { server, pipeline, log, addr }
}

pub fn start() -> Running {
    start_with(Limits::default(), vec![route("/", None, false), route("/shop", Some(&["/cart/*", "*.jsp"]), false)])
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends the bytes, then reads until the server closes.
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

pub fn read_all(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Status codes of all responses in the text.
pub fn statuses(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// A GET that asks for the connection to be closed.
pub fn get(addr: SocketAddr, target: &str) -> String {
    exchange(addr, format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
}
