//! What the engines have in common, and where each goes its own way.

use std::future::Future;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::{Connection, Database, Executor, IntoArguments};
use wharf_kernel::resource::{Done, Isolation, SqlError, SqlErrorKind, SqlValue};
use wharf_kernel::settings::Resource;

/// A database engine.
pub(super) trait Engine: Database<Connection: ForEngine<Self>, Arguments: IntoArguments<Self>> + Sized {
    /// For people and for applications.
    const CALLED: &'static str;
    /// Whether an error within a transaction makes everything after it fail.
    const ERRORS_ABORT: bool;
    /// Where it is and how to get in.
    type Options: Clone + Send + Sync + 'static;
    /// What is needed to stop the work of a connection from outside.
    type Cancel: Send + Sync + 'static;

    /// Reads the settings, with their secrets put in.
    fn options(settings: &Resource) -> Result<Self::Options, sqlx::Error>;

    /// A new connection.
    fn connect(
        options: &Self::Options,
        settings: &Resource,
    ) -> impl Future<Output = Result<(Self::Connection, Self::Cancel), sqlx::Error>> + Send;

    /// Stops what a connection does, which is not used again.
    fn cancel(options: &Self::Options, cancel: &Self::Cancel) -> impl Future<Output = ()> + Send + use<Self>;

    /// The statement, with its parameters marked in the engine's way.
    fn statement(sql: String, parameters: &[SqlValue]) -> String;

    /// The parameters.
    fn arguments(values: Vec<SqlValue>) -> Result<Self::Arguments, SqlError>;

    /// A value of a row.
    fn value(row: &Self::Row, at: usize) -> Result<SqlValue, SqlError>;

    /// What a statement did.
    fn done(result: &Self::QueryResult) -> Done;

    /// Begins a transaction.
    fn begin(isolation: Isolation) -> &'static [&'static str];

    /// What an error of the database means.
    fn kind(error: &dyn DatabaseError) -> SqlErrorKind;
}

/// A connection that runs statements of its engine.
pub(super) trait ForEngine<E: Database>: Connection<Database = E> {
    /// The way it does that.
    fn as_executor(&mut self) -> impl Executor<'_, Database = E>;
}

impl<E: Database<Connection = C>, C: Connection<Database = E>> ForEngine<E> for C
where
    for<'c> &'c mut C: Executor<'c, Database = E>,
{
    fn as_executor(&mut self) -> impl Executor<'_, Database = E> {
        self
    }
}

/// How long a connection is given to say goodbye, or another to be made that stops its work.
pub(super) const SHORT: Duration = Duration::from_secs(5);

/// An error of sqlx in our words.
pub(super) fn error<E: Engine>(error: &sqlx::Error) -> SqlError {
    use sqlx::Error as E0;
    match error {
        E0::Database(database) => {
            let kind = E::kind(&**database);
            SqlError {
                kind,
                sqlstate: sqlstate::<E>(&**database, kind),
                message: database.message().to_owned(),
                constraint: database.constraint().unwrap_or_default().to_owned(),
            }
        }
        E0::Io(io) => SqlError::new(SqlErrorKind::Connection, format!("the connection broke: {io}")),
        E0::Tls(_) | E0::Protocol(_) | E0::WorkerCrashed | E0::PoolClosed => {
            SqlError::new(SqlErrorKind::Connection, error.to_string())
        }
        E0::ColumnDecode { .. } | E0::Decode(_) | E0::Encode(_) | E0::TypeNotFound { .. } => {
            SqlError::new(SqlErrorKind::Data, error.to_string())
        }
        E0::InvalidArgument(_) => SqlError::new(SqlErrorKind::Syntax, error.to_string()),
        _ => SqlError::new(SqlErrorKind::Other, error.to_string()),
    }
}

/// Whether a connection is of no use after this error.
pub(super) fn breaks(error: &sqlx::Error) -> bool {
    use sqlx::Error as E0;
    matches!(error, E0::Io(_) | E0::Tls(_) | E0::Protocol(_) | E0::WorkerCrashed)
}

/// The engine's own SQLSTATE; SQLite has none, so its errors get that of their kind.
fn sqlstate<E: Engine>(error: &dyn DatabaseError, kind: SqlErrorKind) -> String {
    if E::CALLED != "sqlite" {
        return error.code().unwrap_or_default().into_owned();
    }
    match kind {
        SqlErrorKind::UniqueViolation => "23505",
        SqlErrorKind::ForeignKeyViolation => "23503",
        SqlErrorKind::NotNullViolation => "23502",
        SqlErrorKind::CheckViolation => "23514",
        SqlErrorKind::SerializationFailure => "40001",
        SqlErrorKind::Timeout => "57014",
        SqlErrorKind::Syntax => "42000",
        SqlErrorKind::Data => "22000",
        SqlErrorKind::Denied => "42501",
        _ => "",
    }
    .to_owned()
}

/// What a parameter cannot be, for people to read.
pub(super) fn bad_parameter(at: usize, what: impl std::fmt::Display) -> SqlError {
    SqlError::new(SqlErrorKind::Data, format!("parameter {}: {what}", at + 1))
}

/// A value of a row that can't be read.
pub(super) fn bad_value(column: &str, what: impl std::fmt::Display) -> SqlError {
    SqlError::new(SqlErrorKind::Data, format!("column '{column}': {what}"))
}

/// A column's type that can't be handed over.
pub(super) fn not_carried(column: &str, type_name: &str) -> SqlError {
    let what = format!("column '{column}' is of type {type_name}, which is not carried: cast it, for instance to text");
    SqlError::new(SqlErrorKind::Data, what)
}
