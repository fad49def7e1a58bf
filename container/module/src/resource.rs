//! Resources at the border, from the container's side: the functions behind a data source and a transaction.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::std_types::{RResult, RString, RVec};
use wharf_abi::{
    FfiDataSource, FfiDataSourceVTable, FfiDone, FfiMigration, FfiRows, FfiSqlError, FfiSqlValue, FfiSqlWork,
    FfiStatement, FfiTransaction, FfiTransactionVTable, PollAnswer, RawStr, ResourcesVTable, SqlAnswer,
};
use wharf_kernel::resource::{
    BoundResources, DataSource, Isolation, Migration, Pieces, Rows, SqlError, SqlErrorKind, SqlValue, Statement,
    Transaction, TransactionStep, Work,
};

use crate::host::HostContext;
use crate::lent::{Held, Lent};
use crate::trial::NO_RESOURCES;

/// For the generations of every module.
pub(crate) static RESOURCES: ResourcesVTable =
    ResourcesVTable { data_source, cache: crate::cache::cache, http_client: crate::client::http_client, settings };

/// The resources of a generation.
pub(crate) fn bound(context: &HostContext) -> Result<&Arc<dyn BoundResources>, RString> {
    context.resources.as_ref().ok_or_else(|| {
        let what = "the application's descriptor names no resource: add resources = [\"NAME\": \"sql\"] to export!";
        RString::from(if context.trial { NO_RESOURCES } else { what })
    })
}

unsafe extern "C" fn data_source(ctx: *const (), name: RawStr) -> RResult<FfiDataSource, RString> {
    // SAFETY: what `HostContext::as_host` gave, still alive; the name is valid for the call and UTF-8.
    let (context, name) = unsafe { (&*ctx.cast::<HostContext>(), name.as_str()) };
    let handle = |source| source_handle(Held { it: source, works: context.works.clone() });
    if context.trial {
        return RResult::ROk(handle(Arc::new(InTrial)));
    }
    let found = bound(context).and_then(|bound| bound.data_source(name).map_err(RString::from));
    found.map(handle).into()
}

unsafe extern "C" fn settings(ctx: *const (), name: RawStr) -> RResult<RString, RString> {
    // SAFETY: as in `data_source`.
    let (context, name) = unsafe { (&*ctx.cast::<HostContext>(), name.as_str()) };
    bound(context).and_then(|bound| bound.settings(name).map(RString::from).map_err(RString::from)).into()
}

fn source_handle(source: Held<dyn DataSource>) -> FfiDataSource {
    let data = Box::into_raw(Box::new(source)).cast_const().cast();
    // SAFETY: the functions are made for this box, which `drop_source` drops; a data source is `Send` and `Sync`.
    unsafe { FfiDataSource::new(data, &raw const SOURCE) }
}

static SOURCE: FfiDataSourceVTable = FfiDataSourceVTable { engine, query, begin, migrate, drop: drop_source };

/// # Safety
/// `data` must be what `source_handle` boxed, and not dropped for `'a`.
unsafe fn source<'a>(data: *const ()) -> &'a Held<dyn DataSource> {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Held<dyn DataSource>>() }
}

unsafe extern "C" fn engine(data: *const ()) -> RString {
    // SAFETY: the module has the handle still, as in all of these.
    unsafe { source(data) }.it.engine().into()
}

unsafe extern "C" fn query(data: *const (), statement: FfiStatement) -> FfiSqlWork {
    // SAFETY: as in `engine`.
    let held = unsafe { source(data) };
    pieces(held.it.query(of_statement(statement)), &held.works)
}

unsafe extern "C" fn begin(data: *const (), isolation: u8, request: RString, place: RString) -> FfiSqlWork {
    let isolation = match isolation {
        1 => Isolation::ReadUncommitted,
        2 => Isolation::ReadCommitted,
        3 => Isolation::RepeatableRead,
        4 => Isolation::Serializable,
        _ => Isolation::Default,
    };
    // SAFETY: as in `engine`.
    let held = unsafe { source(data) };
    let (begun, works) = (held.it.begin(isolation, request.into(), place.into()), held.works.clone());
    let handle: Work<Result<Held<dyn Transaction>, SqlError>> =
        Box::pin(async move { begun.await.map(|it| Held { it, works }) });
    answer(handle, &held.works, |transaction| SqlAnswer::Begun(transaction_handle(transaction)))
}

