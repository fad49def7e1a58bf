//! [cgi]: how the programs of a folder are run by CGI/1.1 (RFC 3875).

use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgiOptions {}
