//! A WebSocket in the hands of the application.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::inbox::{Inbox, Reader};
use super::{CloseReason, Message};

/// Messages that wait to be sent, for each socket.
pub(super) const OUTBOX: usize = 32;

/// What the application tells the driver.
pub(super) enum Command {
    Send(Message),
    Close(CloseReason),
}

/// An open WebSocket.
///
/// Pings are answered and sent without its doing. It is closed with 1000 when the handler returns.
#[derive(Debug)]
pub struct WebSocket {
    sender: Sender,
    receiver: Receiver,
    protocol: Option<Arc<str>>,
}

/// The receiving half of a [`WebSocket`].
pub struct Receiver(Reader);

/// The sending half of a [`WebSocket`]. It can be cloned and kept, so that others can send to this client.
#[derive(Clone)]
pub struct Sender {
    commands: mpsc::Sender<Command>,
    inbox: Arc<Inbox>,
}

/// Why a message could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// The socket is closed.
    Closed(CloseReason),
    /// The client does not read fast enough: 32 messages wait already. Only [`Sender::try_send`] says so.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => write!(f, "the WebSocket is closed ({reason})"),
            Self::Full => f.write_str("the client does not read fast enough"),
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl WebSocket {
    pub(super) fn new(protocol: Option<Arc<str>>) -> (Self, mpsc::Receiver<Command>, Arc<Inbox>) {
        let (commands, taken) = mpsc::channel(OUTBOX);
        let inbox = Arc::<Inbox>::default();
        let sender = Sender { commands, inbox: inbox.clone() };
        (Self { sender, receiver: Receiver(Reader(inbox.clone())), protocol }, taken, inbox)
    }

    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// As [`Sender::close`].
    ///
    /// # Panics
    /// As [`Sender::close`].
    pub async fn close(&self, code: u16, text: &str) {
        self.sender.close(code, text).await;
    }

    /// Why it is closed; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.receiver.close_reason()
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// A sender more.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Both halves, to be used at the same time.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Receiver {
    /// The next message. `None` when the socket is closed: by the client, by the application, because the connection is
    /// lost, or because the application has to end.
    ///
    /// Dropping the future loses no message.
    pub async fn recv(&mut self) -> Option<Message> {
        poll_fn(|cx| self.0.0.poll_take(cx)).await
    }

    /// Why it is closed; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.0.ended()
    }
}

impl Sender {
    fn closed(&self) -> SendError {
        SendError::Closed(self.inbox.ended().unwrap_or_else(|| CloseReason::new(1000, "")))
    }

    /// Sends a message; waits while many wait already.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.commands.send(Command::Send(message.into())).await.map_err(|_| self.closed())
    }

    /// Sends a message, or does not wait: for a message to many clients, where a slow one must not stop the others.
    ///
    /// # Errors
    /// When the socket is closed, or 32 messages wait already.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.commands.try_send(Command::Send(message.into())).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => self.closed(),
        })
    }

    /// Closes the socket, after what waits to be sent. `text` is cut after 123 bytes.
    ///
    /// # Panics
    /// When `code` is none that an application may send: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
    pub async fn close(&self, code: u16, text: &str) {
        assert!(CloseReason::may_be_sent(code), "{code} is not a close code that an application may send");
        // Where it is closed already, that is as well.
        let _ = self.commands.send(Command::Close(CloseReason::new(code, text))).await;
    }

    /// Whether the socket is closed.
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}
