//! The counterpart of web.xml (Servlet 6.1, chapter 14): what a TOML file adds to the builder, and wins over it.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InitValue;

/// What a TOML file says of an application's servlets and filters. It crosses to the module as JSON, which knows the names
/// and merges it with its builder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebOptions {
    /// Name of the application for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Names of files that answer for their folder, instead of the builder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome_files: Option<Vec<String>>,
    /// How long a request may take until its response is ready; zero is for ever.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub async_timeout: Option<Duration>,
    /// `[servlets.NAME]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub servlets: BTreeMap<String, ServletOptions>,
    /// `[filters.NAME]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<String, FilterOptions>,
    /// Names of filters, in the order in which they shall run; those that are not named come after, as the builder has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_order: Vec<String>,
    /// `[[error_pages]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPageOptions>,
}

/// `[servlets.NAME]`: a servlet of the builder, with other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServletOptions {
    /// False takes it out: its paths are answered by what else takes them. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// URL patterns, instead of the builder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<String>>,
    /// URL patterns more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_patterns: Vec<String>,
    /// How long a request to it may take until its response is ready; zero is for ever.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub async_timeout: Option<Duration>,
    /// Init parameters of the servlet, over the builder's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<String, InitValue>,
}

/// `[filters.NAME]`: a filter of the builder, with other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterOptions {
    /// False takes it out. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// URL patterns; with this key or `servlets` given, the builder's mappings are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<String>>,
    /// URL patterns more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_patterns: Vec<String>,
    /// Names of servlets; `*` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servlets: Option<Vec<String>>,
    /// The requests that it stands before. Default as in the builder, or `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Vec<Dispatch>>,
    /// Init parameters of the filter, over the builder's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<String, InitValue>,
}

/// How a request comes to a servlet (Servlet 6.1, section 6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// From the client.
    Request,
    /// By a forward.
    Forward,
    /// By an include.
    Include,
    /// As an error page.
    Error,
    /// By an asynchronous dispatch.
    Async,
}

/// `[[error_pages]]`: a page for a status, for a type of errors that the builder knows, or, with neither, for all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorPageOptions {
    /// Status, 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Name of a type of errors, without its module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Path within the application.
    pub path: String,
}

impl WebOptions {
    /// As it crosses to the module: JSON, empty for nothing.
    pub fn to_json(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The first key of it that is given, if there is one.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("display_name", self.display_name.is_some()),
            ("welcome_files", self.welcome_files.is_some()),
            ("async_timeout", self.async_timeout.is_some()),
            ("servlets", !self.servlets.is_empty()),
            ("filters", !self.filters.is_empty()),
            ("filter_order", !self.filter_order.is_empty()),
            ("error_pages", !self.error_pages.is_empty()),
        ]
        .into_iter()
        .find_map(|(key, given)| given.then_some(key))
    }

    /// Looks at what can be wrong whatever the module is like. The error names the key.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let patterns = self
            .servlets
            .iter()
            .map(|(name, s)| (format!("servlets.{name}"), s.patterns.iter().flatten().chain(&s.add_patterns)))
            .flat_map(|(table, patterns)| patterns.map(move |pattern| (table.clone(), pattern)));
        let of_filters = self
            .filters
            .iter()
            .map(|(name, f)| (format!("filters.{name}"), f.patterns.iter().flatten().chain(&f.add_patterns)))
            .flat_map(|(table, patterns)| patterns.map(move |pattern| (table.clone(), pattern)));
        for (table, pattern) in patterns.chain(of_filters) {
            if let Err(wharf_mapping::MappingError::Malformed { reason, .. }) =
                wharf_mapping::ServletMap::new([(0, vec![pattern.clone()])])
            {
                return Err(format!("[{table}] has the pattern '{}': {reason}", pattern.escape_debug()));
            }
        }
        for page in &self.error_pages {
            let bare = page.path.split('?').next().unwrap_or_default();
            if let Err(error) = wharf_mapping::canonicalise(bare) {
                return Err(format!("[[error_pages]] path = \"{}\": {error}", page.path.escape_debug()));
            }
            if page.status.is_some_and(|status| !(400..=599).contains(&status)) {
                return Err("[[error_pages]] status must be from 400 to 599".into());
            }
            if page.status.is_some() && page.error.is_some() {
                return Err("[[error_pages]] takes 'status' or 'error', not both".into());
            }
        }
        for file in self.welcome_files.iter().flatten() {
            if file.is_empty() || file.starts_with('/') || file.ends_with('/') {
                return Err(format!("welcome_files: '{file}' must be a name, without a slash at its ends"));
            }
        }
        Ok(())
    }
}
