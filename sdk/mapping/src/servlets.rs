//! The servlet mapping rules of Servlet 6.1, chapter 12, as a lookup that does not grow with the number of servlets.

use std::collections::HashMap;
use std::fmt;

/// The five forms a URL pattern can have (`jakarta.servlet.http.MappingMatch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchKind {
    /// The pattern `""`: the root of the context and nothing else.
    ContextRoot,
    /// `/path`: this path and no other.
    Exact,
    /// `/path/*`: this path and everything below it.
    Prefix,
    /// `*.ext`: the last segment ends in this extension.
    Extension,
    /// `/`: whatever nothing else matches.
    Default,
}

/// The servlet that answers a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Which servlet, by the number it was given.
    pub servlet: usize,
    /// Which of its patterns, an index into its list.
    pub pattern: usize,
    /// How many bytes of the path are the servlet path.
    pub servlet_path_len: usize,
    /// Whether the rest is a path info; otherwise the path info is null, not empty.
    pub has_path_info: bool,
    /// Which rule matched.
    pub kind: MatchKind,
}

/// Why a set of mappings is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingError {
    /// Two servlets (or one servlet twice) have this pattern.
    Duplicate {
        /// The pattern.
        pattern: String,
        /// The servlet that had it first.
        first: usize,
        /// The other; the same number when one servlet has it twice.
        second: usize,
    },
    /// The pattern has none of the five forms, or could never match a canonical path.
    Malformed {
        /// The pattern.
        pattern: String,
        /// The servlet that has it.
        servlet: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl MappingError {
    /// The same error as text with the servlets' names instead of their numbers.
    pub fn describe<'n>(&self, name: impl Fn(usize) -> &'n str) -> String {
        match self {
            Self::Duplicate { pattern, first, second } if first == second => {
                format!("servlet '{}' has the pattern '{pattern}' twice", name(*first))
            }
            Self::Duplicate { pattern, first, second } => {
                format!("the servlets '{}' and '{}' both have the pattern '{pattern}'", name(*first), name(*second))
            }
            Self::Malformed { pattern, servlet, reason } => {
                format!("servlet '{}' has the pattern '{}': {reason}", name(*servlet), pattern.escape_debug())
            }
        }
    }
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { pattern, first, second } => {
                write!(f, "servlets {first} and {second} both have the pattern '{pattern}'")
            }
            Self::Malformed { pattern, servlet, reason } => {
                write!(f, "servlet {servlet} has the pattern '{}': {reason}", pattern.escape_debug())
            }
        }
    }
}

impl std::error::Error for MappingError {}

/// A servlet and the index of its pattern.
type Target = (usize, usize);

/// All servlet mappings of one application.
#[derive(Debug, Clone, Default)]
pub struct ServletMap {
    exact: HashMap<Box<str>, Target>,
    /// By the path before `/*`.
    prefix: HashMap<Box<str>, Target>,
    /// The longest key of `prefix`: longer paths need no lookup, which bounds the work a long path can cause.
    longest_prefix: usize,
    extension: HashMap<Box<str>, Target>,
    root: Option<Target>,
    default: Option<Target>,
}

impl ServletMap {
    /// Makes the map of servlets, each a number and its URL patterns (Servlet 6.1, section 12.2).
    ///
    /// # Errors
    /// The first pattern that is malformed or a duplicate, with the servlets' numbers.
    ///
    /// ```
    /// use wharf_mapping::{MatchKind, ServletMap};
    /// let map = ServletMap::new([(0, vec!["/cart/*".to_owned()]), (1, vec!["/".to_owned()])]).unwrap();
    /// let found = map.find("/cart/items").unwrap();
    /// assert_eq!((found.servlet, found.servlet_path_len, found.kind), (0, 5, MatchKind::Prefix));
    /// assert_eq!(map.find("/else").unwrap().servlet, 1);
    /// ```
    pub fn new(servlets: impl IntoIterator<Item = (usize, Vec<String>)>) -> Result<Self, MappingError> {
        let mut map = Self::default();
        for (servlet, patterns) in servlets {
            for (index, pattern) in patterns.into_iter().enumerate() {
                let target = (servlet, index);
                let kind = kind_of(&pattern).map_err(|reason| MappingError::Malformed {
                    pattern: pattern.clone(),
                    servlet,
                    reason,
                })?;
                let before = match kind {
                    MatchKind::ContextRoot => map.root.replace(target),
                    MatchKind::Default => map.default.replace(target),
                    MatchKind::Exact => map.exact.insert(pattern.as_str().into(), target),
                    MatchKind::Extension => map.extension.insert(pattern[2..].into(), target),
                    MatchKind::Prefix => {
                        let key = &pattern[..pattern.len() - 2];
                        map.longest_prefix = map.longest_prefix.max(key.len());
                        map.prefix.insert(key.into(), target)
                    }
                };
                if let Some((first, _)) = before {
                    return Err(MappingError::Duplicate { pattern, first, second: servlet });
                }
            }
        }
        Ok(map)
    }