unsafe extern "C" fn migrate(data: *const (), migrations: RVec<FfiMigration>) -> FfiSqlWork {
    let all = migrations.into_iter().map(|m| Migration {
        version: m.version,
        description: m.description.into(),
        sql: m.sql.into(),
    });
    // SAFETY: as in `engine`.
    let held = unsafe { source(data) };
    answer(held.it.migrate(all.collect()), &held.works, SqlAnswer::Done)
}

unsafe extern "C" fn drop_source(data: *const ()) {
    // SAFETY: the box made in `source_handle`, dropped once.
    drop(unsafe { Box::from_raw(data.cast::<Held<dyn DataSource>>().cast_mut()) });
}

fn transaction_handle(transaction: Held<dyn Transaction>) -> FfiTransaction {
    let data = Box::into_raw(Box::new(transaction)).cast_const().cast();
    // SAFETY: the functions are made for this box, which `drop_transaction` drops; a transaction is `Send` and `Sync`.
    unsafe { FfiTransaction::new(data, &raw const TRANSACTION) }
}

static TRANSACTION: FfiTransactionVTable =
    FfiTransactionVTable { query: query_in, step: step_in, drop: drop_transaction };

/// # Safety
/// `data` must be what `transaction_handle` boxed, and not dropped for `'a`.
unsafe fn transaction<'a>(data: *const ()) -> &'a Held<dyn Transaction> {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Held<dyn Transaction>>() }
}

unsafe extern "C" fn query_in(data: *const (), statement: FfiStatement) -> FfiSqlWork {
    // SAFETY: as in `engine`.
    let held = unsafe { transaction(data) };
    pieces(held.it.query(of_statement(statement)), &held.works)
}

unsafe extern "C" fn step_in(data: *const (), step: u8, savepoint: u32) -> FfiSqlWork {
    let step = match step {
        0 => TransactionStep::Commit,
        2 => TransactionStep::Savepoint(savepoint),
        3 => TransactionStep::RollbackTo(savepoint),
        4 => TransactionStep::Release(savepoint),
        _ => TransactionStep::Rollback,
    };
    // SAFETY: as in `engine`.
    let held = unsafe { transaction(data) };
    answer(held.it.step(step), &held.works, |()| SqlAnswer::Done(0))
}

unsafe extern "C" fn drop_transaction(data: *const ()) {
    // SAFETY: the box made in `transaction_handle`, dropped once.
    drop(unsafe { Box::from_raw(data.cast::<Held<dyn Transaction>>().cast_mut()) });
}

/// Rows on their way.
struct InPieces(Box<dyn Pieces>);

fn pieces(pieces: Box<dyn Pieces>, works: &Arc<AtomicU64>) -> FfiSqlWork {
    Lent::boxed(InPieces(pieces), works)
}

impl PollAnswer<SqlAnswer> for Lent<InPieces> {
    fn poll_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SqlAnswer> {
        let waker = self.waker(cx);
        // SAFETY: the box is never moved out of: it is only reached here, and dropped where it is.
        let pieces = unsafe { Pin::new_unchecked(&mut *self.work.0) };
        pieces.poll_next(&mut Context::from_waker(&waker)).map(|piece| match piece {
            Some(Ok(rows)) => SqlAnswer::Rows(to_rows(rows)),
            Some(Err(error)) => SqlAnswer::Failed(to_error(error)),
            None => SqlAnswer::Done(0),
        })
    }
}

/// One answer.
struct Once<T> {
    work: Work<Result<T, SqlError>>,
    then: fn(T) -> SqlAnswer,
}

fn answer<T: 'static>(work: Work<Result<T, SqlError>>, works: &Arc<AtomicU64>, then: fn(T) -> SqlAnswer) -> FfiSqlWork {
    Lent::boxed(Once { work, then }, works)
}

impl<T: 'static> PollAnswer<SqlAnswer> for Lent<Once<T>> {
    fn poll_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SqlAnswer> {
        let waker = self.waker(cx);
        let then = self.work.then;
        self.work.work.as_mut().poll(&mut Context::from_waker(&waker)).map(|result| match result {
            Ok(it) => then(it),
            Err(error) => SqlAnswer::Failed(to_error(error)),
        })
    }
}

