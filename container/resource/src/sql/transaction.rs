//! Transactions: a connection for as long as one is open, and nothing is left open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use async_stream::stream;
use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, SqlSafeStr};
use tokio::sync::Mutex;
use tokio::time::timeout;
use wharf_kernel::resource::{
    Isolation, Pieces, SqlError, SqlErrorKind, Statement, Transaction, TransactionStep, Work,
};

use super::Source;
use super::engine::{Engine, SHORT};
use super::pool::Pooled;
use super::run::{self, Inside};
use crate::bound::{Open, Who};
use crate::inward::Inward;

/// What is open, and for whom.
pub(super) struct State<E: Engine> {
    source: Arc<Source<E>>,
    who: Arc<Who>,
    request: String,
    place: String,
    began: Instant,
    /// The connection, until the end.
    conn: Mutex<Option<Pooled<E>>>,
    /// Set when it has ended, or is about to.
    ended: AtomicBool,
    /// Set when it was reported for being open too long.
    reported: AtomicBool,
    /// Set when a statement failed, with an engine that then takes no more.
    failed: AtomicBool,
}

/// The application's handle. Dropped, it rolls back.
pub(super) struct Handle<E: Engine>(Arc<State<E>>);

fn ended(what: &str) -> SqlError {
    SqlError::new(SqlErrorKind::Ended, what)
}

const OVER: &str = "the transaction has ended";

/// Begins a transaction.
pub(super) fn begin<E: Engine>(
    source: Arc<Source<E>>,
    who: Arc<Who>,
    isolation: Isolation,
    request: String,
    place: String,
) -> Work<Result<Arc<dyn Transaction>, SqlError>> {
    let runtime = source.runtime().clone();
    Inward::boxed(runtime, async move {
        let mut conn = source.get().await?;
        for command in E::begin(isolation) {
            run::command(&mut conn, command).await.map_err(|error| source.note(error))?;
        }
        let state = Arc::new(State {
            source,
            who: who.clone(),
            request,
            place,
            began: Instant::now(),
            conn: Mutex::new(Some(conn)),
            ended: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        let weak: Weak<State<E>> = Arc::downgrade(&state);
        who.opened(weak);
        Ok(Arc::new(Handle(state)) as Arc<dyn Transaction>)
    })
}

impl<E: Engine> Transaction for Handle<E> {
    fn query(&self, statement: Statement) -> Box<dyn Pieces> {
        let state = self.0.clone();
        let runtime = state.source.runtime().clone();
        let rows = stream! {
            let mut slot = state.conn.lock().await;
            let conn = match state.usable(&mut slot) {
                Ok(conn) => conn,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            let mut rows = run::rows(conn, statement, &state.source, &state.who.app);
            while let Some(piece) = rows.next().await {
                if piece.is_err() {
                    state.failed.store(true, Ordering::Relaxed);
                }
                yield piece;
            }
        };
        Inside::boxed(Box::pin(rows), runtime)
    }

    fn step(&self, step: TransactionStep) -> Work<Result<(), SqlError>> {
        let state = self.0.clone();
        let runtime = state.source.runtime().clone();
        Inward::boxed(runtime, async move { state.step(step).await })
    }
}

impl<E: Engine> State<E> {
    /// The connection, as long as the transaction goes on. One whose last statement was given up in the middle is closed.
    fn usable<'a>(&self, slot: &'a mut Option<Pooled<E>>) -> Result<&'a mut Pooled<E>, SqlError> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(ended(OVER));
        }
        if slot.as_ref().is_some_and(|conn| conn.busy) {
            *slot = None;
            self.end();
            return Err(ended("a statement of the transaction was given up before its end, so it was rolled back"));
        }
        slot.as_mut().ok_or_else(|| ended(OVER))
    }

    async fn step(&self, step: TransactionStep) -> Result<(), SqlError> {
        let mut slot = self.conn.lock().await;
        let conn = self.usable(&mut slot)?;
        let aborted = E::ERRORS_ABORT && self.failed.load(Ordering::Relaxed);
        let done = match step {
            TransactionStep::Commit if aborted => {
                let undone = run::command(conn, "rollback").await;
                undone.and(Err(ended("a statement of the transaction failed, so it was rolled back")))
            }
            TransactionStep::Commit => run::command(conn, "commit").await,
            TransactionStep::Rollback => run::command(conn, "rollback").await,
            TransactionStep::Savepoint(n) => {
                run::command_text(conn, AssertSqlSafe(format!("savepoint wharf_{n}")).into_sql_str()).await
            }
            TransactionStep::RollbackTo(n) => {
                let done =
                    run::command_text(conn, AssertSqlSafe(format!("rollback to savepoint wharf_{n}")).into_sql_str())
                        .await;
                if done.is_ok() {
                    self.failed.store(false, Ordering::Relaxed);
                }
                done
            }
            TransactionStep::Release(n) => {
                run::command_text(conn, AssertSqlSafe(format!("release savepoint wharf_{n}")).into_sql_str()).await
            }
        };
        let is_end = matches!(step, TransactionStep::Commit | TransactionStep::Rollback);
        // A commit that failed for a conflict is over with PostgreSQL, and not with SQLite: it is undone here.
        if is_end && done.is_err() && !conn.busy && !aborted && !E::ERRORS_ABORT {
            let _ = run::command(conn, "rollback").await;
        }
        if is_end || conn.busy {
            *slot = None;
            self.end();
        }
        done.map_err(|error| self.source.note(error))
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.who.closed();
    }

    /// Undoes what is open, says so, and lets the connection go.
    fn undo(self: &Arc<Self>, why: &str) -> Option<String> {
        if self.ended.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.who.closed();
        let what = format!(
            "a transaction of '{}', begun at {} {:.1?} ago, was {why}: rolled back",
            self.source.name(),
            self.place,
            self.began.elapsed()
        );
        self.source.left_open();
        let request = Some(&self.request).filter(|id| !id.is_empty());
        tracing::warn!(app = %self.who.app, generation = self.who.generation, request, resource = %self.source.name(), "{what}");
        let state = self.clone();
        self.source.runtime().spawn(async move {
            // A statement that is still at work has the connection; without it, it is closed.
            let undo = async {
                let mut slot = state.conn.lock().await;
                if let Some(mut conn) = slot.take()
                    && !conn.busy
                {
                    let _ = run::command(&mut conn, "rollback").await;
                }
            };
            if timeout(SHORT, undo).await.is_err() {
                tracing::warn!(resource = %state.source.name(), "a transaction could not be rolled back within {SHORT:?}");
            }
        });
        Some(what)
    }
}

impl<E: Engine> Open for State<E> {
    fn request(&self) -> &str {
        &self.request
    }

    fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn abandon(self: Arc<Self>, why: &str) -> Option<String> {
        self.undo(why)
    }

    fn leak(&self) -> Option<String> {
        let (age, limit) = (self.began.elapsed(), self.source.settings().leak_after);
        let leaks = !limit.is_zero() && age > limit && self.is_open();
        if !leaks || self.reported.swap(true, Ordering::Relaxed) {
            return None;
        }
        let name = self.source.name();
        Some(format!("a transaction of '{name}', begun at {} {age:.0?} ago, is still open", self.place))
    }
}

impl<E: Engine> Drop for Handle<E> {
    fn drop(&mut self) {
        self.0.undo("dropped before its end");
    }
}
