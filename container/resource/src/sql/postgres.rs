//! PostgreSQL.

use std::str::FromStr;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgQueryResult, PgRow, PgTypeInfo, Postgres};
use sqlx::types::Uuid;
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::{Arguments, Column, ConnectOptions, Connection, Encode, Row, Type, TypeInfo, ValueRef};
use wharf_kernel::resource::{Done, Isolation, SqlError, SqlErrorKind, SqlValue};
use wharf_kernel::settings::Resource;

use super::engine::{Engine, SHORT, bad_parameter, bad_value, error, not_carried};
use super::{marks, numeric, temporal};

/// A parameter whose type the database finds out by itself. Only NULL is sent in this way.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        // `unknown` in pg_type.
        PgTypeInfo::with_oid(sqlx::postgres::types::Oid(705))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(
        &self,
        _: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        Ok(sqlx::encode::IsNull::Yes)
    }
}

impl Engine for Postgres {
    const CALLED: &'static str = "postgres";
    const ERRORS_ABORT: bool = true;
    type Options = PgConnectOptions;
    type Cancel = i32;

    fn options(settings: &Resource) -> Result<PgConnectOptions, sqlx::Error> {
        let mut options =
            PgConnectOptions::from_str(&settings.url)?.application_name("wharf").disable_statement_logging();
        if let Some(user) = &settings.user {
            options = options.username(user);
        }
        if let Some(password) = &settings.password {
            options = options.password(password);
        }
        Ok(options)
    }

