//! URL patterns: how they are written down, checked, and matched for filters.

use wharf_mapping::ServletMap;

use crate::application::{MappingError, ServletInfo};

/// One or several URL patterns or names: text, an array, a slice or a vector of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of URL patterns",
    note = "write one pattern, \"/items/*\", or an array of them, [\"/items\", \"/items/*\"]"
)]
pub trait IntoPatterns {
    /// The patterns.
    fn into_patterns(self) -> Vec<String>;
}

impl IntoPatterns for &str {
    fn into_patterns(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoPatterns for String {
    fn into_patterns(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const COUNT: usize> IntoPatterns for [T; COUNT] {
    fn into_patterns(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> IntoPatterns for Vec<T> {
    fn into_patterns(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: AsRef<str>> IntoPatterns for &[T] {
    fn into_patterns(self) -> Vec<String> {
        self.iter().map(|text| text.as_ref().to_owned()).collect()
    }
}

/// Checks the form of a filter's pattern. The error says what is wrong with it.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    ServletMap::new([(0, vec![pattern.to_owned()])]).map(drop).map_err(|error| match error {
        wharf_mapping::MappingError::Malformed { reason, .. } => reason.to_owned(),
        other => other.to_string(),
    })
}

/// Whether a filter's pattern fits a decoded path within the context. `/` fits the context root alone, as in Tomcat: a
/// filter has no use for a default.
pub(crate) fn fits(pattern: &str, path: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix("/*") {
        return path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    }
    if let Some(extension) = pattern.strip_prefix("*.") {
        let last = path.rsplit('/').next().unwrap_or_default();
        return last.rsplit_once('.').is_some_and(|(_, found)| found == extension);
    }
    match pattern {
        "" | "/" => path.is_empty() || path == "/",
        exact => exact == path,
    }
}

/// The servlets' patterns as a map, by the rules the container maps by.
pub(crate) fn servlet_map(servlets: &[&ServletInfo]) -> Result<ServletMap, MappingError> {
    let patterns = servlets.iter().map(|info| info.patterns.clone()).enumerate();
    ServletMap::new(patterns).map_err(|error| MappingError::Pattern(error.describe(|at| servlets[at].name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A filter stands before exactly the paths a servlet with the same pattern would get. (`/` is apart: see `fits`.)
        #[test]
        fn filters_fit_what_servlets_fit(
            pattern in "(/[ab.]{1,3}){0,3}(/\\*)?|\\*\\.[ab]{1,2}",
            path in "(/[ab.]{1,3}){0,4}/?",
        ) {
            let map = ServletMap::new([(0, vec![pattern.clone()])]);
            prop_assume!(map.is_ok() && pattern != "/");
            prop_assert_eq!(fits(&pattern, &path), map.unwrap().find(&path).is_some(), "{} {}", pattern, path);
        }
    }

    #[test]
    fn filters_fit_paths() {
        for (pattern, path, want) in [
            ("/*", "/", true),
            ("/*", "", true),
            ("/*", "/a/b", true),
            ("/a/*", "/a", true),
            ("/a/*", "/a/b", true),
            ("/a/*", "/ab", false),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("*.html", "/x/y.html", true),
            ("*.html", "/y.html/x", false),
            ("*.gz", "/y.tar.gz", true),
            ("", "/", true),
            ("", "/a", false),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in ["a", "*", "*.", "*.a/b", "/a/*.html", "*.*", "/a//*", "/../a"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["", "/", "/*", "/a", "/a/b/*", "*.html"] {
            assert!(check(good).is_ok(), "{good}");
        }
    }
}
