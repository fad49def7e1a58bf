//! Drives one WebSocket: frames in and out, pings, the closing handshake, and the application's handler, all in one future.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};

use super::inbox::Inbox;
use super::metered::Metered;
use super::servlet::Settings;
use super::socket::Command;
use super::{CloseReason, Message};
use crate::application::{BoxFuture, contain};
use crate::{BoxError, ServletContext, Upgraded};

/// How long the client has for its part of the closing handshake, and then to close the connection.
const GOODBYE: Duration = Duration::from_secs(3);
/// What is read of a client that goes on sending after the end, before it is cut off.
const LINGER_BYTES: usize = 1024 * 1024;
/// Steps at a time: others on this thread want to go on, too.
const STEPS: usize = 64;
/// A socket that says nothing needs no more; a large message grows the buffer for its time.
const BUFFER: usize = 4 * 1024;

/// The application's part.
type Live = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// How far a socket is.
enum Phase {
    Open,
    /// A close frame is on its way, in one direction or both, until then.
    Closing(Instant),
    /// Nothing more is read or written.
    Over,
}

pub(super) struct Driver {
    socket: WebSocketStream<Metered<Upgraded>>,
    phase: Phase,
    settings: Settings,
    handler: Option<BoxFuture<'static, Result<(), BoxError>>>,
    commands: mpsc::Receiver<Command>,
    inbox: Arc<Inbox>,
    draining: Option<BoxFuture<'static, ()>>,
    /// Nothing more comes from the client; it is over when the last frame is out.
    deaf: bool,
    /// The application has not taken the last message yet, so none is read.
    blocked: bool,
    /// Something waits to be flushed, and nothing of it has moved since then.
    unflushed: Option<Instant>,
    /// When something last came from the client.
    heard: Instant,
    /// What had been read and written then.
    moved: (u64, u64),
    pinged: bool,
    talked: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    /// Lives on a connection to its end.
    pub(super) async fn run(
        stream: Upgraded,
        settings: Settings,
        live: Live,
        commands: mpsc::Receiver<Command>,
        inbox: Arc<Inbox>,
        context: Arc<ServletContext>,
    ) {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(settings.max_message))
            .max_frame_size(Some(settings.max_frame.unwrap_or(settings.max_message)));
        let stream = Metered { stream, read: 0, written: 0 };
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let now = Instant::now();
        let mut driver = Self {
            socket,
            phase: Phase::Open,
            settings,
            handler: None,
            commands,
            inbox,
            draining: Some(Box::pin(async move { context.draining().await })),
            deaf: false,
            blocked: false,
            unflushed: None,
            heard: now,
            moved: (0, 0),
            pinged: false,
            talked: now,
            timer: Box::pin(tokio::time::sleep(GOODBYE)),
        };
        driver.set_timer(now);
        match contain(live) {
            Some(handler) => driver.handler = Some(handler),
            None => driver.close(&CloseReason::new(1011, "")),
        }
        poll_fn(|cx| driver.poll_socket(cx)).await;
        let Self { socket, handler, .. } = driver;
        let mut goodbye = std::pin::pin!(linger(socket.into_inner().stream));
        let (mut gone, mut handler) = (false, handler);
        // The handler may have things to put in order, which shall not keep the client, nor the other way round.
        poll_fn(|cx| {
            gone = gone || goodbye.as_mut().poll(cx).is_ready();
            if let Some(live) = &mut handler
                && poll_handler(live, cx).is_ready()
            {
                handler = None;
            }
            if gone && handler.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Lets the client read the last frame: what it still sends would reset the connection and take that frame away from it.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let read = async {
        let mut left = LINGER_BYTES;
        let mut buffer = [0; 512];
        if stream.shutdown().await.is_ok() {
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                match left.checked_sub(read) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        }
    };
    let _ = tokio::time::timeout(GOODBYE, read).await;
}

/// Polls the handler. `Ready` with the code to close with.
fn poll_handler(handler: &mut BoxFuture<'static, Result<(), BoxError>>, cx: &mut Context<'_>) -> Poll<u16> {
    match contain(|| handler.as_mut().poll(cx)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(Ok(()))) => Poll::Ready(1000),
        Some(Poll::Ready(Err(error))) => {
            tracing::error!("the handler of a WebSocket failed: {error}");
            Poll::Ready(1011)
        }
        None => Poll::Ready(1011),
    }
}

impl Driver {
    /// `Ready` when nothing more is read or written.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..STEPS {
            let mut moved = false;
            if let Some(handler) = &mut self.handler
                && let Poll::Ready(code) = poll_handler(handler, cx)
            {
                self.handler = None;
                self.close(&CloseReason::new(code, ""));
            }
            if let Some(draining) = &mut self.draining
                && draining.as_mut().poll(cx).is_ready()
            {
                self.draining = None;
                self.close(&CloseReason::new(1001, "going away"));
            }
            moved |= self.take_commands(cx);
            self.flush(cx);
            moved |= self.read(cx);
            self.watch_time(cx);
            if matches!(self.phase, Phase::Over) || (self.deaf && self.unflushed.is_none()) {
                self.commands.close();
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins to close, after what waits to be sent, unless that has begun. The application's own goodbye comes first.
    fn close(&mut self, reason: &CloseReason) {
        let mut reason = reason.clone();
        while let Phase::Open = self.phase {
            match self.commands.try_recv() {
                Ok(Command::Send(message)) => self.say(message.into()),
                Ok(Command::Close(own)) => {
                    reason = own;
                    break;
                }
                Err(_) => break,
            }
        }
        if let Phase::Open = self.phase {
            self.say(tungstenite::Message::Close(Some(reason.frame())));
            self.closing(reason);
        }
    }

    fn closing(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Open) {
            let now = Instant::now();
            self.phase = Phase::Closing(now + GOODBYE);
            self.inbox.end(reason);
            self.commands.close();
            // What still waits can't be sent after a close frame.
            while self.commands.try_recv().is_ok() {}
            self.set_timer(now);
        }
    }

