//! A database that the container has.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::sync::Arc;

use wharf_abi::{FfiDataSource, FfiSqlWork, SqlAnswer};

use super::query::Target;
use super::{Batch, Migration, Query, SqlError, SqlErrorKind, Transaction};
use crate::log;

/// How transactions that run at the same time are kept apart (SQL:2016, 4.41.4). SQLite's are all serialisable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As the database is set up: READ COMMITTED with PostgreSQL, REPEATABLE READ with MySQL.
    #[default]
    Default,
    /// READ UNCOMMITTED.
    ReadUncommitted,
    /// READ COMMITTED. With SQLite, this and the one before it begin without the lock for writing.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE: conflicts are errors of kind [`SqlErrorKind::SerializationFailure`].
    Serializable,
}

/// A database, through the container's pool of connections. Cheap to clone.
///
/// From [`ServletContext::data_source`](crate::ServletContext::data_source).
#[derive(Clone)]
pub struct DataSource(Arc<FfiDataSource>);

impl DataSource {
    pub(crate) fn new(ffi: FfiDataSource) -> Self {
        Self(Arc::new(ffi))
    }

    /// What answers: `sqlite`, `postgres` or `mysql` (MariaDB too).
    pub fn engine(&self) -> String {
        self.0.engine().into()
    }

    /// A statement, run on a connection of its own.
    pub fn query(&self, sql: impl Into<String>) -> Query {
        Query::new(Target::Source(self.0.clone()), sql.into())
    }

    /// A statement that runs with many sets of parameters, wholly or not at all.
    pub fn batch(&self, sql: impl Into<String>) -> Batch {
        Batch::new(Target::Source(self.0.clone()), sql.into())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When there is no connection.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Transaction, SqlError>> + Send + use<> {
        self.begin_with(Isolation::Default)
    }

    /// Begins a transaction with this isolation.
    ///
    /// # Errors
    /// As [`DataSource::begin`].
    #[track_caller]
    pub fn begin_with(
        &self,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Transaction, SqlError>> + Send + use<> {
        let place = Location::caller();
        let place = format!("{}:{}", place.file(), place.line());
        let isolation = match isolation {
            Isolation::Default => 0,
            Isolation::ReadUncommitted => 1,
            Isolation::ReadCommitted => 2,
            Isolation::RepeatableRead => 3,
            Isolation::Serializable => 4,
        };
        let source = self.0.clone();
        async move {
            let work = source.begin(isolation, log::request_id().into(), place.into());
            match answer(work).await? {
                SqlAnswer::Begun(transaction) => Ok(Transaction::new(transaction)),
                _ => Err(SqlError::new(SqlErrorKind::Other, "no transaction was begun")),
            }
        }
    }

    /// Brings the schema to the newest of these, each applied once, in the order of their versions and under a lock.
    /// [`App::migrations`](crate::App::migrations) does it at the start, before traffic comes.
    ///
    /// # Errors
    /// What the database says, and of which; that one was changed after it had been applied.
    pub async fn migrate(&self, migrations: impl IntoIterator<Item = Migration>) -> Result<u64, SqlError> {
        let mut all: Vec<Migration> = migrations.into_iter().collect();
        all.sort_by_key(Migration::version);
        if let Some(pair) = all.windows(2).find(|pair| pair[0].version() == pair[1].version()) {
            let what = format!("there are two migrations with version {}", pair[0].version());
            return Err(SqlError::new(SqlErrorKind::Other, what));
        }
        let engine = self.engine();
        let all = all.into_iter().map(|migration| migration.into_ffi(&engine));
        match answer(self.0.migrate(all.collect())).await? {
            SqlAnswer::Done(applied) => Ok(applied),
            _ => Ok(0),
        }
    }
}

impl std::fmt::Debug for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataSource").field("engine", &self.engine()).finish()
    }
}

/// The answer of work that has one.
pub(super) async fn answer(mut work: FfiSqlWork) -> Result<SqlAnswer, SqlError> {
    match poll_fn(|cx| work.poll_answer(cx)).await {
        SqlAnswer::Failed(error) => Err(error.into()),
        answer => Ok(answer),
    }
}
