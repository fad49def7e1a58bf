//! MySQL and MariaDB.

use std::str::FromStr;

use sqlx::error::DatabaseError;
use sqlx::mysql::{
    MySql, MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlQueryResult, MySqlRow,
};
use sqlx::types::Uuid;
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::{Arguments, Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};
use wharf_kernel::resource::{Done, Isolation, SqlError, SqlErrorKind, SqlValue};
use wharf_kernel::settings::Resource;

use super::engine::{Engine, SHORT, bad_parameter, error, not_carried};
use super::temporal;

impl Engine for MySql {
    const CALLED: &'static str = "mysql";
    const ERRORS_ABORT: bool = false;
    type Options = MySqlConnectOptions;
    type Cancel = u64;

    fn options(settings: &Resource) -> Result<MySqlConnectOptions, sqlx::Error> {
        let mut options = MySqlConnectOptions::from_str(&settings.url)?.disable_statement_logging();
        if let Some(user) = &settings.user {
            options = options.username(user);
        }
        if let Some(password) = &settings.password {
            options = options.password(password);
        }
        Ok(options)
    }

    async fn connect(options: &MySqlConnectOptions, _: &Resource) -> Result<(MySqlConnection, u64), sqlx::Error> {
        let mut connection = MySqlConnection::connect_with(options).await?;
        let id: u64 = sqlx::query_scalar("select cast(connection_id() as unsigned)").fetch_one(&mut connection).await?;
        Ok((connection, id))
    }

    fn cancel(options: &MySqlConnectOptions, id: &u64) -> impl Future<Output = ()> + Send + use<> {
        let (options, id) = (options.clone(), *id);
        async move {
            let cancel = async {
                let mut connection = MySqlConnection::connect_with(&options).await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("kill {id}"))).execute(&mut connection).await?;
                connection.close().await
            };
            if let Ok(Err(error)) = tokio::time::timeout(SHORT, cancel).await {
                tracing::debug!("a statement could not be cancelled: {error}");
            }
        }
    }

    fn statement(sql: String, _: &[SqlValue]) -> String {
        sql
    }

    fn arguments(values: Vec<SqlValue>) -> Result<MySqlArguments, SqlError> {
        let mut arguments = MySqlArguments::default();
        arguments.reserve(values.len(), 16 * values.len());
        for (at, value) in values.into_iter().enumerate() {
            let added = match value {
                SqlValue::Null => arguments.add(None::<String>),
                SqlValue::Bool(v) => arguments.add(v),
                SqlValue::Int(v) => arguments.add(v),
                SqlValue::Float(v) => arguments.add(v),
                // Numbers are sent as they are written, which loses nothing.
                SqlValue::Text(v) | SqlValue::Json(v) => arguments.add(v),
                SqlValue::Decimal(v) => arguments.add(temporal::decimal(at, &v)?),
                SqlValue::Bytes(v) => arguments.add(v),
                SqlValue::Date(v) => arguments.add(temporal::date(at, &v)?),
                SqlValue::Time(v) => arguments.add(temporal::time(at, &v)?),
                SqlValue::DateTime(v) => arguments.add(temporal::date_time(at, &v)?),
                SqlValue::Timestamp(v) => arguments.add(temporal::timestamp(at, &v)?),
                SqlValue::Uuid(v) => arguments.add(Uuid::from_bytes(v)),
            };
            added.map_err(|e| bad_parameter(at, e))?;
        }
        Ok(arguments)
    }

    fn value(row: &MySqlRow, at: usize) -> Result<SqlValue, SqlError> {
        let raw = row.try_get_raw(at).map_err(|e| error::<Self>(&e))?;
        if raw.is_null() {
            return Ok(SqlValue::Null);
        }
        let column = row.column(at);
        let value = match column.type_info().name() {
            "BOOLEAN" => row.try_get(at).map(SqlValue::Bool),
            "TINYINT" | "SMALLINT" | "INT" | "MEDIUMINT" | "BIGINT" => row.try_get(at).map(SqlValue::Int),
            "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "INT UNSIGNED" | "MEDIUMINT UNSIGNED" | "BIGINT UNSIGNED"
            | "BIT" | "YEAR" => row
                .try_get_unchecked::<u64, _>(at)
                .map(|v| i64::try_from(v).map_or_else(|_| SqlValue::Decimal(v.to_string()), SqlValue::Int)),
            "FLOAT" => row.try_get::<f32, _>(at).map(|v| SqlValue::Float(v.into())),
            "DOUBLE" => row.try_get(at).map(SqlValue::Float),
            "DECIMAL" => row.try_get_unchecked(at).map(SqlValue::Decimal),
            "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "ENUM" | "SET" => {
                row.try_get_unchecked(at).map(SqlValue::Text)
            }
            "JSON" => row.try_get_unchecked(at).map(SqlValue::Json),
            "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
                row.try_get_unchecked(at).map(SqlValue::Bytes)
            }
            "DATE" => row.try_get::<NaiveDate, _>(at).map(|v| SqlValue::Date(v.to_string())),
            "TIME" => row.try_get::<NaiveTime, _>(at).map(|v| SqlValue::Time(v.to_string())),
            "DATETIME" => row.try_get::<NaiveDateTime, _>(at).map(|v| temporal::of_date_time(&v)),
            "TIMESTAMP" => row.try_get::<DateTime<Utc>, _>(at).map(|v| temporal::of_timestamp(&v)),
            "NULL" => Ok(SqlValue::Null),
            other => return Err(not_carried(column.name(), other)),
        };
        value.map_err(|e| error::<Self>(&e))
    }

    fn done(result: &MySqlQueryResult) -> Done {
        let id = Some(result.last_insert_id()).filter(|id| *id != 0);
        Done { rows_affected: result.rows_affected(), last_insert_id: id.and_then(|id| i64::try_from(id).ok()) }
    }

    fn begin(isolation: Isolation) -> &'static [&'static str] {
        match isolation {
            Isolation::Default => &["start transaction"],
            Isolation::ReadUncommitted => &["set transaction isolation level read uncommitted", "start transaction"],
            Isolation::ReadCommitted => &["set transaction isolation level read committed", "start transaction"],
            Isolation::RepeatableRead => &["set transaction isolation level repeatable read", "start transaction"],
            Isolation::Serializable => &["set transaction isolation level serializable", "start transaction"],
        }
    }

    fn kind(error: &dyn DatabaseError) -> SqlErrorKind {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        match number {
            1062 | 1586 | 1169 => SqlErrorKind::UniqueViolation,
            1216 | 1217 | 1451 | 1452 => SqlErrorKind::ForeignKeyViolation,
            1048 | 1364 => SqlErrorKind::NotNullViolation,
            3819 | 4025 => SqlErrorKind::CheckViolation,
            // Deadlock, lock wait timeout, record changed since it was read.
            1213 | 1205 | 1020 => SqlErrorKind::SerializationFailure,
            3024 | 1969 | 1317 => SqlErrorKind::Timeout,
            1040 | 1053 | 1927 => SqlErrorKind::Connection,
            1044 | 1045 | 1142 | 1143 | 1227 => SqlErrorKind::Denied,
            1264 | 1265 | 1292 | 1366 | 1406 => SqlErrorKind::Data,
            _ => match error.code().unwrap_or_default().get(..2) {
                Some("08") => SqlErrorKind::Connection,
                Some("22") => SqlErrorKind::Data,
                Some("28") => SqlErrorKind::Denied,
                Some("42") => SqlErrorKind::Syntax,
                _ => SqlErrorKind::Other,
            },
        }
    }
}
