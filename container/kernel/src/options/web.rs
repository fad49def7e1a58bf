//! The counterpart of web.xml (Servlet 6.1, chapter 14): what a TOML file adds to the builder, and wins over it.

use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebOptions {}
