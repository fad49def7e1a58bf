//! Statements and what they give.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::de::DeserializeOwned;
use wharf_abi::{FfiDataSource, FfiRows, FfiSqlValue, FfiSqlWork, FfiStatement, FfiTransaction, SqlAnswer};

use super::row::{Row, take};
use super::{SqlError, SqlErrorKind, ToSql};
use crate::log;

/// Where a statement runs.
#[derive(Clone)]
pub(super) enum Target {
    Source(Arc<FfiDataSource>),
    Transaction(Arc<FfiTransaction>),
}

impl Target {
    fn query(&self, sql: String, sets: Vec<Vec<FfiSqlValue>>, timeout: Option<Duration>) -> FfiSqlWork {
        let statement = FfiStatement {
            sql: sql.into(),
            sets: sets.into_iter().map(Into::into).collect(),
            // 0 would be the configured time.
            timeout_ms: timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
            request: log::request_id().into(),
        };
        match self {
            Self::Source(source) => source.query(statement),
            Self::Transaction(transaction) => transaction.query(statement),
        }
    }
}

/// What a statement did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows that were changed.
    pub rows_affected: u64,
    /// The last id that the database gave out, where it says: SQLite and MySQL. With PostgreSQL use `returning id`.
    pub last_insert_id: Option<i64>,
}

/// A statement with its parameters, made by [`DataSource::query`](super::DataSource::query) and
/// [`Transaction::query`](super::Transaction::query).
///
/// Nothing is done before one of the functions that give something is awaited. Dropped before its end, it is cancelled: the
/// database is told to stop, and the connection is closed.
#[must_use = "it does nothing before it is awaited"]
pub struct Query {
    pub(super) target: Target,
    pub(super) sql: String,
    pub(super) parameters: Vec<FfiSqlValue>,
    pub(super) timeout: Option<Duration>,
}

impl Query {
    pub(super) fn new(target: Target, sql: String) -> Self {
        Self { target, sql, parameters: Vec::new(), timeout: None }
    }

    /// The next parameter.
    pub fn bind(mut self, value: impl ToSql) -> Self {
        self.parameters.push(value.to_sql().0);
        self
    }

