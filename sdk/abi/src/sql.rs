//! Data sources at the border: the container owns databases and their connections, a module holds handles that it gives back.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString, RVec};

use crate::work::{Answer, FfiWork};

/// A value of a parameter or of a row.
#[repr(u8)]
#[derive(StableAbi, Clone, Debug, PartialEq)]
pub enum FfiSqlValue {
    /// NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A number in binary floating point.
    Float(f64),
    /// Text.
    Text(RString),
    /// Bytes.
    Bytes(RVec<u8>),
    /// An exact decimal number, as text.
    Decimal(RString),
    /// A date: `2026-11-25`.
    Date(RString),
    /// A time of day: `13:01:02.5`.
    Time(RString),
    /// A date and time in no time zone: `2026-11-25T13:01:02.5`.
    DateTime(RString),
    /// A point in time (RFC 3339).
    Timestamp(RString),
    /// A UUID.
    Uuid([u8; 16]),
    /// A JSON text.
    Json(RString),
}

/// Why something could not be done.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct FfiSqlError {
    /// Which of the kinds, by its place in the list of `SqlErrorKind`.
    pub kind: u8,
    /// SQLSTATE, empty where the engine has none.
    pub sqlstate: RString,
    /// The message.
    pub message: RString,
    /// Name of the constraint, empty where it is not known.
    pub constraint: RString,
}

/// A statement to run. Belongs to whoever gets it.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct FfiStatement {
    /// SQL; `?` stands for a parameter.
    pub sql: RString,
    /// The parameters; more than one set is a batch.
    pub sets: RVec<RVec<FfiSqlValue>>,
    /// How long the database may be silent, in milliseconds; 0 is the configured time.
    pub timeout_ms: u64,
    /// Id of the request, empty where there is none.
    pub request: RString,
}

/// A step of a schema's history.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct FfiMigration {
    /// Its place in the history.
    pub version: i64,
    /// What it is for.
    pub description: RString,
    /// SQL.
    pub sql: RString,
}

/// What a statement did.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct FfiDone {
    /// Rows that were changed.
    pub rows_affected: u64,
    /// The last id that the database gave out, where it says.
    pub last_insert_id: ROption<i64>,
}

/// Some rows of a result.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct FfiRows {
    /// Names of the columns: with the first rows of a result.
    pub columns: ROption<RVec<RString>>,
    /// How many values make a row.
    pub width: usize,
    /// The values, row by row.
    pub values: RVec<FfiSqlValue>,
    /// Set with the last rows.
    pub done: ROption<FfiDone>,
}

/// What a poll of [`FfiSqlWork`] comes to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum SqlAnswer {
    /// Not yet; the waker will be called.
    Pending,
    /// Rows of a statement.
    Rows(FfiRows),
    /// The transaction that was begun.
    Begun(FfiTransaction),
    /// It is done; with a number, where there is something to count.
    Done(u64),
    /// It failed.
    Failed(FfiSqlError),
}

impl Answer for SqlAnswer {
    const PENDING: Self = Self::Pending;

    fn panicked() -> Self {
        let message = RString::from("the container's work on the database panicked");
        let (sqlstate, constraint) = (RString::new(), RString::new());
        Self::Failed(FfiSqlError { kind: u8::MAX, sqlstate, message, constraint })
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

/// Work of the container on a database: one answer, or rows until the last.
pub type FfiSqlWork = FfiWork<SqlAnswer>;

/// The functions behind an [`FfiDataSource`]. Any thread, also several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDataSourceVTable {
    /// What answers: `sqlite`, `postgres`, `mysql`.
    pub engine: unsafe extern "C" fn(*const ()) -> RString,
    /// Runs a statement.
    pub query: unsafe extern "C" fn(*const (), FfiStatement) -> FfiSqlWork,
    /// Begins a transaction: isolation (0 default, 1 read uncommitted, 2 read committed, 3 repeatable read, 4 serializable), id
    /// of the request, place in the source.
    pub begin: unsafe extern "C" fn(*const (), u8, RString, RString) -> FfiSqlWork,
    /// Brings the schema up to date.
    pub migrate: unsafe extern "C" fn(*const (), RVec<FfiMigration>) -> FfiSqlWork,
    /// Gives the handle back.
    pub drop: unsafe extern "C" fn(*const ()),
}

/// A handle of a data source, made by the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDataSource {
    data: *const (),
    vtable: *const FfiDataSourceVTable,
}

