//! SQLite, in this process.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteQueryResult, SqliteRow,
    SqliteSynchronous,
};
use sqlx::types::Uuid;
use sqlx::{Arguments, Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};
use wharf_kernel::resource::{Done, Isolation, SqlError, SqlErrorKind, SqlValue};
use wharf_kernel::settings::Resource;

use super::engine::{Engine, bad_parameter, error, not_carried};
use super::temporal;

/// The database looks so often, in instructions of its machine, whether it shall stop.
const LOOK_EVERY: i32 = 10_000;

impl Engine for Sqlite {
    const CALLED: &'static str = "sqlite";
    const ERRORS_ABORT: bool = false;
    type Options = SqliteConnectOptions;
    type Cancel = Arc<AtomicBool>;

    fn options(settings: &Resource) -> Result<SqliteConnectOptions, sqlx::Error> {
        let options = SqliteConnectOptions::from_str(&settings.url)?
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(settings.wait)
            .disable_statement_logging();
        Ok(match in_memory(&settings.url) {
            true => options,
            false => options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal),
        })
    }

    async fn connect(
        options: &SqliteConnectOptions,
        _: &Resource,
    ) -> Result<(SqliteConnection, Arc<AtomicBool>), sqlx::Error> {
        let mut connection = SqliteConnection::connect_with(options).await?;
        let stop = Arc::<AtomicBool>::default();
        let seen = stop.clone();
        connection.lock_handle().await?.set_progress_handler(LOOK_EVERY, move || !seen.load(Ordering::Relaxed));
        Ok((connection, stop))
    }

    fn cancel(_: &SqliteConnectOptions, stop: &Arc<AtomicBool>) -> impl Future<Output = ()> + Send + use<> {
        stop.store(true, Ordering::Relaxed);
        std::future::ready(())
    }

    fn statement(sql: String, _: &[SqlValue]) -> String {
        sql
    }

    fn arguments(values: Vec<SqlValue>) -> Result<SqliteArguments, SqlError> {
        let mut arguments = SqliteArguments::default();
        for (at, value) in values.into_iter().enumerate() {
            let added = match value {
                SqlValue::Null => Arguments::add(&mut arguments, None::<String>),
                SqlValue::Bool(v) => Arguments::add(&mut arguments, v),
                SqlValue::Int(v) => Arguments::add(&mut arguments, v),
                SqlValue::Float(v) => Arguments::add(&mut arguments, v),
                SqlValue::Text(v) | SqlValue::Json(v) => Arguments::add(&mut arguments, v),
                SqlValue::Decimal(v) => {
                    temporal::decimal(at, &v)?;
                    Arguments::add(&mut arguments, v)
                }
                SqlValue::Bytes(v) => Arguments::add(&mut arguments, v),
                SqlValue::Date(v) => Arguments::add(&mut arguments, temporal::date(at, &v)?),
                SqlValue::Time(v) => Arguments::add(&mut arguments, temporal::time(at, &v)?),
                SqlValue::DateTime(v) => Arguments::add(&mut arguments, temporal::date_time(at, &v)?),
                SqlValue::Timestamp(v) => Arguments::add(&mut arguments, temporal::timestamp(at, &v)?),
                SqlValue::Uuid(v) => Arguments::add(&mut arguments, Uuid::from_bytes(v)),
            };
            added.map_err(|e| bad_parameter(at, e))?;
        }
        Ok(arguments)
    }

    fn value(row: &SqliteRow, at: usize) -> Result<SqlValue, SqlError> {
        let raw = row.try_get_raw(at).map_err(|e| error::<Self>(&e))?;
        if raw.is_null() {
            return Ok(SqlValue::Null);
        }
        let column = row.column(at);
        // How the value is kept says more than how the column was declared.
        let stored = raw.type_info();
        let value = match (stored.name(), column.type_info().name()) {
            ("INTEGER", "BOOLEAN") | ("BOOLEAN", _) => row.try_get_unchecked(at).map(SqlValue::Bool),
            ("INTEGER" | "NUMERIC", _) => row.try_get_unchecked(at).map(SqlValue::Int),
            ("REAL", _) => row.try_get_unchecked(at).map(SqlValue::Float),
            ("BLOB", _) => row.try_get_unchecked(at).map(SqlValue::Bytes),
            ("TEXT" | "DATE" | "TIME" | "DATETIME", _) => row.try_get_unchecked(at).map(SqlValue::Text),
            (other, _) => return Err(not_carried(column.name(), other)),
        };
        value.map_err(|e| error::<Self>(&e))
    }

    fn done(result: &SqliteQueryResult) -> Done {
        Done { rows_affected: result.rows_affected(), last_insert_id: Some(result.last_insert_rowid()) }
    }

    fn begin(isolation: Isolation) -> &'static [&'static str] {
        match isolation {
            // All are serialisable. One that is going to write takes its turn at once, so that it does not fail half-way.
            Isolation::Default | Isolation::Serializable => &["begin immediate"],
            Isolation::ReadUncommitted | Isolation::ReadCommitted | Isolation::RepeatableRead => &["begin deferred"],
        }
    }

    fn kind(error: &dyn DatabaseError) -> SqlErrorKind {
        let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        match code {
            // SQLITE_CONSTRAINT with its extended codes.
            1555 | 2067 | 2579 => SqlErrorKind::UniqueViolation,
            787 => SqlErrorKind::ForeignKeyViolation,
            1299 => SqlErrorKind::NotNullViolation,
            275 => SqlErrorKind::CheckViolation,
            _ => match code & 0xff {
                1 => SqlErrorKind::Syntax,
                5 | 6 => SqlErrorKind::SerializationFailure,
                9 => SqlErrorKind::Timeout,
                3 | 8 | 23 => SqlErrorKind::Denied,
                10 | 14 => SqlErrorKind::Connection,
                18 | 20 | 25 => SqlErrorKind::Data,
                _ => SqlErrorKind::Other,
            },
        }
    }
}

/// Whether each connection has a database of its own.
pub(super) fn in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}
