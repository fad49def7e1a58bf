//! A WebSocket endpoint as a servlet.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::driver::Driver;
use super::origin::{self, Origins};
use super::{WebSocket, handshake};
use crate::application::BoxFuture;
use crate::{BoxError, Error, Request, Response, Servlet};

type Handler = Arc<dyn Fn(WebSocket, Request) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// What the handler of a WebSocket may return: nothing, or a `Result` whose error closes the socket with 1011.
#[diagnostic::on_unimplemented(
    message = "the handler of a WebSocket can't return `{Self}`",
    label = "expected `()` or `Result<(), E>` with an error that turns into `wharf_sdk::BoxError`"
)]
pub trait IntoClose {
    /// The error, if there is one.
    ///
    /// # Errors
    /// The handler's own.
    fn into_close(self) -> Result<(), BoxError>;
}

impl IntoClose for () {
    fn into_close(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> IntoClose for Result<(), E> {
    fn into_close(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// How a socket is to behave.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) max_message: usize,
    pub(super) max_frame: Option<usize>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
}

/// A servlet that opens WebSockets; made by [`websocket`].
#[must_use]
pub struct WebSocketServlet {
    handler: Handler,
    protocols: Vec<String>,
    origins: Origins,
    settings: Settings,
}

/// A servlet that opens WebSockets (RFC 6455) and hands each to `handler`, with the request that opened it.
///
/// ```
/// use wharf_sdk::{App, Request, WebSocket, websocket};
///
/// fn app() -> App {
///     App::new().servlet("echo", "/echo", websocket(|mut socket: WebSocket, _request: Request| async move {
///         while let Some(message) = socket.recv().await {
///             if socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     }))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use wharf_sdk::TestClient;
/// let client = TestClient::new(app()).start().await.unwrap();
/// let mut socket = client.get("/echo").websocket().await.unwrap();
/// socket.send("hello").await.unwrap();
/// assert_eq!(socket.recv().await.unwrap().as_text(), Some("hello"));
/// # });
/// ```
///
/// What it does without the handler's doing:
///
/// - A request that opens no WebSocket is answered as the standard asks: 405, 426, 400, or 403 for a page of another origin.
/// - Pings are answered; a client from which nothing comes for 30 seconds is pinged, and given up after 30 more.
/// - Messages above 1 MiB close the socket with 1009, broken frames with 1002, text that is not UTF-8 with 1007.
/// - When the application has to end (redeploy, undeploy, stop of the container), the socket is closed with 1001 and
///   [`WebSocket::recv`] gives `None`; the handler has the rest of the drain time to end.
/// - When the handler returns the socket is closed with 1000; with 1011 where it fails or panics.
pub fn websocket<F, R>(handler: F) -> WebSocketServlet
where
    F: Fn(WebSocket, Request) -> R + Send + Sync + 'static,
    R: Future<Output: IntoClose> + Send + 'static,
{
    let handler: Handler = Arc::new(move |socket, request| {
        let live = handler(socket, request);
        Box::pin(async move { live.await.into_close() })
    });
    WebSocketServlet {
        handler,
        protocols: Vec::new(),
        origins: Origins::default(),
        settings: Settings {
            max_message: 1024 * 1024,
            max_frame: None,
            keep_alive: Some(Duration::from_secs(30)),
            idle_timeout: None,
        },
    }
}

impl WebSocketServlet {
    /// The subprotocols that it speaks. The first of the client's list that is among them is agreed on; a client that asks
    /// for none of them gets a socket without one, as the standard says, and may close it.
    pub fn protocols<T: Into<String>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Lets pages of these origins (`https://app.example.com`) open it, beside those of the same host.
    ///
    /// # Panics
    /// When one of them is no origin: scheme, host, and the port where it is not the usual one.
    pub fn origins<T: Into<String>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
        for it in &origins {
            assert!(origin::is_valid(it), "'{it}' is no origin; one looks like https://app.example.com");
        }
        self.origins = Origins::Listed(origins);
        self
    }

    /// Lets pages of every origin open it. Only where it does nothing in the name of a user whom a cookie identifies: any
    /// page can make a browser open it, with its cookies.
    pub fn any_origin(mut self) -> Self {
        self.origins = Origins::Any;
        self
    }

    /// The largest message that is taken, in bytes. Default: 1 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// The largest frame that is taken, in bytes. Default: as the largest message, for browsers send a message as one frame.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.settings.max_frame = Some(bytes);
        self
    }

    /// After how long without anything from the client it is pinged; after as long again the connection counts as lost.
    /// `None` never asks. Default: 30 seconds.
    pub fn keep_alive(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive = time.into();
        self
    }

    /// After how long without a message in either direction the socket is closed, with 1000. Default: never.
    pub fn idle_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = time.into();
        self
    }
}

impl Servlet for WebSocketServlet {
    async fn service(&self, request: Request) -> Result<Response, Error> {
        let accepted = match handshake::check(&request, &self.protocols, &self.origins) {
            Ok(accepted) => accepted,
            Err(response) => return Ok(*response),
        };
        let context = request.context().clone();
        if context.is_draining() {
            // The next one will be there in a moment, or nobody will.
            let mut response = Response::status(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Ok(response);
        }
        let response = accepted.response();
        let (handler, settings) = (self.handler.clone(), self.settings.clone());
        let (socket, commands, inbox) = WebSocket::new(accepted.protocol.map(Into::into));
        Ok(response.switching(Box::new(move |stream| {
            let live: Box<dyn FnOnce() -> _ + Send> = Box::new(move || handler(socket, request));
            Box::pin(Driver::run(stream, settings, live, commands, inbox, context))
        })))
    }
}

impl std::fmt::Debug for WebSocketServlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocketServlet")
            .field("protocols", &self.protocols)
            .field("origins", &self.origins)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
