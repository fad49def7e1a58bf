//! Transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wharf_abi::FfiTransaction;

use super::data_source::answer;
use super::query::Target;
use super::{Batch, Query, SqlError};

/// A transaction: it has a connection until its end, which is [`Transaction::commit`] or [`Transaction::rollback`].
///
/// Dropped before that, it is rolled back, and the container reports the place where it was begun: a forgotten commit looks
/// just like it. It does the same, at the end of the request, with one that was put away.
///
/// ```
/// use wharf_sdk::sql::{DataSource, SqlError};
///
/// async fn transfer(db: &DataSource, from: i64, to: i64, cents: i64) -> Result<(), SqlError> {
///     let tx = db.begin().await?;
///     tx.query("update account set cents = cents - ? where id = ?").bind(cents).bind(from).execute().await?;
///     tx.query("update account set cents = cents + ? where id = ?").bind(cents).bind(to).execute().await?;
///     tx.commit().await
/// }
/// ```
pub struct Transaction {
    ffi: Arc<FfiTransaction>,
    savepoints: AtomicU32,
}

/// A place in a transaction to which it can be rolled back.
#[derive(Debug)]
pub struct Savepoint(u32);

impl Transaction {
    pub(super) fn new(ffi: FfiTransaction) -> Self {
        Self { ffi: Arc::new(ffi), savepoints: AtomicU32::new(0) }
    }

    /// A statement in it. They run one at a time.
    pub fn query(&self, sql: impl Into<String>) -> Query {
        Query::new(Target::Transaction(self.ffi.clone()), sql.into())
    }

    /// A statement in it that runs with many sets of parameters.
    pub fn batch(&self, sql: impl Into<String>) -> Batch {
        Batch::new(Target::Transaction(self.ffi.clone()), sql.into())
    }

    async fn step(&self, step: u8, savepoint: u32) -> Result<(), SqlError> {
        answer(self.ffi.step(step, savepoint)).await.map(|_| ())
    }

    /// Keeps what it did.
    ///
    /// # Errors
    /// What the database says: a conflict may show only here. With PostgreSQL, a transaction in which a statement failed can
    /// only be rolled back, and is. After an error nothing of it is kept (when the connection broke, that is not known).
    pub async fn commit(self) -> Result<(), SqlError> {
        self.step(0, 0).await
    }

    /// Undoes what it did.
    ///
    /// # Errors
    /// When the connection breaks; it is undone then, too.
    pub async fn rollback(self) -> Result<(), SqlError> {
        self.step(1, 0).await
    }

    /// Marks the place.
    ///
    /// # Errors
    /// What the database says.
    pub async fn savepoint(&self) -> Result<Savepoint, SqlError> {
        let number = self.savepoints.fetch_add(1, Ordering::Relaxed);
        self.step(2, number).await?;
        Ok(Savepoint(number))
    }

    /// Undoes what was done since the savepoint, which stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn rollback_to(&self, savepoint: &Savepoint) -> Result<(), SqlError> {
        self.step(3, savepoint.0).await
    }

    /// Forgets the savepoint. What was done since stays part of the transaction.
    ///
    /// # Errors
    /// What the database says.
    pub async fn release(&self, savepoint: Savepoint) -> Result<(), SqlError> {
        self.step(4, savepoint.0).await
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
