//! The limit: bare hyper, one current-thread runtime for each processor, each with its own listener on the same port.
#![forbid(unsafe_code)]

use std::convert::Infallible;

use axum::extract::Query;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use wharf_bench::listen_on_all;

#[derive(Deserialize, Default)]
struct Asked {
    name: String,
}

#[derive(Serialize)]
struct Greeting<'a> {
    hello: &'a str,
    language: &'a str,
    client: &'a str,
}

fn json(request: &Request<Incoming>) -> Vec<u8> {
    let asked = Query::<Asked>::try_from_uri(request.uri()).map(|asked| asked.0).unwrap_or_default();
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let greeting = Greeting { hello: &asked.name, language: header("accept-language"), client: header("x-client") };
    serde_json::to_vec(&greeting).unwrap_or_default()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (content, content_type) = match request.uri().path() {
        "/json" => (json(&request).into(), "application/json"),
        _ => (Bytes::from_static(b"Hello, world!\n"), "text/plain; charset=utf-8"),
    };
    let mut response = Response::new(Full::new(content));
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    Ok(response)
}

async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

fn main() -> wharf_bench::Result<()> {
    listen_on_all("http", serve)
}