fn of_statement(statement: FfiStatement) -> Statement {
    let sets = statement.sets.into_iter().map(|set| set.into_iter().map(of_value).collect());
    Statement {
        sql: statement.sql.into(),
        sets: sets.collect(),
        timeout: (statement.timeout_ms > 0).then(|| Duration::from_millis(statement.timeout_ms)),
        request: statement.request.into(),
    }
}

fn of_value(value: FfiSqlValue) -> SqlValue {
    match value {
        FfiSqlValue::Null => SqlValue::Null,
        FfiSqlValue::Bool(v) => SqlValue::Bool(v),
        FfiSqlValue::Int(v) => SqlValue::Int(v),
        FfiSqlValue::Float(v) => SqlValue::Float(v),
        FfiSqlValue::Text(v) => SqlValue::Text(v.into()),
        FfiSqlValue::Bytes(v) => SqlValue::Bytes(v.into()),
        FfiSqlValue::Decimal(v) => SqlValue::Decimal(v.into()),
        FfiSqlValue::Date(v) => SqlValue::Date(v.into()),
        FfiSqlValue::Time(v) => SqlValue::Time(v.into()),
        FfiSqlValue::DateTime(v) => SqlValue::DateTime(v.into()),
        FfiSqlValue::Timestamp(v) => SqlValue::Timestamp(v.into()),
        FfiSqlValue::Uuid(v) => SqlValue::Uuid(v),
        FfiSqlValue::Json(v) => SqlValue::Json(v.into()),
    }
}

fn to_value(value: SqlValue) -> FfiSqlValue {
    match value {
        SqlValue::Null => FfiSqlValue::Null,
        SqlValue::Bool(v) => FfiSqlValue::Bool(v),
        SqlValue::Int(v) => FfiSqlValue::Int(v),
        SqlValue::Float(v) => FfiSqlValue::Float(v),
        SqlValue::Text(v) => FfiSqlValue::Text(v.into()),
        SqlValue::Bytes(v) => FfiSqlValue::Bytes(v.into()),
        SqlValue::Decimal(v) => FfiSqlValue::Decimal(v.into()),
        SqlValue::Date(v) => FfiSqlValue::Date(v.into()),
        SqlValue::Time(v) => FfiSqlValue::Time(v.into()),
        SqlValue::DateTime(v) => FfiSqlValue::DateTime(v.into()),
        SqlValue::Timestamp(v) => FfiSqlValue::Timestamp(v.into()),
        SqlValue::Uuid(v) => FfiSqlValue::Uuid(v),
        SqlValue::Json(v) => FfiSqlValue::Json(v.into()),
    }
}

fn to_rows(rows: Rows) -> FfiRows {
    let columns = rows.columns.map(|all| all.into_iter().map(RString::from).collect::<RVec<_>>());
    let done = rows.done.map(|d| FfiDone { rows_affected: d.rows_affected, last_insert_id: d.last_insert_id.into() });
    FfiRows {
        columns: columns.into(),
        width: rows.width,
        values: rows.values.into_iter().map(to_value).collect(),
        done: done.into(),
    }
}

fn to_error(error: SqlError) -> FfiSqlError {
    FfiSqlError {
        kind: error.kind as u8,
        sqlstate: error.sqlstate.into(),
        message: error.message.into(),
        constraint: error.constraint.into(),
    }
}

/// Stands for every data source in a trial load, where there is none. The trial has seen enough when the application waits
/// for one.
struct InTrial;

/// Has nothing to give.
struct Nothing;

impl Pieces for Nothing {
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Rows, SqlError>>> {
        crate::trial::asked_for_a_resource();
        Poll::Ready(Some(Err(SqlError::new(SqlErrorKind::Connection, NO_RESOURCES))))
    }
}

impl DataSource for InTrial {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    fn query(&self, _: Statement) -> Box<dyn Pieces> {
        Box::new(Nothing)
    }

    fn begin(&self, _: Isolation, _: String, _: String) -> Work<Result<Arc<dyn Transaction>, SqlError>> {
        crate::trial::asked_for_a_resource();
        Box::pin(std::future::ready(Err(SqlError::new(SqlErrorKind::Connection, NO_RESOURCES))))
    }

    fn migrate(&self, _: Vec<Migration>) -> Work<Result<u64, SqlError>> {
        Box::pin(std::future::ready(Ok(0)))
    }
}
