//! A row of a result.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use wharf_abi::FfiSqlValue;

use super::value_de::{RowDe, ValueDe};
use super::{SqlError, SqlErrorKind};

/// A row of a result, for whoever does not know its columns beforehand. Others ask for a struct or a tuple at once.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<FfiSqlValue>,
}

impl Row {
    pub(super) fn new(columns: Arc<[String]>, values: Vec<FfiSqlValue>) -> Self {
        Self { columns, values }
    }

    /// Names of the columns, in their order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The value in the column with this name.
    ///
    /// # Errors
    /// [`SqlErrorKind::Data`] when there is no such column, or it is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, SqlError> {
        match self.columns.iter().position(|column| column == name) {
            Some(at) => self.at(at),
            None => {
                let what = format!("the row has no column '{name}', but {}", self.columns.join(", "));
                Err(SqlError::new(SqlErrorKind::Data, what))
            }
        }
    }

    /// The value in the column at this place, from 0.
    ///
    /// # Errors
    /// As [`Row::get`].
    pub fn at<T: DeserializeOwned>(&self, at: usize) -> Result<T, SqlError> {
        let (Some(column), Some(value)) = (self.columns.get(at), self.values.get(at)) else {
            let what = format!("the row has {} columns, and none at {at}", self.columns.len());
            return Err(SqlError::new(SqlErrorKind::Data, what));
        };
        T::deserialize(ValueDe { column, value })
            .map_err(|e| SqlError::new(SqlErrorKind::Data, format!("column '{column}': {e}")))
    }

    /// Whether the value in the column at this place is NULL, or there is none.
    pub fn is_null(&self, at: usize) -> bool {
        matches!(self.values.get(at), None | Some(FfiSqlValue::Null))
    }

    /// All of it as a struct, a tuple, or its only value.
    ///
    /// # Errors
    /// [`SqlErrorKind::Data`] when it does not fit.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, SqlError> {
        take(&self.columns, &self.values)
    }
}

/// Makes of values what was asked for.
pub(super) fn take<T: DeserializeOwned>(columns: &[String], values: &[FfiSqlValue]) -> Result<T, SqlError> {
    T::deserialize(RowDe { columns, values }).map_err(|e| SqlError::new(SqlErrorKind::Data, e.to_string()))
}
