//! Identities of applications: context path, version and host, and how they are read from a name in `deploy/`.

use std::fmt;
use std::sync::Arc;

/// A context path in canonical form: empty for the root context, else it starts with `/` and does not end with one.
///
/// Servlet 6.1, section 3.5: "the context path ... starts with a / character but must not end with a / character. For
/// servlets in the default (root) context, this is the empty string".
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextPath(Arc<str>);

impl ContextPath {
    /// The root context.
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// Reads a context path as written in a configuration file.
    ///
    /// `""` and `"/"` are the root context.
    ///
    /// # Errors
    /// Says what is wrong when the path has no leading slash, an empty or dot segment, or a character that can't stand in
    /// a canonical path (control characters, `?`, `#`, `%`, `;`, `\`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        let Some(rest) = trimmed.strip_prefix('/') else {
            return Err(format!("context path '{text}' must start with '/'"));
        };
        if trimmed.len() > 255 {
            return Err(format!("context path is {} bytes long; the limit is 255", trimmed.len()));
        }
        for segment in rest.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(format!("context path '{text}' has an empty or dot segment"));
            }
            if let Some(c) = segment.chars().find(|c| c.is_control() || "?#%;\\<>\"".contains(*c)) {
                return Err(format!("context path '{}' has the character {c:?}", text.escape_default()));
            }
        }
        Ok(Self(Arc::from(trimmed)))
    }

    /// The path as text: `""` or `"/a/b"`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as people write it: `/` for the root context.
    pub fn display(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }
}

impl fmt::Display for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.display())
    }
}

impl fmt::Debug for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.display(), f)
    }
}

/// The version of an application, the part after `##` in its file name. Empty for an unversioned application.
///
/// Versions are ordered by their numeric and textual parts, so `10` comes after `9` and `1.10` after `1.9`; an
/// unversioned application comes before every version. (Tomcat compares versions as strings; cargo and people do not.)
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Version(Arc<str>);

impl Version {
    /// A version with this text.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text, empty for an unversioned application.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for an unversioned application.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn parts(&self) -> impl Iterator<Item = (u128, &str)> {
        self.0.split(['.', '-', '_', '+']).map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            (part[..digits].parse().unwrap_or(0), &part[digits..])
        })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.is_empty(), other.is_empty()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
            (false, false) => self.parts().cmp(other.parts()).then_with(|| self.0.cmp(&other.0)),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What names one application of the container: the host it is mounted on, its context path and its version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AppId {
    /// Name of the virtual host; `default` where no host is configured.
    pub host: Arc<str>,
    /// Context path.
    pub path: ContextPath,
    /// Version.
    pub version: Version,
}

impl fmt::Display for AppId {
    /// `/shop`, `/shop##2`, `shop.example/shop##2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.host != "default" {
            f.write_str(&self.host)?;
        }
        f.write_str(self.path.display())?;
        if !self.version.is_empty() {
            write!(f, "##{}", self.version)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_read_them() {
        let mut v: Vec<_> = ["10", "", "9", "1.10", "1.9", "2-beta"].iter().map(|t| Version::new(t)).collect();
        v.sort();
        let v: Vec<_> = v.iter().map(Version::as_str).collect();
        assert_eq!(v, ["", "1.9", "1.10", "2-beta", "9", "10"]);
    }

    #[test]
    fn context_paths_are_canonical_or_refused() {
        assert_eq!(ContextPath::parse("/").unwrap().as_str(), "");
        assert_eq!(ContextPath::parse("/a/b/").unwrap().as_str(), "/a/b");
        for bad in ["a", "//", "/a//b", "/../a", "/a/.", "/a;b", "/a%20", "/<script>", "/a\nb"] {
            assert!(ContextPath::parse(bad).is_err(), "{bad:?}");
        }
    }
}