    async fn connect(options: &PgConnectOptions, _: &Resource) -> Result<(PgConnection, i32), sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        let process: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
        Ok((connection, process))
    }

    fn cancel(options: &PgConnectOptions, process: &i32) -> impl Future<Output = ()> + Send + use<> {
        let (options, process) = (options.clone(), *process);
        async move {
            let cancel = async {
                let mut connection = PgConnection::connect_with(&options).await?;
                // Not pg_cancel_backend: what comes before a statement has begun would be lost, and the statement go on.
                sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where pid = $1")
                    .bind(process)
                    .execute(&mut connection)
                    .await?;
                connection.close().await
            };
            if let Ok(Err(error)) = tokio::time::timeout(SHORT, cancel).await {
                tracing::debug!("a statement could not be cancelled: {error}");
            }
        }
    }

    fn statement(sql: String, parameters: &[SqlValue]) -> String {
        let mut sql = marks::numbered(&sql).into_owned();
        // A prepared statement is for parameters of certain types, and is found again by its text.
        if !parameters.is_empty() {
            sql.push_str(" --");
            sql.extend(parameters.iter().map(letter));
        }
        sql
    }

    fn arguments(values: Vec<SqlValue>) -> Result<PgArguments, SqlError> {
        let mut arguments = PgArguments::default();
        arguments.reserve(values.len(), 16 * values.len());
        for (at, value) in values.into_iter().enumerate() {
            let added = match value {
                SqlValue::Null => arguments.add(Untyped),
                SqlValue::Bool(v) => arguments.add(v),
                SqlValue::Int(v) => arguments.add(v),
                SqlValue::Float(v) => arguments.add(v),
                SqlValue::Text(v) => arguments.add(v),
                SqlValue::Bytes(v) => arguments.add(v),
                SqlValue::Decimal(v) => arguments.add(temporal::decimal(at, &v)?),
                SqlValue::Date(v) => arguments.add(temporal::date(at, &v)?),
                SqlValue::Time(v) => arguments.add(temporal::time(at, &v)?),
                SqlValue::DateTime(v) => arguments.add(temporal::date_time(at, &v)?),
                SqlValue::Timestamp(v) => arguments.add(temporal::timestamp(at, &v)?),
                SqlValue::Uuid(v) => arguments.add(Uuid::from_bytes(v)),
                SqlValue::Json(v) => {
                    let json: serde_json::Value = serde_json::from_str(&v).map_err(|e| bad_parameter(at, e))?;
                    arguments.add(sqlx::types::Json(json))
                }
            };
            added.map_err(|e| bad_parameter(at, e))?;
        }
        Ok(arguments)
    }

    fn value(row: &PgRow, at: usize) -> Result<SqlValue, SqlError> {
        let raw = row.try_get_raw(at).map_err(|e| error::<Self>(&e))?;
        if raw.is_null() {
            return Ok(SqlValue::Null);
        }
        let column = row.column(at);
        let value = match column.type_info().name() {
            "BOOL" => row.try_get(at).map(SqlValue::Bool),
            "INT2" => row.try_get::<i16, _>(at).map(|v| SqlValue::Int(v.into())),
            "INT4" => row.try_get::<i32, _>(at).map(|v| SqlValue::Int(v.into())),
            "INT8" => row.try_get(at).map(SqlValue::Int),
            "OID" => row.try_get::<sqlx::postgres::types::Oid, _>(at).map(|v| SqlValue::Int(v.0.into())),
            "FLOAT4" => row.try_get::<f32, _>(at).map(|v| SqlValue::Float(v.into())),
            "FLOAT8" => row.try_get(at).map(SqlValue::Float),
            "NUMERIC" => {
                let bytes = raw.as_bytes().map_err(|e| bad_value(column.name(), e))?;
                let text = numeric::text(bytes).ok_or_else(|| bad_value(column.name(), "not a number"))?;
                Ok(SqlValue::Decimal(text))
            }
            "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "CITEXT" | "UNKNOWN" | "BPCHAR" => {
                row.try_get_unchecked(at).map(SqlValue::Text)
            }
            "BYTEA" => row.try_get(at).map(SqlValue::Bytes),
            "DATE" => row.try_get::<NaiveDate, _>(at).map(|v| SqlValue::Date(v.to_string())),
            "TIME" => row.try_get::<NaiveTime, _>(at).map(|v| SqlValue::Time(v.to_string())),
            "TIMESTAMP" => row.try_get::<NaiveDateTime, _>(at).map(|v| temporal::of_date_time(&v)),
            "TIMESTAMPTZ" => row.try_get::<DateTime<Utc>, _>(at).map(|v| temporal::of_timestamp(&v)),
            "UUID" => row.try_get::<Uuid, _>(at).map(|v| SqlValue::Uuid(v.into_bytes())),
            "JSON" | "JSONB" => {
                row.try_get::<sqlx::types::Json<serde_json::Value>, _>(at).map(|v| SqlValue::Json(v.0.to_string()))
            }
            "VOID" => Ok(SqlValue::Null),
            other => {
                let is_enum = matches!(column.type_info().kind(), sqlx::postgres::PgTypeKind::Enum(_));
                match is_enum {
                    true => row.try_get_unchecked(at).map(SqlValue::Text),
                    false => return Err(not_carried(column.name(), other)),
                }
            }
        };
        value.map_err(|e| error::<Self>(&e))
    }

    fn done(result: &PgQueryResult) -> Done {
        Done { rows_affected: result.rows_affected(), last_insert_id: None }
    }

    fn begin(isolation: Isolation) -> &'static [&'static str] {
        match isolation {
            Isolation::Default => &["begin"],
            Isolation::ReadUncommitted => &["begin isolation level read uncommitted"],
            Isolation::ReadCommitted => &["begin isolation level read committed"],
            Isolation::RepeatableRead => &["begin isolation level repeatable read"],
            Isolation::Serializable => &["begin isolation level serializable"],
        }
    }

    fn kind(error: &dyn DatabaseError) -> SqlErrorKind {
        let code = error.code().unwrap_or_default();
        match &*code {
            "23505" => SqlErrorKind::UniqueViolation,
            "23503" => SqlErrorKind::ForeignKeyViolation,
            "23502" => SqlErrorKind::NotNullViolation,
            "23514" => SqlErrorKind::CheckViolation,
            "40001" | "40P01" | "55P03" => SqlErrorKind::SerializationFailure,
            "57014" => SqlErrorKind::Timeout,
            // The server stops, or has stopped this session; it does not let more in.
            "57P01" | "57P02" | "57P03" | "53300" => SqlErrorKind::Connection,
            "42501" => SqlErrorKind::Denied,
            code => match code.get(..2) {
                Some("08") => SqlErrorKind::Connection,
                Some("22") => SqlErrorKind::Data,
                Some("28") => SqlErrorKind::Denied,
                Some("42") => SqlErrorKind::Syntax,
                _ => SqlErrorKind::Other,
            },
        }
    }
}

/// The type that a parameter is sent as.
fn letter(value: &SqlValue) -> char {
    match value {
        SqlValue::Null => 'n',
        SqlValue::Bool(_) => 'b',
        SqlValue::Int(_) => 'i',
        SqlValue::Float(_) => 'f',
        SqlValue::Text(_) => 't',
        SqlValue::Bytes(_) => 'x',
        SqlValue::Decimal(_) => 'd',
        SqlValue::Date(_) => 'D',
        SqlValue::Time(_) => 'T',
        SqlValue::DateTime(_) => 'S',
        SqlValue::Timestamp(_) => 'Z',
        SqlValue::Uuid(_) => 'u',
        SqlValue::Json(_) => 'j',
    }
}
