//! hyper's upgrade for applications that are mounted unchanged.
//!
//! axum's `WebSocketUpgrade`, and whoever calls `hyper::upgrade::on`, looks for an `OnUpgrade` in the request's extensions. Only
//! hyper's own server can make one. So for a request that asks for an upgrade a server of hyper's is run in memory: it is
//! given the head of a request, hands out its `OnUpgrade`, and waits. When the application has answered 101, and the
//! container gives the connection, the little server answers 101, too, into the void, and lets go of the connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;

use crate::application::BoxFuture;
use crate::goodbye::{Guest, Polite};
use crate::upgrade::{Handler, Stream};
use crate::{Body, ContainerInfo, ServletContext, upgrade};

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: it\r\n\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A little server that waits for the application's answer.
pub(crate) struct Handshake {
    server: BoxFuture<'static, ()>,
    connection: Arc<Mutex<Option<Connection>>>,
    go: oneshot::Sender<()>,
    /// Where it is a WebSocket, which is closed when the application has to end.
    polite: Option<Arc<ServletContext>>,
}

/// What the application lives on.
type Connection = Pin<Box<dyn Stream>>;

/// How long a client has to answer the goodbye that is said for the application.
const GOODBYE: Duration = Duration::from_secs(3);

/// Puts an `OnUpgrade` into a request, which asks for an upgrade.
pub(crate) fn offer(request: &mut http::Request<Body>) -> Option<Box<Handshake>> {
    let (go, told) = oneshot::channel::<()>();
    let (told, found) = (Mutex::new(Some(told)), Arc::new(Mutex::new(None::<OnUpgrade>)));
    let service = {
        let found = found.clone();
        service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
            let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                if let Some(told) = told {
                    let _ = told.await;
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                Ok::<_, Infallible>(response)
            }
        })
    };
    let connection = Arc::<Mutex<Option<Connection>>>::default();
    let late = Late { head: HEAD, swallowed: 0, given: connection.clone(), stream: None };
    let server = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .serve_connection(late, service)
        .with_upgrades();
    let mut server: BoxFuture<'static, ()> = Box::pin(async move {
        if let Err(error) = server.await {
            tracing::debug!(target: "wharf_sdk", "the upgrade failed: {error}");
        }
    });
    // It reads the head, calls the service, and waits.
    let _ = server.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let on_upgrade = found.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let info = request.extensions().get::<ContainerInfo>();
    let polite = info.filter(|_| upgrade::asks_for(request.version(), request.headers(), "websocket"));
    let polite = polite.map(|info| info.context().clone());
    request.extensions_mut().insert(on_upgrade);
    Some(Box::new(Handshake { server, connection, go, polite }))
}

impl Handshake {
    /// What to do with the connection after the application's 101.
    pub(crate) fn into_handler(self) -> Handler {
        let Self { server, connection, go, polite } = self;
        let give = move |stream: Connection| {
            *connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
            let _ = go.send(());
        };
        Box::new(move |upgraded| match polite {
            None => {
                give(Box::pin(upgraded));
                server
            }
            Some(context) => {
                let polite = Polite::new(upgraded);
                give(Box::pin(Guest(polite.clone())));
                Box::pin(async move {
                    server.await;
                    say_goodbye(polite, context).await;
                })
            }
        })
    }
}

/// Waits until the application has to end, and ends its WebSocket; or until the application has ended it.
async fn say_goodbye(polite: Polite, context: Arc<ServletContext>) {
    let mut draining = pin!(context.draining());
    poll_fn(|cx| match polite.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => draining.as_mut().poll(cx),
    })
    .await;
    // The client answers, the application reads that and lets go; where either does not, it has had its time.
    let end = async {
        poll_fn(|cx| polite.poll_goodbye(cx)).await;
        poll_fn(|cx| polite.poll_gone(cx)).await;
    };
    let _ = tokio::time::timeout(GOODBYE, end).await;
    polite.hang_up();
}

/// A connection that comes late: before it is there, it gives the head of a request and takes the head of a response.
struct Late {
    head: &'static [u8],
    /// How much of [`END_OF_HEAD`] has just been written.
    swallowed: usize,
    given: Arc<Mutex<Option<Connection>>>,
    stream: Option<Connection>,
}

impl Late {
    /// The connection, once it is there and hyper's own bytes are out of the way.
    fn stream(&mut self) -> Option<Pin<&mut (dyn Stream + 'static)>> {
        if self.swallowed < END_OF_HEAD.len() {
            return None;
        }
        if self.stream.is_none() {
            self.stream = self.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.stream.as_mut().map(Pin::as_mut)
    }
}

impl Read for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let (now, later) = self.head.split_at(self.head.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.head = later;
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = self.stream() else { return Poll::Pending };
        // Through a buffer of this side: hyper's cursor can be filled without `unsafe` only by a copy.
        let mut chunk = [0; 8192];
        let len = chunk.len().min(buffer.remaining());
        let mut read = ReadBuf::new(&mut chunk[..len]);
        ready!(stream.poll_read(cx, &mut read))?;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Late {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(stream) = self.stream() {
            return stream.poll_write(cx, bytes);
        }
        let mut taken = 0;
        for byte in bytes {
            if self.swallowed == END_OF_HEAD.len() {
                break;
            }
            taken += 1;
            self.swallowed = match *byte == END_OF_HEAD[self.swallowed] {
                true => self.swallowed + 1,
                false => usize::from(*byte == END_OF_HEAD[0]),
            };
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().map_or(Poll::Ready(Ok(())), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().map_or(Poll::Ready(Ok(())), |stream| stream.poll_shutdown(cx))
    }
}
