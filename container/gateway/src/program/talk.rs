//! The conversation with one process: both pipes at once, the client, and the clock.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use wharf_kernel::Body;

use super::input::InputError;
use super::request::Common;
use crate::cgi_response::{CgiHead, HeadLimits, parse_head};

/// Room for a read: at first enough for a small answer, at last what a pipe holds.
const ROOM: (usize, usize) = (8 << 10, 64 << 10);

/// When something was last sent to or read from a process.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request has no answer of a program.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the client gets, as long as it got nothing.
    pub(crate) status: StatusCode,
    /// For the log; empty where the client knows best.
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    /// The program's answer is not one.
    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, why)
    }
}

/// A part of a response's content.
pub(crate) enum Piece {
    Data(Bytes),
    /// The content is whole. Without this at its end it is not.
    End,
}

/// Whoever waits for the answer.
pub(crate) enum Client {
    /// For the head.
    Waiting(oneshot::Sender<Response<Body>>),
    /// For content.
    Reading(mpsc::Sender<Piece>),
    /// It has all that it gets.
    Served,
}

impl Client {
    /// Returns when the client is gone.
    pub(crate) async fn gone(&mut self) {
        match self {
            Self::Waiting(reply) => reply.closed().await,
            Self::Reading(pieces) => pieces.closed().await,
            Self::Served => std::future::pending().await,
        }
    }

    /// Answers, if that was not done yet, and says whether there was somebody to hear it.
    pub(crate) fn answer(&mut self, response: Response<Body>, next: Self) -> bool {
        match std::mem::replace(self, next) {
            Self::Waiting(reply) => reply.send(response).is_ok(),
            other => {
                *self = other;
                false
            }
        }
    }
}

/// One conversation.
pub(crate) struct Talk<'a, R> {
    pub(crate) client: &'a mut Client,
    /// What the program says.
    pub(crate) output: R,
    /// What has been read and not been used yet.
    pub(crate) buffer: BytesMut,
    /// Room for the next read.
    room: usize,
    /// Whether all that the program says is in the buffer.
    pub(crate) ended: bool,
    /// The task that sends the request's content.
    pub(crate) pump: Option<JoinHandle<Result<(), InputError>>>,
    pub(crate) activity: Activity,
    pub(crate) deadline: Instant,
    /// How long nothing may happen.
    pub(crate) idle: Duration,
    /// Wakes it to look whether that is so. It goes on through many reads: setting one for each would cost more than reading.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<R> Drop for Talk<'_, R> {
    fn drop(&mut self) {
        if let Some(pump) = &self.pump {
            pump.abort();
        }
    }
}

impl<'a, R> Talk<'a, R> {
    pub(crate) fn new(
        app: &Common,
        client: &'a mut Client,
        output: R,
        pump: Option<JoinHandle<Result<(), InputError>>>,
        activity: Activity,
    ) -> Self {
        Self {
            client,
            output,
            buffer: BytesMut::new(),
            room: ROOM.0,
            ended: false,
            pump,
            activity,
            deadline: Instant::now() + app.total_timeout,
            idle: app.first_byte_timeout,
            timer: None,
        }
    }
}

