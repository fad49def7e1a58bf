//! 'hello' through the whole pipeline, or by plain hyper on the same runtimes, to compare what a request costs:
//! `cargo run --release -p wharf-http --example hello -- wharf|plain [WORKERS]`, then load it and read the CPU time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use wharf_http::{Limits, Listen, Pipeline, Server, ServerConfig};
use wharf_kernel::{
    AppCounters, AppId, Body, ContextPath, Endpoint, Exchange, Gate, Lease, NoAccessLog, ResponseFuture, Route,
    RouteTable, Routes, ServerCounters, Version,
};

struct Hello;

fn hello() -> Response<Body> {
    let mut response = Response::new(Body::from("hello"));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

impl Endpoint for Hello {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        Box::pin(async move {
            let (_exchange, _lease) = (exchange, lease);
            hello()
        })
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let plain = match arguments.next().as_deref() {
        Some("plain") => true,
        Some("wharf") => false,
        _ => return Err(std::io::Error::other("usage: hello wharf|plain [WORKERS]")),
    };
    let workers = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    if plain {
        return serve_plain(workers);
    }
    let id = AppId { host: "default".into(), path: ContextPath::root(), version: Version::default() };
    let route = Route {
        guard: None,
        counters: Arc::new(AppCounters::new(id.clone())),
        id,
        generation: 1,
        gate: Gate::new(|| {}),
        endpoint: Arc::new(Hello),
        servlets: None,
        suspended: false,
    };
    let table = RouteTable::new([], [Arc::new(route)]).map_err(std::io::Error::other)?;
    let pipeline = Arc::new(Pipeline {
        routes: Arc::new(Routes::new(table)),
        access: Arc::new(NoAccessLog),
        counters: Arc::new(ServerCounters::default()),
        limits: Limits::default(),
        protect: None,
        challenges: None,
    });
    let listen = vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
    let server = Server::start(&ServerConfig { listen, workers, ..ServerConfig::default() }, pipeline)?;
    server.accept();
    println!("listening on {}", server.bound()[0]);
    loop {
        std::thread::park();
    }
}

/// Plain hyper: one runtime for each worker, connections handed out in turn.
fn serve_plain(workers: usize) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
    let senders: Vec<_> = (0..workers)
        .map(|_| {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<std::net::TcpStream>();
            std::thread::spawn(move || {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
                runtime.block_on(async move {
                    while let Some(stream) = receiver.recv().await {
                        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                        let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
                            Ok::<_, Infallible>(hello())
                        });
                        let mut builder = hyper::server::conn::http1::Builder::new();
                        builder.timer(TokioTimer::new());
                        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
                    }
                });
            });
            sender
        })
        .collect();
    for (n, stream) in listener.incoming().enumerate() {
        let stream = stream?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let _ = senders[n % senders.len()].send(stream);
    }
    Ok(())
}
