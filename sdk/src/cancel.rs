//! How an application learns that the client of a request has gone.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::Request;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    InFlight,
    Answered,
    Cancelled,
}

/// The client went away before the response was ready: the error that [`AsyncListener::on_error`](crate::AsyncListener) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientGone;

impl fmt::Display for ClientGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client went away before the response was ready")
    }
}

impl std::error::Error for ClientGone {}

/// Tells how a request ends: see [`Request::cancelled`].
#[derive(Debug, Clone)]
pub struct Cancelled(watch::Receiver<Stage>);

impl Cancelled {
    /// True when the client has gone already.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow() == Stage::Cancelled
    }

    /// Waits for the end of the request: true when the client went away, false when the response was ready first.
    pub async fn wait(&mut self) -> bool {
        let ended = self.0.wait_for(|stage| *stage != Stage::InFlight).await.map(|stage| *stage);
        // The sender is gone only with the application.
        ended.unwrap_or(Stage::Cancelled) == Stage::Cancelled
    }
}

/// The requests of an application that somebody watches. Where nobody does, the end of a request costs one read of a
/// number.
#[derive(Default)]
pub(crate) struct Cancellations {
    watched: AtomicUsize,
    /// Who tells, by request id.
    senders: Mutex<HashMap<Box<str>, watch::Sender<Stage>>>,
}

impl Cancellations {
    fn watch(&self, id: &str) -> Cancelled {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = senders.entry(id.into()).or_insert_with(|| {
            self.watched.fetch_add(1, Ordering::Relaxed);
            watch::channel(Stage::InFlight).0
        });
        Cancelled(sender.subscribe())
    }

    fn end(&self, id: &str, stage: Stage) {
        if self.watched.load(Ordering::Relaxed) == 0 {
            return;
        }
        let ended = self.senders.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(sender) = ended {
            self.watched.fetch_sub(1, Ordering::Relaxed);
            sender.send_replace(stage);
        }
    }

    /// The response to this request is ready.
    pub(crate) fn answered(&self, id: &str) {
        self.end(id, Stage::Answered);
    }

    /// The future that makes the response to this request is dropped.
    pub(crate) fn cancelled(&self, id: &str) {
        self.end(id, Stage::Cancelled);
    }
}

impl Request {
    /// Tells when the client has gone before the response was ready.
    ///
    /// Then the container drops the future of the servlet: what it awaits is dropped with it, and its destructors run. This
    /// is for what runs beside it, such as a task that was spawned.
    ///
    /// ```
    /// use wharf_sdk::{Error, Request, Response};
    ///
    /// async fn report(request: Request) -> Result<Response, Error> {
    ///     let mut cancelled = request.cancelled();
    ///     let rows = tokio::spawn(async move {
    ///         tokio::select! {
    ///             true = cancelled.wait() => 0,
    ///             rows = async { 42 } => rows, // a long query
    ///         }
    ///     });
    ///     Ok(Response::text(format!("{} rows", rows.await?)))
    /// }
    /// ```
    pub fn cancelled(&self) -> Cancelled {
        self.context().link().cancellations.watch(self.facts().id())
    }
}
