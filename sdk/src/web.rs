//! The counterpart of web.xml as it comes from the container: what a TOML file adds to the builder, and wins over it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::BoxError;
use crate::running::Init;

/// What a TOML file says. The container has checked its form and turned it into JSON; names are checked here, where the
/// servlets and filters are known.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[doc(hidden)]
pub struct Web {
    pub(crate) display_name: Option<String>,
    pub(crate) welcome_files: Option<Vec<String>>,
    #[serde(with = "humantime_serde")]
    pub(crate) async_timeout: Option<Duration>,
    pub(crate) servlets: BTreeMap<String, WebServlet>,
    pub(crate) filters: BTreeMap<String, WebFilter>,
    pub(crate) filter_order: Vec<String>,
    pub(crate) error_pages: Vec<WebErrorPage>,
    /// Sessions are the container's: nothing of them is for the builder.
    session: Option<IgnoredAny>,
}

/// `[servlets.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebServlet {
    pub(crate) enabled: Option<bool>,
    pub(crate) patterns: Option<Vec<String>>,
    pub(crate) add_patterns: Vec<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) async_timeout: Option<Duration>,
    pub(crate) init: Init,
}

/// `[filters.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebFilter {
    pub(crate) enabled: Option<bool>,
    pub(crate) patterns: Option<Vec<String>>,
    pub(crate) add_patterns: Vec<String>,
    pub(crate) servlets: Option<Vec<String>>,
    pub(crate) dispatch: Option<Vec<String>>,
    pub(crate) init: Init,
}

/// `[[error_pages]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebErrorPage {
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) path: String,
}

impl Web {
    pub(crate) fn parse(json: &str) -> Result<Self, BoxError> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(json).map_err(|error| {
            format!("the SDK of this module does not know what the container says of it: {error}").into()
        })
    }

    /// Whether it says anything that only servlets can have.
    pub(crate) fn needs_servlets(&self) -> bool {
        let without = Self { display_name: self.display_name.clone(), session: self.session, ..Self::default() };
        *self != without
    }
}

/// Says that a name in a table is unknown, and which was probably meant.
pub(crate) fn unknown<'a>(key: &str, what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    let guess = match nearest {
        Some((_, guess)) => format!("; did you mean '{guess}'?"),
        None if known.is_empty() => "; it has none".to_owned(),
        None => format!("; it has: {}", known.join(", ")),
    };
    format!("{key} in the TOML file: the application has no {what} '{name}'{guess}")
}
