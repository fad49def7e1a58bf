//! Dates, times and decimal numbers between the database driver's types and the texts that cross the border.

use std::str::FromStr;

use sqlx::types::BigDecimal;
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use wharf_kernel::resource::{SqlError, SqlValue};

use super::engine::bad_parameter;

pub(super) fn date(at: usize, text: &str) -> Result<NaiveDate, SqlError> {
    text.parse().map_err(|e| bad_parameter(at, format!("'{text}' is not a date: {e}")))
}

pub(super) fn time(at: usize, text: &str) -> Result<NaiveTime, SqlError> {
    text.parse().map_err(|e| bad_parameter(at, format!("'{text}' is not a time: {e}")))
}

pub(super) fn date_time(at: usize, text: &str) -> Result<NaiveDateTime, SqlError> {
    text.replacen(' ', "T", 1).parse().map_err(|e| bad_parameter(at, format!("'{text}' is not a date and time: {e}")))
}

pub(super) fn timestamp(at: usize, text: &str) -> Result<DateTime<Utc>, SqlError> {
    DateTime::parse_from_rfc3339(text)
        .map(|t| t.to_utc())
        .map_err(|e| bad_parameter(at, format!("'{text}' is not a timestamp: {e}")))
}

pub(super) fn decimal(at: usize, text: &str) -> Result<BigDecimal, SqlError> {
    BigDecimal::from_str(text).map_err(|e| bad_parameter(at, format!("'{text}' is not a decimal number: {e}")))
}

pub(super) fn of_date_time(value: &NaiveDateTime) -> SqlValue {
    SqlValue::DateTime(value.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
}

pub(super) fn of_timestamp(value: &DateTime<Utc>) -> SqlValue {
    SqlValue::Timestamp(value.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
}