    /// Whether there is no mapping at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefix.is_empty()
            && self.extension.is_empty()
            && self.root.is_none()
            && self.default.is_none()
    }

    /// The servlet for a canonical, decoded path inside the context: `""` or one that starts with `/`. The rules are
    /// tried in the order of Servlet 6.1, section 12.1: exact, longest prefix, extension, default.
    pub fn find(&self, path: &str) -> Option<Match> {
        let hit = |(servlet, pattern): Target, servlet_path_len: usize, has_path_info: bool, kind: MatchKind| Match {
            servlet,
            pattern,
            servlet_path_len,
            has_path_info,
            kind,
        };
        if matches!(path, "" | "/") {
            if let Some(target) = self.root {
                return Some(hit(target, 0, !path.is_empty(), MatchKind::ContextRoot));
            }
        } else if !self.exact.is_empty()
            && let Some(target) = self.exact.get(path)
        {
            return Some(hit(*target, path.len(), false, MatchKind::Exact));
        }
        if !self.prefix.is_empty()
            && let Some((len, target)) = self.longest_prefix(path)
        {
            return Some(hit(target, len, len < path.len(), MatchKind::Prefix));
        }
        if !self.extension.is_empty()
            && let Some(target) = extension(path).and_then(|ext| self.extension.get(ext))
        {
            return Some(hit(*target, path.len(), false, MatchKind::Extension));
        }
        self.default.map(|target| hit(target, path.len(), false, MatchKind::Default))
    }

    fn longest_prefix(&self, path: &str) -> Option<(usize, Target)> {
        let mut rest = path;
        if path.len() > self.longest_prefix {
            // Nothing longer than the longest key can be one: begin at the last boundary that is no longer.
            rest = &path[..path.as_bytes()[..=self.longest_prefix].iter().rposition(|b| *b == b'/')?];
        }
        loop {
            if let Some(target) = self.prefix.get(rest) {
                return Some((rest.len(), *target));
            }
            rest = &rest[..rest.rfind('/')?];
        }
    }
}

/// The part of the last segment after its last dot.
fn extension(path: &str) -> Option<&str> {
    let last = &path[path.rfind('/').map_or(0, |i| i + 1)..];
    last.rfind('.').map(|dot| &last[dot + 1..])
}

fn kind_of(pattern: &str) -> Result<MatchKind, &'static str> {
    if pattern.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    match pattern {
        "" => return Ok(MatchKind::ContextRoot),
        "/" => return Ok(MatchKind::Default),
        _ => {}
    }
    if let Some(ext) = pattern.strip_prefix("*.") {
        return match ext {
            "" => Err("the extension is empty"),
            _ if ext.contains(['/', '.', '*']) => {
                Err("an extension is what follows the last dot: it has no '.', '/' or '*'")
            }
            _ => Ok(MatchKind::Extension),
        };
    }
    if !pattern.starts_with('/') {
        return Err("it must be '/path', '/path/*', '*.ext', '/' or ''");
    }
    let (path, kind) = match pattern.strip_suffix("/*") {
        Some(path) => (path, MatchKind::Prefix),
        None => (pattern, MatchKind::Exact),
    };
    if path.contains("*.") {
        return Err("a pattern has a path or an extension, not both");
    }
    if path.split('/').skip(1).any(|segment| matches!(segment, "." | ".."))
        || path.contains("//")
        || path.contains('\\')
    {
        return Err("it can't match: no canonical path has '//', a dot segment or a backslash");
    }
    if kind == MatchKind::Prefix && path.ends_with('/') {
        return Err("it can't match: no canonical path has '//'");
    }
    Ok(kind)
}