    /// How long the database may be silent, instead of `statement_timeout` of the resource.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn start(self) -> Receiver {
        Receiver::new(self.target.query(self.sql, vec![self.parameters], self.timeout))
    }

    /// Runs it for what it does. Rows that it gives are thrown away.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(self) -> Result<Done, SqlError> {
        let mut receiver = self.start();
        while poll_fn(|cx| receiver.poll_piece(cx)).await? {
            receiver.values.clear();
        }
        Ok(receiver.done)
    }

    /// All rows.
    ///
    /// # Errors
    /// What the database says, or that a row does not fit.
    pub async fn fetch_all<T: DeserializeOwned>(self) -> Result<Vec<T>, SqlError> {
        let mut receiver = self.start();
        let mut all = Vec::new();
        loop {
            let more = poll_fn(|cx| receiver.poll_piece(cx)).await?;
            while let Some((columns, values)) = receiver.next_row() {
                all.push(take(columns, values)?);
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// The first row, if there is any. The others are thrown away.
    ///
    /// # Errors
    /// As [`Query::fetch_all`].
    pub async fn fetch_optional<T: DeserializeOwned>(self) -> Result<Option<T>, SqlError> {
        let mut receiver = self.start();
        let mut first = None;
        loop {
            let more = poll_fn(|cx| receiver.poll_piece(cx)).await?;
            if first.is_none()
                && let Some((columns, values)) = receiver.next_row()
            {
                first = Some(take(columns, values)?);
            }
            // To the end: a connection that is left in the middle of a result is lost.
            receiver.values.clear();
            receiver.at = 0;
            if !more {
                return Ok(first);
            }
        }
    }

    /// The first row.
    ///
    /// # Errors
    /// As [`Query::fetch_all`]; [`SqlErrorKind::Other`] when there is none.
    pub async fn fetch_one<T: DeserializeOwned>(self) -> Result<T, SqlError> {
        let row = self.fetch_optional().await?;
        row.ok_or_else(|| SqlError::new(SqlErrorKind::Other, "the statement gave no row where one was asked for"))
    }

    /// The rows, one after the other, as they come: however many there are, only a few are in memory.
    pub fn fetch<T: DeserializeOwned>(self) -> RowStream<T> {
        RowStream { receiver: Some(self.start()), more: true, row: PhantomData }
    }

    /// The rows as [`Row`]s.
    pub fn fetch_rows(self) -> RowStream<Row> {
        RowStream { receiver: Some(self.start()), more: true, row: PhantomData }
    }
}

/// A statement that runs with many sets of parameters, made by [`DataSource::batch`](super::DataSource::batch) and
/// [`Transaction::batch`](super::Transaction::batch): wholly or not at all.
#[must_use = "it does nothing before it is awaited"]
pub struct Batch {
    target: Target,
    sql: String,
    sets: Vec<Vec<FfiSqlValue>>,
    current: Vec<FfiSqlValue>,
}

impl Batch {
    pub(super) fn new(target: Target, sql: String) -> Self {
        Self { target, sql, sets: Vec::new(), current: Vec::new() }
    }

    /// The next parameter of the set.
    pub fn bind(mut self, value: impl ToSql) -> Self {
        self.current.push(value.to_sql().0);
        self
    }

    /// The set is complete; another one begins.
    pub fn add(mut self) -> Self {
        self.sets.push(std::mem::take(&mut self.current));
        self
    }

    /// Runs it with each set. The rows changed are counted together.
    ///
    /// # Errors
    /// What the database says. Then nothing of it was done; within a transaction, that has to be rolled back.
    pub async fn execute(mut self) -> Result<Done, SqlError> {
        if !self.current.is_empty() {
            self = self.add();
        }
        if self.sets.is_empty() {
            return Ok(Done::default());
        }
        let mut receiver = Receiver::new(self.target.query(self.sql, self.sets, None));
        while poll_fn(|cx| receiver.poll_piece(cx)).await? {
            receiver.values.clear();
        }
        Ok(receiver.done)
    }
}

/// The container's pieces of a result.
struct Receiver {
    work: FfiSqlWork,
    columns: Arc<[String]>,
    width: usize,
    values: Vec<FfiSqlValue>,
    /// The first value that was not given out.
    at: usize,
    done: Done,
}

impl Receiver {
    fn new(work: FfiSqlWork) -> Self {
        Self { work, columns: Arc::default(), width: 0, values: Vec::new(), at: 0, done: Done::default() }
    }

    /// Takes the next piece. False: it was the last.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SqlError>> {
        self.work.poll_answer(cx).map(|answer| match answer {
            SqlAnswer::Rows(FfiRows { columns, width, values, done }) => {
                if let Some(columns) = columns.into_option() {
                    self.columns = columns.into_iter().map(String::from).collect();
                }
                self.width = width;
                self.values = values.into();
                self.at = 0;
                let Some(done) = done.into_option() else { return Ok(true) };
                self.done =
                    Done { rows_affected: done.rows_affected, last_insert_id: done.last_insert_id.into_option() };
                Ok(false)
            }
            SqlAnswer::Failed(error) => Err(error.into()),
            SqlAnswer::Pending | SqlAnswer::Begun(_) | SqlAnswer::Done(_) => Ok(false),
        })
    }

    /// The next row of the piece, with the names of the columns.
    fn next_row(&mut self) -> Option<(&Arc<[String]>, &[FfiSqlValue])> {
        let row = self.values.get(self.at..self.at + self.width).filter(|row| !row.is_empty())?;
        self.at += self.width;
        Some((&self.columns, row))
    }
}

/// What a row becomes in a [`RowStream`].
pub(super) trait FromPiece: Sized {
    fn from_piece(columns: &Arc<[String]>, values: &[FfiSqlValue]) -> Result<Self, SqlError>;
}

impl FromPiece for Row {
    fn from_piece(columns: &Arc<[String]>, values: &[FfiSqlValue]) -> Result<Self, SqlError> {
        Ok(Row::new(columns.clone(), values.to_vec()))
    }
}

impl<T: DeserializeOwned> FromPiece for T {
    fn from_piece(columns: &Arc<[String]>, values: &[FfiSqlValue]) -> Result<Self, SqlError> {
        take(columns, values)
    }
}

/// The rows of a statement, as they come. A [`Stream`], and by itself good for a loop:
///
/// ```
/// # async fn demo(db: &wharf_sdk::sql::DataSource) -> Result<(), wharf_sdk::sql::SqlError> {
/// let mut rows = db.query("select id, name from product").fetch::<(i64, String)>();
/// while let Some(row) = rows.next().await {
///     let (id, name) = row?;
///     println!("{id} {name}");
/// }
/// # Ok(()) }
/// ```
pub struct RowStream<T> {
    receiver: Option<Receiver>,
    more: bool,
    row: PhantomData<fn() -> T>,
}

#[allow(private_bounds)]
impl<T: FromPiece> RowStream<T> {
    /// The next row; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<T, SqlError>> {
        poll_fn(|cx| self.poll_row(cx)).await
    }

    fn poll_row(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, SqlError>>> {
        loop {
            let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
            if let Some((columns, values)) = receiver.next_row() {
                return Poll::Ready(Some(T::from_piece(columns, values)));
            }
            if !self.more {
                self.receiver = None;
                return Poll::Ready(None);
            }
            match receiver.poll_piece(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(more)) => self.more = more,
                Poll::Ready(Err(error)) => {
                    self.receiver = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

#[allow(private_bounds)]
impl<T: FromPiece> Stream for RowStream<T> {
    type Item = Result<T, SqlError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_row(cx)
    }
}
