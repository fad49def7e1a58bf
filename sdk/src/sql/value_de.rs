//! Rows and their values into whatever serde can make.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use wharf_abi::FfiSqlValue;

use super::value::{JSON, Uuid};

/// Why a row is not what was asked for.
#[derive(Debug)]
pub(super) struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

impl From<serde_json::Error> for Misfit {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("the JSON in it: {error}"))
    }
}

/// A row: a map by the names of its columns, a sequence by their order, or its only value.
#[derive(Clone, Copy)]
pub(super) struct RowDe<'r> {
    pub(super) columns: &'r [String],
    pub(super) values: &'r [FfiSqlValue],
}

impl<'r> RowDe<'r> {
    fn only(self) -> Result<ValueDe<'r>, Misfit> {
        match (self.columns, self.values) {
            ([column], [value]) => Ok(ValueDe { column, value }),
            _ => Err(Misfit(format!(
                "the row has {} columns: take it as a struct or a tuple, or select one",
                self.values.len()
            ))),
        }
    }
}

macro_rules! only {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            self.only()?.$name(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for RowDe<'de> {
    type Error = Misfit;

    only! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.only() {
            Ok(only) => only.deserialize_option(visitor),
            Err(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        match name {
            JSON => self.only()?.deserialize_newtype_struct(name, visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        // Bytes of the only column, rather than a sequence of one value.
        if let ([_], [FfiSqlValue::Bytes(_)]) = (self.columns, self.values) {
            return self.only()?.deserialize_seq(visitor);
        }
        visitor.visit_seq(Walk { row: self, at: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Misfit> {
        if len != self.values.len() {
            return Err(Misfit(format!("the row has {} columns, the tuple {len}", self.values.len())));
        }
        visitor.visit_seq(Walk { row: self, at: 0 })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_map(Walk { row: self, at: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.only()?.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }
}

/// From column to column.
struct Walk<'r> {
    row: RowDe<'r>,
    at: usize,
}

impl<'r> Walk<'r> {
    fn value(&mut self) -> Option<ValueDe<'r>> {
        let row = self.row;
        let (column, value) = (row.columns.get(self.at)?, row.values.get(self.at)?);
        self.at += 1;
        Some(ValueDe { column, value })
    }
}

fn in_column<T>(column: &str, result: Result<T, Misfit>) -> Result<T, Misfit> {
    result.map_err(|Misfit(what)| match what.starts_with("column ") {
        true => Misfit(what),
        false => Misfit(format!("column '{column}': {what}")),
    })
}

impl<'de> SeqAccess<'de> for Walk<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        self.value().map(|value| in_column(value.column, seed.deserialize(value))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.row.values.len() - self.at)
    }
}

impl<'de> MapAccess<'de> for Walk<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let key: Option<StrDeserializer<'_, Misfit>> =
            self.row.columns.get(self.at).map(|name| name.as_str().into_deserializer());
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let value = self.value().ok_or_else(|| Misfit("there is no value".into()))?;
        in_column(value.column, seed.deserialize(value))
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
pub(super) struct ValueDe<'r> {
    pub(super) column: &'r str,
    pub(super) value: &'r FfiSqlValue,
}

/// Numbers: those that the database keeps as decimals are parsed, where the type asked for can hold them.
macro_rules! numbers {
    ($($name:ident => $type:ty, $visit:ident;)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match self.value {
                FfiSqlValue::Decimal(text) => match text.as_str().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(Misfit(format!("{text} is not a {}", stringify!($type)))),
                },
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

/// What has an inner structure is JSON, in a column of that type or of a text.
macro_rules! structured {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Misfit> {
            match self.value {
                FfiSqlValue::Json(text) | FfiSqlValue::Text(text) => {
                    Ok(serde_json::Deserializer::from_str(text).$name($($arg,)* visitor)?)
                }
                // MariaDB sends its JSON as bytes.
                FfiSqlValue::Bytes(bytes) => Ok(serde_json::Deserializer::from_slice(bytes).$name($($arg,)* visitor)?),
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for ValueDe<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Null => visitor.visit_unit(),
            FfiSqlValue::Bool(v) => visitor.visit_bool(*v),
            FfiSqlValue::Int(v) => visitor.visit_i64(*v),
            FfiSqlValue::Float(v) => visitor.visit_f64(*v),
            FfiSqlValue::Bytes(v) => visitor.visit_bytes(v),
            FfiSqlValue::Uuid(v) => visitor.visit_string(Uuid(*v).to_string()),
            FfiSqlValue::Json(v) => Ok(serde_json::Deserializer::from_str(v).deserialize_any(visitor)?),
            FfiSqlValue::Text(v)
            | FfiSqlValue::Decimal(v)
            | FfiSqlValue::Date(v)
            | FfiSqlValue::Time(v)
            | FfiSqlValue::DateTime(v)
            | FfiSqlValue::Timestamp(v) => visitor.visit_str(v),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            // Engines without a type of its own.
            FfiSqlValue::Int(v @ (0 | 1)) => visitor.visit_bool(*v == 1),
            _ => self.deserialize_any(visitor),
        }
    }

    numbers! {
        deserialize_i64 => i64, visit_i64;
        deserialize_u64 => u64, visit_u64;
        deserialize_i128 => i128, visit_i128;
        deserialize_u128 => u128, visit_u128;
        deserialize_f32 => f32, visit_f32;
        deserialize_f64 => f64, visit_f64;
    }

    structured! {
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Bytes(bytes) => visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied())),
            FfiSqlValue::Json(text) | FfiSqlValue::Text(text) => {
                Ok(serde_json::Deserializer::from_str(text).deserialize_seq(visitor)?)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Json(text) => visitor.visit_str(text),
            FfiSqlValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_str(text),
                Err(_) => visitor.visit_bytes(bytes),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Uuid(bytes) => visitor.visit_bytes(bytes),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Json(text) | FfiSqlValue::Text(text) if name == JSON => {
                Ok(visitor.visit_newtype_struct(&mut serde_json::Deserializer::from_str(text))?)
            }
            FfiSqlValue::Bytes(bytes) if name == JSON => {
                Ok(visitor.visit_newtype_struct(&mut serde_json::Deserializer::from_slice(bytes))?)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.value {
            FfiSqlValue::Text(text) => {
                let text: StrDeserializer<'_, Misfit> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            FfiSqlValue::Json(text) => {
                Ok(serde_json::Deserializer::from_str(text).deserialize_enum(name, variants, visitor)?)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i8 i16 i32 u8 u16 u32 char unit unit_struct identifier }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::super::value::{Bytes, Date, Decimal, Json};
    use super::*;

    fn take<T: DeserializeOwned>(values: &[(&str, FfiSqlValue)]) -> Result<T, String> {
        let columns: Vec<String> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        let values: Vec<FfiSqlValue> = values.iter().map(|(_, value)| value.clone()).collect();
        T::deserialize(RowDe { columns: &columns, values: &values }).map_err(|e| e.to_string())
    }

    fn text(text: &str) -> FfiSqlValue {
        FfiSqlValue::Text(text.into())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: Vec<u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Blue,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        id: u32,
        on: bool,
        name: Option<String>,
        none: Option<i64>,
        colour: Colour,
        price: Decimal,
        day: Date,
        raw: Bytes,
        uuid: Uuid,
        inner: Inner,
        kept: Json<BTreeMap<String, i32>>,
    }

    #[test]
    fn a_row_is_a_struct() {
        let row = [
            ("id", FfiSqlValue::Int(7)),
            ("on", FfiSqlValue::Int(1)),
            ("name", text("ann")),
            ("none", FfiSqlValue::Null),
            ("colour", text("blue")),
            ("price", FfiSqlValue::Decimal("12.50".into())),
            ("day", FfiSqlValue::Date("2026-11-25".into())),
            ("raw", FfiSqlValue::Bytes(vec![0, 255].into())),
            ("uuid", FfiSqlValue::Uuid([1; 16])),
            ("inner", FfiSqlValue::Json(r#"{"a":[1]}"#.into())),
            ("kept", text(r#"{"x":1}"#)),
            ("more", text("ignored")),
        ];
        let all: All = take(&row).unwrap();
        let want = All {
            id: 7,
            on: true,
            name: Some("ann".into()),
            none: None,
            colour: Colour::Blue,
            price: Decimal::of("12.50"),
            day: Date::of("2026-11-25"),
            raw: Bytes(vec![0, 255]),
            uuid: Uuid([1; 16]),
            inner: Inner { a: vec![1] },
            kept: Json(BTreeMap::from([("x".into(), 1)])),
        };
        assert_eq!(all, want);
    }

    #[test]
    fn a_row_is_a_tuple_or_its_only_value() {
        assert_eq!(take(&[("a", FfiSqlValue::Int(1)), ("b", text("x"))]), Ok((1_u8, "x".to_owned())));
        assert_eq!(take(&[("a", FfiSqlValue::Int(1))]), Ok(1_i64));
        assert_eq!(take(&[("a", FfiSqlValue::Int(1))]), Ok((1_i64,)));
        assert_eq!(take(&[("a", FfiSqlValue::Null)]), Ok(None::<String>));
        assert_eq!(take(&[("a", text("x"))]), Ok(Some("x".to_owned())));
        assert_eq!(take(&[("a", FfiSqlValue::Bytes(vec![1, 2].into()))]), Ok(vec![1_u8, 2]));
        assert_eq!(take(&[("a", FfiSqlValue::Bytes(vec![9; 16].into()))]), Ok(Uuid([9; 16])));
        assert_eq!(take(&[("a", FfiSqlValue::Decimal("18446744073709551615".into()))]), Ok(u64::MAX));
        assert_eq!(take(&[("a", FfiSqlValue::Decimal("0.5".into()))]), Ok(0.5_f64));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let pair = [("a", FfiSqlValue::Int(300)), ("b", FfiSqlValue::Null)];
        for (error, words) in [
            (take::<(u8, Option<u8>)>(&pair).unwrap_err(), ["column 'a'", "300"]),
            (take::<(i32, String)>(&pair).unwrap_err(), ["column 'b'", "string"]),
            (take::<(i32,)>(&pair).unwrap_err(), ["2 columns", "tuple 1"]),
            (take::<i32>(&pair).unwrap_err(), ["2 columns", "struct or a tuple"]),
            (take::<All>(&pair).unwrap_err(), ["missing field", "id"]),
            (take::<u64>(&[("a", FfiSqlValue::Decimal("1.5".into()))]).unwrap_err(), ["1.5", "u64"]),
            (take::<(Inner,)>(&[("a", text("{"))]).unwrap_err(), ["JSON", "EOF"]),
        ] {
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error}");
            }
        }
    }
}
