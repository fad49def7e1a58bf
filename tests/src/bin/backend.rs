//! A plain HTTP server for the proxy's tests: answers with its name, says what it was sent, and misbehaves when asked.
//!
//! PORT or SOCKET: where it listens. NAME: its name. H2: speak HTTP/2. CERT and KEY: over TLS. UNHEALTHY: a file that makes
//! `/health` fail while it is there.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite};

type Body = BoxBody<Bytes, hyper::Error>;

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let name = var("NAME").or_else(|| var("PORT")).unwrap_or_default();
    let ok = StatusCode::OK;
    Ok(match path.as_str() {
        "/health" if var("UNHEALTHY").is_some_and(|file| std::path::Path::new(&file).exists()) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "no")
        }
        "/seen" => {
            let authority = request.uri().authority().map(|a| format!("host: {a}\n")).unwrap_or_default();
            let mut seen = format!("{} {} {:?}\n{authority}", request.method(), request.uri(), request.version());
            for (name, value) in request.headers() {
                seen.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            }
            let body = request.into_body().collect().await.map(|b| b.to_bytes().len()).unwrap_or(usize::MAX);
            text(ok, format!("{seen}{body} bytes"))
        }
        "/echo" => Response::new(request.into_body().boxed()),
        "/slow" => {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            text(ok, name)
        }
        "/burn" => {
            // The thread's own time: others may have the processor for a while.
            let taken =
                || std::time::Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("no time before 0");
            let begin = taken();
            while taken() - begin < std::time::Duration::from_millis(300) {}
            text(ok, "burnt")
        }
        "/never" => std::future::pending().await,
        "/exit" => std::process::exit(3),
        "/env" => text(ok, std::env::vars().map(|(n, v)| format!("{n}={v}\n")).collect::<String>()),
        "/redirect" => {
            let mut response = text(StatusCode::FOUND, "");
            response.headers_mut().insert("location", http::HeaderValue::from_static("/there"));
            response
        }
        "/tunnel" if request.headers().contains_key(UPGRADE) => {
            let upgrade = request.headers()[UPGRADE].clone();
            let on = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = on.await {
                    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }
            });
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
            response.headers_mut().insert(UPGRADE, upgrade);
            response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
            response
        }
        "/host" => text(ok, request.headers().get(HOST).map(|h| h.as_bytes().to_vec()).unwrap_or_default()),
        path => match path.strip_prefix("/status/").and_then(|s| s.parse().ok()) {
            Some(status) => text(status, name),
            None => text(ok, name),
        },
    })
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let io = TokioIo::new(stream);
    if var("H2").is_some() {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(answer)).await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service_fn(answer)).with_upgrades().await;
    }
}

fn tls() -> Option<tokio_rustls::TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(var("CERT")?).ok()?.collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_file(var("KEY")?).ok()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = builder.with_no_client_auth().with_single_cert(certificates, key).ok()?;
    config.alpn_protocols = vec![if var("H2").is_some() { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("a line of output");
    if let Some(path) = var("SOCKET") {
        let listener = tokio::net::UnixListener::bind(path)?;
        loop {
            tokio::spawn(serve(listener.accept().await?.0));
        }
    }
    let port = var("PORT").and_then(|p| p.parse().ok()).unwrap_or(0u16);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let tls = tls();
    println!("listening on {}", listener.local_addr()?);
    loop {
        let stream = listener.accept().await?.0;
        match tls.clone() {
            None => _ = tokio::spawn(serve(stream)),
            Some(tls) => {
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        }
    }
}
