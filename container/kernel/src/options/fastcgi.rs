//! [fastcgi]: where a FastCGI application is, or how it is started.

use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FastCgiOptions {}
