//! `[log]` and `[access_log]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`: the log on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged: a level (`info`), or directives as `info,wharf_deployer=debug`. Default `info`.
    pub level: String,
    /// Form of a record. Default `text`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[access_log]`: one line for each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Form of a line. Default `combined`.
    pub format: AccessFormat,
    /// Where the lines go: a path, or `-` for standard output. Default `-`.
    pub file: PathBuf,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: AccessFormat::Combined, file: "-".into() }
    }
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// The combined log format of Apache httpd.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
    /// None.
    Off,
}
