//! A connection from its begin on: what comes before the first request, and the protocol that is spoken then.

use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use wharf_kernel::Connection;
use wharf_worker::timeout;

use crate::berth::Guard;
use crate::homed::{Homed, homed};
use crate::proxy_protocol::introduced;
use crate::task::Boxed;
use crate::tls::{self, Tls};
use crate::worker::Shared;
use crate::{http1, http2};

/// An accepted socket.
pub(crate) enum Socket {
    Tcp {
        stream: std::net::TcpStream,
        /// Whether it begins with a PROXY protocol header.
        proxy_protocol: bool,
        tls: Option<Arc<Tls>>,
    },
    Unix(std::os::unix::net::UnixStream),
}

/// A connection from its begin to its end. `None` where it has ended already.
pub(crate) fn begin(worker: &Shared, socket: Socket, guard: Guard) -> Option<Boxed> {
    Some(match socket {
        Socket::Tcp { stream, proxy_protocol, tls } => {
            let connection = Connection::new(stream.peer_addr().ok(), stream.local_addr().ok(), false);
            let stream = homed(TcpStream::from_std(stream).ok()?, guard.berth.clone());
            if tls.is_none() && !proxy_protocol && !worker.pipeline.limits.http2.cleartext {
                Box::pin(http1::serve(stream, connection, guard))
            } else {
                Box::pin(serve_tcp(stream, connection, proxy_protocol, tls, guard))
            }
        }
        Socket::Unix(stream) => {
            let stream = homed(UnixStream::from_std(stream).ok()?, guard.berth.clone());
            Box::pin(http1::serve(stream, Connection::new(None, None, false), guard))
        }
    })
}

/// Serves a connection that does not simply begin with a request of HTTP/1.
async fn serve_tcp(
    stream: Homed<TcpStream>,
    connection: Connection,
    proxy_protocol: bool,
    tls: Option<Arc<Tls>>,
    guard: Guard,
) {
    let (mut stream, mut connection) = (stream, connection);
    if proxy_protocol {
        let trusted = guard.worker.pipeline.limits.trusted_proxies.clone();
        match guard.unless_drained(introduced(stream, connection, &trusted)).await {
            Some(Some(introduced)) => (stream, connection) = introduced,
            _ => return,
        }
    }
    match tls {
        Some(tls) => serve_tls(stream, connection, tls, guard).await,
        None if guard.worker.pipeline.limits.http2.cleartext => serve_either(stream, connection, guard).await,
        None => http1::serve(stream, connection, guard).await,
    }
}

/// Makes the handshake, then serves the protocol that was agreed on (ALPN, RFC 7301).
async fn serve_tls(stream: Homed<TcpStream>, connection: Connection, tls: Arc<Tls>, guard: Guard) {
    let remote = connection.remote;
    let handshake = timeout(tls.handshake_timeout(), tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream));
    let Some(result) = guard.unless_drained(handshake).await else { return };
    let stream = match result {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake failed: {error}");
            return;
        }
        None => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake took too long");
            return;
        }
    };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let connection = connection.encrypted(tls::facts(session));
    if http2 { http2::serve(stream, connection, guard).await } else { http1::serve(stream, connection, guard).await }
}

/// Serves the protocol that the client begins with, where HTTP/2 may be spoken without TLS.
async fn serve_either(stream: Homed<TcpStream>, connection: Connection, guard: Guard) {
    let limit = guard.worker.pipeline.limits.header_timeout;
    match guard.unless_drained(timeout(limit, http2::sniff(stream))).await {
        Some(Some(Ok((true, stream)))) => http2::serve(stream, connection, guard).await,
        Some(Some(Ok((false, stream)))) => http1::serve(stream, connection, guard).await,
        _ => {}
    }
}
