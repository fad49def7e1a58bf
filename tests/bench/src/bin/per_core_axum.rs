//! The limit for a mounted router: it alone, on bare hyper, one current-thread runtime for each processor.
#![forbid(unsafe_code)]

#[path = "../../../fixtures/bench-axum/src/router.rs"]
mod router;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use wharf_bench::listen_on_all;

async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = TowerToHyperService::new(router::router());
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()));
    }
}

fn main() -> wharf_bench::Result<()> {
    listen_on_all("http", serve)
}