// SAFETY: the functions may be called on any thread (`FfiDataSource::new` asks for it).
unsafe impl Send for FfiDataSource {}
// SAFETY: as above, and several at once.
unsafe impl Sync for FfiDataSource {}

impl FfiDataSource {
    /// A handle for the module.
    ///
    /// # Safety
    /// The functions must be good for `data`, on any thread and several at once, until the vtable's `drop` was called.
    pub const unsafe fn new(data: *const (), vtable: *const FfiDataSourceVTable) -> Self {
        Self { data, vtable }
    }

    fn vtable(&self) -> &FfiDataSourceVTable {
        // SAFETY: valid until `Drop`, by the contract of `new`.
        unsafe { &*self.vtable }
    }

    /// What answers.
    pub fn engine(&self) -> RString {
        // SAFETY: by the contract of `new`, as in all of these.
        unsafe { (self.vtable().engine)(self.data) }
    }

    /// Runs a statement.
    pub fn query(&self, statement: FfiStatement) -> FfiSqlWork {
        // SAFETY: as in `engine`.
        unsafe { (self.vtable().query)(self.data, statement) }
    }

    /// Begins a transaction.
    pub fn begin(&self, isolation: u8, request: RString, place: RString) -> FfiSqlWork {
        // SAFETY: as in `engine`.
        unsafe { (self.vtable().begin)(self.data, isolation, request, place) }
    }

    /// Brings the schema up to date.
    pub fn migrate(&self, migrations: RVec<FfiMigration>) -> FfiSqlWork {
        // SAFETY: as in `engine`.
        unsafe { (self.vtable().migrate)(self.data, migrations) }
    }
}

impl Drop for FfiDataSource {
    fn drop(&mut self) {
        // SAFETY: as in `engine`, called once.
        unsafe { (self.vtable().drop)(self.data) }
    }
}

/// The functions behind an [`FfiTransaction`]. Any thread, also several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTransactionVTable {
    /// Runs a statement in it.
    pub query: unsafe extern "C" fn(*const (), FfiStatement) -> FfiSqlWork,
    /// Takes a step: 0 commit, 1 roll back, 2 savepoint, 3 roll back to it, 4 release it; and the savepoint's number.
    pub step: unsafe extern "C" fn(*const (), u8, u32) -> FfiSqlWork,
    /// Gives the handle back; a transaction that has not ended is rolled back.
    pub drop: unsafe extern "C" fn(*const ()),
}

/// A handle of a transaction, made by the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTransaction {
    data: *const (),
    vtable: *const FfiTransactionVTable,
}

// SAFETY: the functions may be called on any thread (`FfiTransaction::new` asks for it).
unsafe impl Send for FfiTransaction {}
// SAFETY: as above, and several at once.
unsafe impl Sync for FfiTransaction {}

impl FfiTransaction {
    /// A handle for the module.
    ///
    /// # Safety
    /// As [`FfiDataSource::new`].
    pub const unsafe fn new(data: *const (), vtable: *const FfiTransactionVTable) -> Self {
        Self { data, vtable }
    }

    fn vtable(&self) -> &FfiTransactionVTable {
        // SAFETY: valid until `Drop`, by the contract of `new`.
        unsafe { &*self.vtable }
    }

    /// Runs a statement in it.
    pub fn query(&self, statement: FfiStatement) -> FfiSqlWork {
        // SAFETY: by the contract of `new`, as in all of these.
        unsafe { (self.vtable().query)(self.data, statement) }
    }

    /// Takes a step.
    pub fn step(&self, step: u8, savepoint: u32) -> FfiSqlWork {
        // SAFETY: as in `query`.
        unsafe { (self.vtable().step)(self.data, step, savepoint) }
    }
}

impl Drop for FfiTransaction {
    fn drop(&mut self) {
        // SAFETY: as in `query`, called once.
        unsafe { (self.vtable().drop)(self.data) }
    }
}
