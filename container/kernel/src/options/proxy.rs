//! [proxy]: the backends of a reverse proxy, and how requests are shared among them.

use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyOptions {}
