//! The client's end of a WebSocket, in a test of an application.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use futures_sink::Sink;
use http::HeaderMap;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, protocol::Role};

use super::{CloseReason, Message};
use crate::upgrade::{Handler, Living};
use crate::{BoxError, Response};

/// The client's end of a WebSocket to a [`TestClient`](crate::TestClient), opened by
/// [`TestRequest::websocket`](crate::TestRequest::websocket). Without a socket of the system, and with the same frames.
pub struct TestSocket {
    socket: WebSocketStream<DuplexStream>,
    headers: HeaderMap,
    closed: Option<CloseReason>,
}

impl fmt::Debug for TestSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSocket").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl TestSocket {
    pub(crate) async fn open(response: Response, handler: Handler) -> Self {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(Living::new(handler, server));
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        Self { socket, headers: response.headers().clone(), closed: None }
    }

    /// Header fields of the 101.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), BoxError> {
        self.say(message.into().into()).await
    }

    /// Closes the socket, as a page does. What the other side says is still received.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn close(&mut self, code: u16, text: &str) -> Result<(), BoxError> {
        self.say(tungstenite::Message::Close(Some(CloseReason::new(code, text).frame()))).await
    }

    async fn say(&mut self, message: tungstenite::Message) -> Result<(), BoxError> {
        poll_fn(|cx| Pin::new(&mut self.socket).poll_ready(cx)).await?;
        Pin::new(&mut self.socket).start_send(message)?;
        Ok(poll_fn(|cx| Pin::new(&mut self.socket).poll_flush(cx)).await?)
    }

    /// The next message; `None` when the socket is closed.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            match poll_fn(|cx| Pin::new(&mut self.socket).poll_next(cx)).await {
                Some(Ok(tungstenite::Message::Close(frame))) => self.closed = Some(CloseReason::of(frame)),
                Some(Ok(message)) => {
                    if let Some(message) = Message::of(message) {
                        return Some(message);
                    }
                }
                Some(Err(_)) | None => {
                    self.closed.get_or_insert_with(|| CloseReason::lost(""));
                    return None;
                }
            }
        }
    }

    /// Why it was closed, once [`TestSocket::recv`] has given `None`.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }
}