    fn lost(&mut self, why: &str) {
        self.inbox.end(CloseReason::lost(why));
        self.commands.close();
        self.phase = Phase::Over;
    }

    /// Buffers a message.
    fn say(&mut self, message: tungstenite::Message) {
        self.unflushed.get_or_insert_with(Instant::now);
        if let Err(error) = Pin::new(&mut self.socket).start_send(message) {
            self.failed(error);
        }
    }

    /// Takes what the application wants to send, as long as the client reads.
    fn take_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..STEPS {
            if !matches!(self.phase, Phase::Open) {
                break;
            }
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.failed(error);
                    break;
                }
                Poll::Pending => break,
            }
            let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) else { break };
            moved = true;
            match command {
                Command::Send(message) => {
                    self.talked = Instant::now();
                    self.say(message.into());
                }
                Command::Close(reason) => self.close(&reason),
            }
        }
        moved
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if self.unflushed.is_some() {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = None,
                Poll::Ready(Err(error)) => self.failed(error),
                Poll::Pending => {}
            }
        }
    }

    /// Reads one frame or message, when there is room for it.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let open = matches!(self.phase, Phase::Open);
        if self.deaf || matches!(self.phase, Phase::Over) {
            return false;
        }
        self.blocked = open && !self.inbox.poll_room(cx);
        if self.blocked {
            return false;
        }
        let Poll::Ready(next) = Pin::new(&mut self.socket).poll_next(cx) else { return false };
        match next {
            None => {
                self.inbox.end(CloseReason::lost(""));
                self.deaf = true;
            }
            Some(Err(error)) => {
                self.deaf = true;
                self.failed(error);
            }
            Some(Ok(message)) => {
                (self.heard, self.pinged) = (Instant::now(), false);
                if matches!(message, tungstenite::Message::Ping(_) | tungstenite::Message::Close(_)) {
                    // The answer waits to be flushed.
                    self.unflushed.get_or_insert(self.heard);
                }
                match message {
                    tungstenite::Message::Close(frame) => self.closing(CloseReason::of(frame)),
                    message if open => {
                        if let Some(message) = Message::of(message) {
                            self.talked = self.heard;
                            self.inbox.put(message);
                        }
                    }
                    _ => {}
                }
            }
        }
        true
    }

    /// What the client did wrong is told to it; what went wrong with the connection ends it.
    fn failed(&mut self, error: Error) {
        let reason = match &error {
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.phase = Phase::Over;
                return;
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
                return self.lost(&error.to_string());
            }
            Error::Protocol(_) => CloseReason::new(1002, error.to_string()),
            Error::Utf8(_) => CloseReason::new(1007, "text that is not UTF-8"),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                CloseReason::new(1009, "the message is larger than allowed")
            }
            _ => CloseReason::new(1011, ""),
        };
        tracing::debug!(target: "wharf_sdk", "a WebSocket failed: {error}");
        if matches!(self.phase, Phase::Open) {
            self.close(&reason);
        } else {
            self.phase = Phase::Over;
        }
    }

    /// Pings a silent client, and gives up one that has gone or that does not read.
    fn watch_time(&mut self, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Phase::Closing(until) = self.phase {
                if until <= now {
                    return self.lost("the client did not finish the closing handshake");
                }
            } else {
                if self.settings.idle_timeout.is_some_and(|time| self.talked + time <= now) {
                    self.close(&CloseReason::new(1000, "idle"));
                } else if let Some(time) = self.settings.keep_alive {
                    let (read, written) = (self.socket.get_ref().read, self.socket.get_ref().written);
                    let (before, written_before) = std::mem::replace(&mut self.moved, (read, written));
                    if read != before {
                        // It may be in the middle of a large frame.
                        self.heard = self.heard.max(now.checked_sub(time).unwrap_or(now));
                    }
                    if written != written_before {
                        self.unflushed = self.unflushed.map(|_| now);
                    }
                    if self.blocked {
                        // It may have sent a lot: nobody looks.
                        self.heard = now;
                    }
                    if self.unflushed.is_some_and(|since| since + time * 2 <= now) {
                        return self.lost("the client does not read");
                    }
                    if self.heard + time * 2 <= now && self.pinged {
                        return self.lost("the client does not answer");
                    }
                    if self.heard + time <= now && !self.pinged {
                        self.pinged = true;
                        self.say(tungstenite::Message::Ping(bytes::Bytes::new()));
                    }
                }
                self.flush(cx);
            }
            self.set_timer(now);
        }
    }

    fn set_timer(&mut self, now: Instant) {
        let keep_alive = self.settings.keep_alive;
        let next = match self.phase {
            Phase::Closing(until) => Some(until),
            _ => [
                self.settings.idle_timeout.map(|time| self.talked + time),
                keep_alive.map(|time| self.heard + time * if self.pinged { 2 } else { 1 }),
                keep_alive.and_then(|time| Some(self.unflushed? + time * 2)),
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        // A day where nothing is due: then it looks again.
        let next = next.unwrap_or(now + Duration::from_secs(86_400)).max(now + Duration::from_millis(1));
        self.timer.as_mut().reset(next);
    }
}
