//! Values of parameters, and the types of SQL that Rust has no name for.

use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use wharf_abi::FfiSqlValue;

/// A parameter, ready to be sent.
#[derive(Debug, Clone)]
pub struct Parameter(pub(crate) FfiSqlValue);

impl Parameter {
    /// NULL, of whatever type.
    pub const NULL: Self = Self(FfiSqlValue::Null);
}

/// What can be a parameter of a statement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a parameter of a statement",
    note = "numbers, `bool`, texts, bytes, `Option`s of them and the types of `wharf_sdk::sql` can; others as text: \
            `sql::Date::of(date)`, `sql::Decimal::of(price)`, `sql::Json(&value)`"
)]
pub trait ToSql {
    /// The parameter.
    fn to_sql(self) -> Parameter;
}

impl ToSql for Parameter {
    fn to_sql(self) -> Parameter {
        self
    }
}

impl<T: ToSql> ToSql for Option<T> {
    fn to_sql(self) -> Parameter {
        self.map_or(Parameter::NULL, ToSql::to_sql)
    }
}

macro_rules! to_sql {
    ($($type:ty => |$value:ident| $make:expr;)*) => {
        $(impl ToSql for $type {
            fn to_sql(self) -> Parameter {
                let $value = self;
                Parameter($make)
            }
        })*
    };
}

to_sql! {
    bool => |v| FfiSqlValue::Bool(v);
    i8 => |v| FfiSqlValue::Int(v.into());
    i16 => |v| FfiSqlValue::Int(v.into());
    i32 => |v| FfiSqlValue::Int(v.into());
    i64 => |v| FfiSqlValue::Int(v);
    u8 => |v| FfiSqlValue::Int(v.into());
    u16 => |v| FfiSqlValue::Int(v.into());
    u32 => |v| FfiSqlValue::Int(v.into());
    f32 => |v| FfiSqlValue::Float(v.into());
    f64 => |v| FfiSqlValue::Float(v);
    &str => |v| FfiSqlValue::Text(v.into());
    &String => |v| FfiSqlValue::Text(v.as_str().into());
    String => |v| FfiSqlValue::Text(v.into());
    &[u8] => |v| FfiSqlValue::Bytes(v.into());
    Vec<u8> => |v| FfiSqlValue::Bytes(v.into());
    Bytes => |v| FfiSqlValue::Bytes(v.0.into());
    Uuid => |v| FfiSqlValue::Uuid(v.0);
    Decimal => |v| FfiSqlValue::Decimal(v.0.into());
    Date => |v| FfiSqlValue::Date(v.0.into());
    Time => |v| FfiSqlValue::Time(v.0.into());
    DateTime => |v| FfiSqlValue::DateTime(v.0.into());
    Timestamp => |v| FfiSqlValue::Timestamp(v.0.into());
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// It is kept as text: what crates for it print and parse. A text that is none is an error of the statement.
            #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(String);

            impl $name {
                /// What `value` prints.
                pub fn of(value: impl fmt::Display) -> Self {
                    Self(value.to_string())
                }

                /// The text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }

                /// The value as a type of another crate.
                ///
                /// # Errors
                /// When the text is none of its values.
                pub fn parse<T: FromStr>(&self) -> Result<T, T::Err> {
                    self.0.parse()
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )*
    };
}

texts! {
    /// An exact decimal number: `12.50`. SQLite has none: keep it in a column of type TEXT there.
    Decimal;
    /// A date: `2026-11-25`.
    Date;
    /// A time of day: `13:01:02.5`.
    Time;
    /// A date and time in no time zone: `2026-11-25T13:01:02.5`.
    DateTime;
    /// A point in time: `2026-11-25T13:01:02.5Z` (RFC 3339). It comes back in UTC.
    Timestamp;
}

/// Bytes of a row, taken at once rather than one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Take)
    }
}

/// A UUID (RFC 9562). SQLite and MySQL keep its 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Why a text is no [`Uuid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUuid;

impl fmt::Display for NotUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID is 32 hexadecimal digits, maybe with hyphens as in 01234567-89ab-cdef-0123-456789abcdef")
    }
}

impl std::error::Error for NotUuid {}

impl FromStr for Uuid {
    type Err = NotUuid;

    fn from_str(text: &str) -> Result<Self, NotUuid> {
        let digits: Vec<u8> = match (text.len(), text.is_ascii()) {
            (32, true) => text.bytes().collect(),
            (36, true) if [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-') => {
                text.bytes().filter(|b| *b != b'-').collect()
            }
            _ => return Err(NotUuid),
        };
        let digit = |b: u8| char::from(b).to_digit(16).ok_or(NotUuid);
        let mut out = [0; 16];
        if digits.len() != 32 {
            return Err(NotUuid);
        }
        for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(out))
    }
}

impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Uuid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID, as text or in 16 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Uuid, E> {
                // Some give a text as its bytes.
                let text = || std::str::from_utf8(bytes).ok()?.parse().ok();
                let uuid = bytes.try_into().map(Uuid).ok().or_else(text);
                uuid.ok_or_else(|| E::invalid_length(bytes.len(), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uuid, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Take)
    }
}

/// A value that is kept as JSON: in a column of that type, or of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize> ToSql for Json<T> {
    /// # Panics
    /// When the value can't be JSON, as a map whose keys are no texts.
    fn to_sql(self) -> Parameter {
        let text = serde_json::to_string(&self.0).expect("the value can be written as JSON");
        Parameter(FfiSqlValue::Json(text.into()))
    }
}

/// The name by which [`Json`] tells the rows' deserializer that a text is to be parsed.
pub(super) const JSON: &str = "$wharf_sdk::sql::Json";

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<T>(std::marker::PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Take<T> {
            type Value = Json<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<T>, D::Error> {
                T::deserialize(deserializer).map(Json)
            }
        }
        deserializer.deserialize_newtype_struct(JSON, Take(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_and_written() {
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!((uuid.to_string().as_str(), uuid.0[15]), (text, 0xef));
        assert_eq!("0123456789ABCDEF0123456789abcdef".parse(), Ok(uuid));
        for bad in ["", "0123", "01234567-89ab-cdef-0123-456789abcdeg", "0123456789ab-cdef-0123-456789abcdef----", "ä"]
        {
            assert_eq!(bad.parse::<Uuid>(), Err(NotUuid), "{bad}");
        }
    }
}
