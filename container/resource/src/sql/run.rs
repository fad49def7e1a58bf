//! Runs statements: rows come in pieces of a bounded size, and a database that is silent for too long is given up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_stream::stream;
use futures_core::Stream;
use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, Column, Either, Executor, Row, SqlSafeStr, SqlStr};
use tokio::runtime::Handle;
use tokio::time::timeout;
use wharf_kernel::resource::{Done, Pieces, Rows, SqlError, SqlErrorKind, SqlValue, Statement};

use super::Source;
use super::engine::{self, Engine, ForEngine};
use super::pool::Conn;

/// A piece is complete with so many rows...
const ROWS: usize = 256;
/// ...or so many bytes in texts and the like.
const BYTES: usize = 64 * 1024;

/// What a statement gives.
pub(super) type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<Rows, SqlError>> + Send + 'a>>;

/// Rows on their way out, polled and dropped inside of the runtime that has the timers.
pub(super) struct Inside {
    stream: Option<RowStream<'static>>,
    runtime: Handle,
}

impl Inside {
    pub(super) fn boxed(stream: RowStream<'static>, runtime: Handle) -> Box<dyn Pieces> {
        Box::new(Self { stream: Some(stream), runtime })
    }
}

impl Pieces for Inside {
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Rows, SqlError>>> {
        let this = &mut *self;
        let _inside = this.runtime.enter();
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        let next = stream.as_mut().poll_next(cx);
        if let Poll::Ready(piece) = &next
            && !matches!(piece, Some(Ok(Rows { done: None, .. })))
        {
            // At its end: the connection goes back now, not when somebody lets this go.
            this.stream = None;
        }
        next
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.stream = None;
    }
}

/// Runs one command that gives nothing.
pub(super) async fn command<E: Engine>(conn: &mut Conn<E>, sql: &'static str) -> Result<(), SqlError> {
    command_text(conn, sql.into_sql_str()).await
}

/// The same for a text of ours that is put together.
pub(super) async fn command_text<E: Engine>(conn: &mut Conn<E>, sql: SqlStr) -> Result<(), SqlError> {
    conn.busy = true;
    let limit = conn.shared().settings.statement_timeout;
    let done = timeout(limit, conn.inner.as_executor().execute(sqlx::raw_sql(sql))).await;
    match done {
        Ok(Ok(_)) => {
            conn.rest();
            Ok(())
        }
        Ok(Err(error)) => Err(failed(conn, &error)),
        Err(_) => Err(silent(limit)),
    }
}

fn failed<E: Engine>(conn: &mut Conn<E>, error: &sqlx::Error) -> SqlError {
    let ours = engine::error::<E>(error);
    if engine::breaks(error) || ours.kind == SqlErrorKind::Connection {
        conn.shared().lost();
    } else {
        conn.rest();
    }
    ours
}

fn silent(limit: std::time::Duration) -> SqlError {
    SqlError::new(SqlErrorKind::Timeout, format!("the database was silent for {limit:?}; the statement was cancelled"))
}

/// Runs a statement, all its sets of parameters.
pub(super) fn rows<'a, E: Engine>(
    conn: &'a mut Conn<E>,
    statement: Statement,
    source: &'a Source<E>,
    who: &'a str,
) -> RowStream<'a> {
    Box::pin(stream! {
        let began = Instant::now();
        let limit = statement.timeout.unwrap_or(source.settings().statement_timeout);
        let mut all = Done::default();
        let mut piece = Rows::default();
        let mut failure = None;
        let shown = statement.sql.clone();
        conn.busy = true;
        'sets: for set in statement.sets {
            let sql = E::statement(statement.sql.clone(), &set);
            let arguments = match E::arguments(set) {
                Ok(arguments) => arguments,
                Err(error) => {
                    // Nothing was sent.
                    conn.rest();
                    failure = Some(error);
                    break;
                }
            };
            let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
            let mut bytes = 0;
            let error = {
                let mut results = conn.inner.as_executor().fetch_many(query);
                loop {
                    match timeout(limit, results.next()).await {
                        Err(_) => {
                            failure = Some(silent(limit));
                            break 'sets;
                        }
                        Ok(None) => break None,
                        Ok(Some(Err(error))) => break Some(error),
                        Ok(Some(Ok(Either::Left(result)))) => {
                            let done = E::done(&result);
                            all.rows_affected += done.rows_affected;
                            all.last_insert_id = done.last_insert_id.or(all.last_insert_id);
                        }
                        Ok(Some(Ok(Either::Right(row)))) => {
                            match take::<E>(&row, &mut piece) {
                                Ok(size) => bytes += size,
                                Err(error) => {
                                    failure = Some(error);
                                    break 'sets;
                                }
                            }
                            if bytes >= BYTES || piece.values.len() >= ROWS * piece.width.max(1) {
                                bytes = 0;
                                let width = piece.width;
                                yield Ok(std::mem::replace(&mut piece, Rows { width, ..Rows::default() }));
                            }
                        }
                    }
                }
            };
            if let Some(error) = error {
                failure = Some(failed(conn, &error));
                break;
            }
        }
        source.took(began.elapsed(), who, &statement.request, &shown);
        match failure {
            Some(error) => yield Err(source.note(error)),
            None => {
                conn.rest();
                piece.done = Some(all);
                yield Ok(piece);
            }
        }
    })
}

/// Takes a row over. Returns its size in bytes, about.
fn take<E: Engine>(row: &E::Row, piece: &mut Rows) -> Result<usize, SqlError> {
    let columns = row.columns();
    if piece.width == 0 {
        piece.width = columns.len();
        piece.columns = Some(columns.iter().map(|c| c.name().to_owned()).collect());
    }
    let mut size = 0;
    for at in 0..columns.len() {
        let value = E::value(row, at)?;
        size += match &value {
            SqlValue::Text(t) | SqlValue::Json(t) | SqlValue::Decimal(t) => t.len(),
            SqlValue::Bytes(b) => b.len(),
            _ => 8,
        };
        piece.values.push(value);
    }
    Ok(size)
}
