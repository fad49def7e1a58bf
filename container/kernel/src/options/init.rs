//! The value of an init parameter, as a TOML file may give it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A string, a number or a boolean. All arrive in the application as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct InitValue(pub String);

impl<'de> Deserialize<'de> for InitValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = InitValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<InitValue, E> {
                Ok(InitValue(v.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_bool<E: de::Error>(self, v: bool) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for InitValue {
    fn schema_name() -> Cow<'static, str> {
        "InitValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