impl<R: AsyncRead + Unpin> Talk<'_, R> {
    /// Reads the head of the response.
    pub(crate) async fn head(&mut self, limits: HeadLimits) -> Result<CgiHead, Failure> {
        loop {
            if let Some((head, length)) = parse_head(&self.buffer, limits).map_err(Failure::bad)? {
                let _ = self.buffer.split_to(length);
                return Ok(head);
            }
            if self.read().await? == 0 {
                return Err(Failure::bad(match self.buffer.len() {
                    0 => "it ended without an answer".to_owned(),
                    _ => "it ended before its header did".to_owned(),
                }));
            }
        }
    }

    /// Takes what else is there already, so that a small answer need not be streamed.
    pub(crate) async fn at_once(&mut self) -> Result<(), Failure> {
        while !self.ended && self.buffer.len() < ROOM.1 {
            self.buffer.reserve(self.room);
            let mut read = pin!(self.output.read_buf(&mut self.buffer));
            match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
                Poll::Ready(read) => _ = self.has_read(read)?,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends the content on, to its end.
    pub(crate) async fn content(&mut self) -> Result<(), Failure> {
        loop {
            if !self.buffer.is_empty() {
                let data = self.buffer.split().freeze();
                self.send(Piece::Data(data)).await?;
            }
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the content and lets it go.
    pub(crate) async fn discard(&mut self) -> Result<(), Failure> {
        while self.read().await? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    /// Reads the content in whole.
    ///
    /// # Errors
    /// Where it has more bytes than `most`, too.
    pub(crate) async fn whole(&mut self, most: usize) -> Result<BytesMut, Failure> {
        while self.buffer.len() <= most {
            if self.read().await? == 0 {
                return Ok(self.buffer.split());
            }
        }
        Err(Failure::bad(format!("its answer has more than {most} bytes")))
    }

    /// Whether content is being streamed.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.client, Client::Reading(_))
    }

    /// Says that the content is whole.
    pub(crate) async fn finish(&mut self) {
        if !self.is_streaming() {
            return;
        }
        if let Client::Reading(sender) = std::mem::replace(&mut *self.client, Client::Served) {
            let _ = sender.send(Piece::End).await;
        }
    }

    async fn send(&mut self, piece: Piece) -> Result<(), Failure> {
        let Client::Reading(pieces) = &*self.client else { return Ok(()) };
        tokio::select! {
            sent = pieces.send(piece) => sent.map_err(|_| gone()),
            () = sleep_until(self.deadline) => Err(too_long()),
        }?;
        // A client that reads slowly does not make the program slow.
        self.activity.touch();
        Ok(())
    }

    fn has_read(&mut self, read: io::Result<usize>) -> Result<usize, Failure> {
        let length = read.map_err(|e| Failure::bad(format!("its output can't be read: {e}")))?;
        if length >= self.room {
            self.room = (self.room * 2).min(ROOM.1);
        }
        self.ended = length == 0;
        Ok(length)
    }

    /// Reads what is there, waiting for something; 0 at the end.
    async fn read(&mut self) -> Result<usize, Failure> {
        self.buffer.reserve(self.room);
        loop {
            let Self { client, output, buffer, pump, activity, deadline, idle, timer, .. } = self;
            let pump = async {
                match pump {
                    Some(pump) => pump.await.unwrap_or(Ok(())),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = output.read_buf(buffer) => {
                    activity.touch();
                    return self.has_read(read);
                }
                () = client.gone() => return Err(gone()),
                pumped = pump => {
                    self.pump = None;
                    if pumped.is_err() {
                        // The pipeline knows more of the body, and corrects the status.
                        return Err(Failure::new(StatusCode::BAD_REQUEST, ""));
                    }
                }
                failure = over(timer, activity, *idle, *deadline) => return Err(failure),
            }
        }
    }
}

/// Returns when nothing has happened for so long, or the deadline is over.
async fn over(timer: &mut Option<Pin<Box<Sleep>>>, activity: &Activity, idle: Duration, deadline: Instant) -> Failure {
    loop {
        let due = (activity.last() + idle).min(deadline);
        let sleep = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // Where it comes too early, it is set again then; only a shorter time has to be set at once.
        if sleep.deadline() > due || sleep.is_elapsed() {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().await;
        let now = Instant::now();
        if now >= deadline {
            return too_long();
        }
        if now >= activity.last() + idle {
            return Failure::new(StatusCode::GATEWAY_TIMEOUT, format!("it did nothing for {idle:?}"));
        }
    }
}

fn gone() -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "")
}

fn too_long() -> Failure {
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "it ran for longer than total_timeout allows")
}
