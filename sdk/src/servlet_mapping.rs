//! How a path came to its servlet: mapping discovery.

use wharf_mapping::MatchKind;

use crate::application::ServletInfo;

/// How a path came to its servlet (`HttpServletMapping` of Servlet 6.1, section 12.3).
///
/// | path | pattern | match value | match |
/// |---|---|---|---|
/// | `/` | `""` | | `CONTEXT_ROOT` |
/// | `/cart` | `/cart` | `cart` | `EXACT` |
/// | `/items/7/edit` | `/items/*` | `7/edit` | `PATH` |
/// | `/a/page.html` | `*.html` | `a/page` | `EXTENSION` |
/// | `/else` | `/` | | `DEFAULT` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServletMapping {
    match_value: String,
    pattern: String,
    servlet_name: String,
    kind: MatchKind,
}

impl ServletMapping {
    pub(crate) fn new(servlet: &ServletInfo, pattern: usize, servlet_path: &str, path_info: Option<&str>) -> Self {
        let pattern = servlet.patterns.get(pattern).map_or("", String::as_str);
        let bare = |path: &str| path.strip_prefix('/').unwrap_or(path).to_owned();
        let (kind, match_value) = match pattern {
            "" => (MatchKind::ContextRoot, String::new()),
            "/" => (MatchKind::Default, String::new()),
            _ if pattern.ends_with("/*") => (MatchKind::Prefix, bare(path_info.unwrap_or_default())),
            _ => match pattern.strip_prefix('*') {
                Some(end) => (MatchKind::Extension, bare(servlet_path.strip_suffix(end).unwrap_or(servlet_path))),
                None => (MatchKind::Exact, bare(servlet_path)),
            },
        };
        Self { match_value, pattern: pattern.to_owned(), servlet_name: servlet.name.clone(), kind }
    }

    /// The part of the path that the pattern left open, without a leading slash; empty for `""` and `/`.
    pub fn match_value(&self) -> &str {
        &self.match_value
    }

    /// The URL pattern.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Name of the servlet.
    pub fn servlet_name(&self) -> &str {
        &self.servlet_name
    }

    /// The specification's name of the rule that matched (`MappingMatch`): `CONTEXT_ROOT`, `DEFAULT`, `EXACT`, `EXTENSION` or
    /// `PATH`.
    pub fn mapping_match(&self) -> &'static str {
        match self.kind {
            MatchKind::ContextRoot => "CONTEXT_ROOT",
            MatchKind::Default => "DEFAULT",
            MatchKind::Exact => "EXACT",
            MatchKind::Extension => "EXTENSION",
            MatchKind::Prefix => "PATH",
        }
    }
}
