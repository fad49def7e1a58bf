//! Why a statement failed, in words that an application can match.

use std::fmt;

use http::StatusCode;
use wharf_abi::FfiSqlError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// What an application can do something about. The codes are those of SQLSTATE (SQL:2016, table 38; PostgreSQL's appendix A).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SqlErrorKind {
            $($(#[$doc])* $name,)*
        }

        /// In the order in which the container counts them.
        const KINDS: &[SqlErrorKind] = &[$(SqlErrorKind::$name),*];
    };
}

kinds! {
    /// A unique or primary key exists already (23505).
    UniqueViolation;
    /// A foreign key points nowhere, or is still pointed to (23503).
    ForeignKeyViolation;
    /// A value that must be there is missing (23502).
    NotNullViolation;
    /// A check constraint does not hold (23514).
    CheckViolation;
    /// Another transaction was in the way; doing the whole transaction again may help (40001, 40P01).
    SerializationFailure;
    /// There is no connection, or it broke (class 08).
    Connection;
    /// No connection became free within the wait limit of the resource.
    WaitLimit;
    /// The database did not answer in time (57014).
    Timeout;
    /// The statement can't be understood, or names what is not there (class 42).
    Syntax;
    /// A value does not fit: a parameter, or a row into the type that was asked for (class 22).
    Data;
    /// The user may not do it (42501, class 28).
    Denied;
    /// The transaction has ended.
    Ended;
    /// Anything else, a result without a row where one was asked for among it.
    Other;
}

/// Why a statement failed.
///
/// ```
/// use wharf_sdk::Error;
/// use wharf_sdk::sql::{DataSource, SqlErrorKind};
///
/// async fn add(db: &DataSource, name: &str) -> Result<(), Error> {
///     match db.query("insert into tag (name) values (?)").bind(name).execute().await {
///         Ok(_) => Ok(()),
///         Err(e) if e.kind() == SqlErrorKind::UniqueViolation => Err(Error::conflict("there is such a tag")),
///         Err(e) => Err(e.into()),
///     }
/// }
/// ```
///
/// As an [`Error`](crate::Error) it is a 503 where the database can't be reached or had no time, else a 500.
#[derive(Debug, Clone)]
pub struct SqlError {
    kind: SqlErrorKind,
    sqlstate: String,
    message: String,
    constraint: String,
}

impl SqlError {
    pub(crate) fn new(kind: SqlErrorKind, message: impl Into<String>) -> Self {
        Self { kind, sqlstate: String::new(), message: message.into(), constraint: String::new() }
    }

    /// What an application can do something about.
    pub fn kind(&self) -> SqlErrorKind {
        self.kind
    }

    /// SQLSTATE, where there is one.
    pub fn sqlstate(&self) -> Option<&str> {
        Some(self.sqlstate.as_str()).filter(|state| !state.is_empty())
    }

    /// Name of the constraint that was violated, where the engine says it.
    pub fn constraint(&self) -> Option<&str> {
        Some(self.constraint.as_str()).filter(|name| !name.is_empty())
    }

    /// The message of the database.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<FfiSqlError> for SqlError {
    fn from(ffi: FfiSqlError) -> Self {
        Self {
            kind: KINDS.get(usize::from(ffi.kind)).copied().unwrap_or(SqlErrorKind::Other),
            sqlstate: ffi.sqlstate.into(),
            message: ffi.message.into(),
            constraint: ffi.constraint.into(),
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.sqlstate().map_or(Ok(()), |state| write!(f, " (SQLSTATE {state})"))
    }
}

impl std::error::Error for SqlError {}

/// The status that fits an error, where it comes from here and is none of the program's.
pub(crate) fn status_of(error: &(dyn std::error::Error + 'static)) -> Option<StatusCode> {
    match error.downcast_ref::<SqlError>()?.kind {
        SqlErrorKind::Connection | SqlErrorKind::WaitLimit | SqlErrorKind::Timeout => {
            Some(StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => None,
    }
}
