//! Protocol upgrade: a connection that speaks something else than HTTP from a 101 on (RFC 9110, section 7.8).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Extensions, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::application::BoxFuture;
use crate::{Error, Request, Response};

/// What lives on an upgraded connection.
pub(crate) type Handler = Box<dyn FnOnce(Upgraded) -> BoxFuture<'static, ()> + Send>;

/// A raw connection after an upgrade: bytes both ways, as [`AsyncRead`] and [`AsyncWrite`].
///
/// Dropping it closes the connection. When the container cuts it, reads and writes fail.
pub struct Upgraded(Arc<Pipe>);

/// The connection, between the application, which uses it, and whoever can take it away.
#[derive(Default)]
struct Pipe(Mutex<State>);

#[derive(Default)]
struct State {
    stream: Option<Pin<Box<dyn Stream>>>,
    /// Told when the stream is gone.
    owner: Option<Waker>,
}

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the stream.
    fn end(&self) {
        let mut state = self.state();
        let (stream, owner) = (state.stream.take(), state.owner.take());
        drop(state);
        drop(stream);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgraded")
    }
}

impl Upgraded {
    fn with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut (dyn Stream + 'static)>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.0.state().stream {
            Some(stream) => poll(stream.as_mut()),
            None => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut"))),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

/// Takes the connection away when it is dropped, wherever the [`Upgraded`] is.
struct Owner(Arc<Pipe>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// An upgraded connection that lives: its handler, and then whatever the handler left the connection to. Done when the
/// application has let the connection go.
pub(crate) struct Living {
    // Before the owner, so that the handler's last words still find the connection.
    handler: Option<BoxFuture<'static, ()>>,
    owner: Owner,
}

impl Living {
    pub(crate) fn new(handler: Handler, stream: impl Stream + 'static) -> Self {
        let pipe = Arc::new(Pipe(Mutex::new(State { stream: Some(Box::pin(stream)), owner: None })));
        Self { handler: Some(handler(Upgraded(pipe.clone()))), owner: Owner(pipe) }
    }
}

impl Future for Living {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(handler) = &mut self.handler
            && handler.as_mut().poll(cx).is_ready()
        {
            self.handler = None;
        }
        let mut state = self.owner.0.state();
        if self.handler.is_none() && state.stream.is_none() {
            return Poll::Ready(());
        }
        state.owner = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// In the extensions of a 101: what comes after it.
#[derive(Clone)]
pub(crate) struct Switch(Arc<Mutex<Option<Handler>>>);

impl Switch {
    /// What comes after this response, where it is a 101 that says so.
    #[inline]
    pub(crate) fn of(status: StatusCode, extensions: &mut Extensions) -> Option<Handler> {
        if status == StatusCode::SWITCHING_PROTOCOLS { Self::take(extensions) } else { None }
    }

    #[cold]
    fn take(extensions: &mut Extensions) -> Option<Handler> {
        let switch = extensions.remove::<Self>()?;
        switch.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a comma-separated list of tokens has this one, in whatever case.
pub(crate) fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|it| it.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
}

/// Whether a request asks to upgrade its connection to anything at all.
pub(crate) fn asks(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        // A walk over the few fields of a request costs less than a look-up.
        && headers.keys().any(|name| *name == header::UPGRADE)
        && has_token(headers, header::CONNECTION, "upgrade")
}

/// Whether a request asks to go on with this protocol.
pub(crate) fn asks_for(version: Version, headers: &HeaderMap, protocol: &str) -> bool {
    asks(version, headers) && has_token(headers, header::UPGRADE, protocol)
}

impl Request {
    /// Whether the client asks to go on with this protocol (`Upgrade: PROTOCOL`, in whatever case).
    pub fn asks_for_upgrade(&self, protocol: &str) -> bool {
        asks_for(self.version(), self.headers(), protocol)
    }

    /// Goes on with another protocol on this connection (`HttpServletRequest.upgrade`): answers 101, and hands the raw
    /// connection to `handler` when the client has got it. A client that did not ask for the protocol gets 426.
    ///
    /// The handler runs as a request does: on the container's worker, inside the application's runtime. It shall end when
    /// the application is to end, which [`ServletContext::draining`](crate::ServletContext::draining) tells; else it is cut
    /// when the drain time is over. For WebSocket see [`websocket`](crate::websocket).
    ///
    /// ```
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use wharf_sdk::{Error, Request, Response, Upgraded};
    ///
    /// async fn echo(request: Request) -> Result<Response, Error> {
    ///     let context = request.context().clone();
    ///     request.upgrade("echo", |mut stream: Upgraded| async move {
    ///         let mut buffer = [0; 1024];
    ///         loop {
    ///             tokio::select! {
    ///                 () = context.draining() => return,
    ///                 read = stream.read(&mut buffer) => match read {
    ///                     Ok(len @ 1..) if stream.write_all(&buffer[..len]).await.is_ok() => {}
    ///                     _ => return,
    ///                 },
    ///             }
    ///         }
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// 500 when `protocol` can't stand in a header.
    pub fn upgrade<F, R>(self, protocol: &str, handler: F) -> Result<Response, Error>
    where
        F: FnOnce(Upgraded) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let status = match self.asks_for_upgrade(protocol) {
            true => StatusCode::SWITCHING_PROTOCOLS,
            false => StatusCode::UPGRADE_REQUIRED,
        };
        let mut response = Response::status(status).header(header::UPGRADE, protocol)?;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        Ok(match status {
            StatusCode::SWITCHING_PROTOCOLS => response.switching(Box::new(move |stream| Box::pin(handler(stream)))),
            _ => response,
        })
    }
}

impl Response {
    /// The same, with what comes after it.
    pub(crate) fn switching(mut self, handler: Handler) -> Self {
        self.extensions_mut().insert(Switch(Arc::new(Mutex::new(Some(handler)))));
        self
    }
}
