//! What an application's descriptor says that it needs.

use std::fmt;
use std::str::FromStr;

use crate::settings::ResourceKind;

/// A resource in a descriptor: `NAME` or `NAME: KIND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Name under which the application asks for it.
    pub name: String,
    /// What it must be, where the application says so.
    pub kind: Option<ResourceKind>,
}

/// Why a text is no [`Need`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a resource: write \"NAME\" or \"NAME\": \"KIND\", where the kind is sql, cache or http")]
pub struct BadNeed(String);

impl FromStr for Need {
    type Err = BadNeed;

    fn from_str(text: &str) -> Result<Self, BadNeed> {
        let (name, kind) = match text.split_once(':') {
            None => (text, None),
            Some((name, kind)) => (name, Some(kind.trim().parse().map_err(|_| BadNeed(text.to_owned()))?)),
        };
        if !is_name(name) {
            return Err(BadNeed(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), kind })
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            None => f.write_str(&self.name),
            Some(kind) => write!(f, "{}: {kind}", self.name),
        }
    }
}

/// Letters, digits, `-` and `_`.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_a_name_and_maybe_a_kind() {
        let need = |name: &str, kind| Ok(Need { name: name.into(), kind });
        for (text, want) in [
            ("db", need("db", None)),
            ("shop-db: sql", need("shop-db", Some(ResourceKind::Sql))),
            ("db:sql", need("db", Some(ResourceKind::Sql))),
            ("", Err(BadNeed(String::new()))),
            ("a b", Err(BadNeed("a b".into()))),
            ("db: file", Err(BadNeed("db: file".into()))),
            (": sql", Err(BadNeed(": sql".into()))),
        ] {
            assert_eq!(text.parse::<Need>(), want, "{text:?}");
        }
    }
}
