//! The port of data sources: statements with typed parameters, rows that are streamed, transactions.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Work;

/// A value of a parameter or of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL, of whatever type.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A number in binary floating point.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An exact decimal number, as text.
    Decimal(String),
    /// A date: `2026-11-25`.
    Date(String),
    /// A time of day: `13:01:02.5`.
    Time(String),
    /// A date and time in no time zone: `2026-11-25T13:01:02.5`.
    DateTime(String),
    /// A point in time: `2026-11-25T13:01:02.5Z` (RFC 3339).
    Timestamp(String),
    /// A UUID (RFC 9562).
    Uuid([u8; 16]),
    /// A JSON text.
    Json(String),
}

/// A statement, and for whom it is run.
#[derive(Debug, Clone)]
pub struct Statement {
    /// SQL. `?` stands for a parameter with every engine; `??` is a question mark.
    pub sql: String,
    /// The parameters; more than one set is a batch, done wholly or not at all.
    pub sets: Vec<Vec<SqlValue>>,
    /// How long the database may be silent; `None` is the configured time.
    pub timeout: Option<Duration>,
    /// Id of the request, empty where there is none.
    pub request: String,
}

/// What a statement did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows that were changed.
    pub rows_affected: u64,
    /// The last id that the database gave out, where it says (SQLite, MySQL).
    pub last_insert_id: Option<i64>,
}

/// Some rows of a result.
#[derive(Debug, Default)]
pub struct Rows {
    /// Names of the columns: with the first rows of a result.
    pub columns: Option<Vec<String>>,
    /// How many values make a row.
    pub width: usize,
    /// The values, row by row.
    pub values: Vec<SqlValue>,
    /// Set with the last rows.
    pub done: Option<Done>,
}

/// The rows of a statement, as they come.
pub trait Pieces: Send {
    /// The next of them. After an error, or after one with [`Rows::done`], there are no more.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Rows, SqlError>>>;
}

/// How transactions that run at the same time are kept apart (SQL:2016, 4.41.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As the database is set up.
    #[default]
    Default,
    /// READ UNCOMMITTED.
    ReadUncommitted,
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionStep {
    /// Its end: what it did is kept.
    Commit,
    /// Its end: what it did is undone.
    Rollback,
    /// A savepoint with this number.
    Savepoint(u32),
    /// What was done since the savepoint is undone.
    RollbackTo(u32),
    /// The savepoint is forgotten.
    Release(u32),
}

/// A step of a schema's history.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its place in the history.
    pub version: i64,
    /// What it is for.
    pub description: String,
    /// SQL, one statement or several.
    pub sql: String,
}

/// A database, through its pool of connections.
pub trait DataSource: Send + Sync + 'static {
    /// What answers: `sqlite`, `postgres`, `mysql`.
    fn engine(&self) -> &'static str;

    /// Runs a statement on a connection of its own.
    fn query(&self, statement: Statement) -> Box<dyn Pieces>;

    /// Begins a transaction. `request` is the id of the request it belongs to, `place` where it was begun in the source.
    fn begin(
        &self,
        isolation: Isolation,
        request: String,
        place: String,
    ) -> Work<Result<Arc<dyn Transaction>, SqlError>>;

    /// Brings the schema to the newest of these, each applied once, under a lock. Returns how many were applied.
    fn migrate(&self, migrations: Vec<Migration>) -> Work<Result<u64, SqlError>>;
}

/// A transaction. Dropped before its end it is rolled back.
pub trait Transaction: Send + Sync + 'static {
    /// Runs a statement in it. One at a time: the next one waits.
    fn query(&self, statement: Statement) -> Box<dyn Pieces>;

    /// Takes a step.
    fn step(&self, step: TransactionStep) -> Work<Result<(), SqlError>>;
}

/// What an application can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SqlErrorKind {
    /// A unique or primary key exists already (23505).
    UniqueViolation,
    /// A foreign key points nowhere, or is still pointed to (23503).
    ForeignKeyViolation,
    /// A value that must be there is missing (23502).
    NotNullViolation,
    /// A check constraint does not hold (23514).
    CheckViolation,
    /// Another transaction was in the way; doing the whole transaction again may help (40001, 40P01).
    SerializationFailure,
    /// There is no connection, or it broke (class 08).
    Connection,
    /// No connection became free within the wait limit.
    WaitLimit,
    /// The database did not answer in time (57014).
    Timeout,
    /// The statement can't be understood, or names what is not there (class 42).
    Syntax,
    /// A value does not fit: of the parameters or of a row (class 22).
    Data,
    /// The user may not do it (42501, class 28).
    Denied,
    /// The transaction has ended.
    Ended,
    /// Anything else.
    Other,
}

impl SqlErrorKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::UniqueViolation,
        Self::ForeignKeyViolation,
        Self::NotNullViolation,
        Self::CheckViolation,
        Self::SerializationFailure,
        Self::Connection,
        Self::WaitLimit,
        Self::Timeout,
        Self::Syntax,
        Self::Data,
        Self::Denied,
        Self::Ended,
        Self::Other,
    ];

    /// For metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UniqueViolation => "unique_violation",
            Self::ForeignKeyViolation => "foreign_key_violation",
            Self::NotNullViolation => "not_null_violation",
            Self::CheckViolation => "check_violation",
            Self::SerializationFailure => "serialization_failure",
            Self::Connection => "connection",
            Self::WaitLimit => "wait_limit",
            Self::Timeout => "timeout",
            Self::Syntax => "syntax",
            Self::Data => "data",
            Self::Denied => "denied",
            Self::Ended => "ended",
            Self::Other => "other",
        }
    }
}

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// What an application can do something about.
    pub kind: SqlErrorKind,
    /// SQLSTATE, empty where the engine has none.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// Name of the constraint that was violated, empty where it is not known.
    pub constraint: String,
}

impl SqlError {
    /// An error without a SQLSTATE.
    pub fn new(kind: SqlErrorKind, message: impl Into<String>) -> Self {
        Self { kind, sqlstate: String::new(), message: message.into(), constraint: String::new() }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.sqlstate.is_empty() {
            write!(f, " (SQLSTATE {})", self.sqlstate)?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}
