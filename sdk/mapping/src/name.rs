//! The name of a deployed file, which says where the application is mounted: `a#b##2.so` is version 2 of `/a/b`.

use std::fmt;

/// A context path and a version, read from a name in the deploy directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppName {
    /// Context path: empty for the root context, else with a leading and without a trailing slash.
    pub path: String,
    /// What follows `##`; empty without it.
    pub version: String,
}

/// Why a name is not the name of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    name: String,
    reason: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not an application name: {}", self.name.escape_debug(), self.reason)
    }
}

impl std::error::Error for NameError {}

impl AppName {
    /// Reads a name without its extension. `ROOT` is the root context, `#` stands for `/`, `##` begins the version.
    ///
    /// # Errors
    /// The name and what is wrong with it: an empty or dot segment, an empty version, a character that can't stand in a
    /// context path (control characters, `/ ? % ; \ < > "`), more than 255 bytes, or a version that is not letters,
    /// digits and `. - _ +`.
    ///
    /// ```
    /// let name = wharf_mapping::AppName::parse("shop#admin##2.1").unwrap();
    /// assert_eq!((&*name.path, &*name.version), ("/shop/admin", "2.1"));
    /// ```
    pub fn parse(stem: &str) -> Result<Self, NameError> {
        let error = |reason| Err(NameError { name: stem.to_owned(), reason });
        if stem.is_empty() {
            return error("it is empty");
        }
        if stem.len() > 255 {
            return error("it is longer than 255 bytes");
        }
        let (base, version) = match stem.split_once("##") {
            None => (stem, ""),
            Some((_, "")) => return error("there is no version after '##'"),
            Some((base, version)) => (base, version),
        };
        if let Some(bad) = version.chars().find(|c| !(c.is_ascii_alphanumeric() || ".-_+".contains(*c))) {
            return error(if bad == '#' {
                "the version has a '#'"
            } else {
                "a version is letters, digits and . - _ +"
            });
        }
        if base == "ROOT" {
            return Ok(Self { path: String::new(), version: version.to_owned() });
        }
        let mut path = String::with_capacity(base.len() + 1);
        for segment in base.split('#') {
            if matches!(segment, "" | "." | "..") {
                return error("a part of the path is empty or a dot segment");
            }
            if segment.chars().any(|c| c.is_control() || "/?%;\\<>\"".contains(c)) {
                return error("it has a character that can't stand in a context path");
            }
            path.push('/');
            path.push_str(segment);
        }
        Ok(Self { path, version: version.to_owned() })
    }

    /// Reads the last component of a file's path: an extension `.so` or `.toml` (in any case) and slashes at the end are
    /// no part of the name.
    ///
    /// # Errors
    /// As [`AppName::parse`].
    pub fn from_file(path: &str) -> Result<Self, NameError> {
        let path = path.trim_end_matches('/');
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = [".so", ".toml"].iter().find_map(|ext| {
            let at = name.len().checked_sub(ext.len())?;
            name.get(at..)?.eq_ignore_ascii_case(ext).then(|| &name[..at])
        });
        Self::parse(stem.unwrap_or(name))
    }
}
