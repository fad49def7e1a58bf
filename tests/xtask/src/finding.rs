//! What a check found: where, and what to do about it.

use std::fmt;

/// One broken law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A crate, a file or a file with a line.
    pub(crate) place: String,
    /// What is wrong, and what to do.
    pub(crate) what: String,
    /// Whether it is only worth a look.
    pub(crate) warning: bool,
}

impl Finding {
    /// A broken law.
    pub(crate) fn error(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), warning: false }
    }

    /// Something worth a look.
    pub(crate) fn warning(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(place, what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.warning { "warning" } else { "error" };
        write!(f, "{word}: {}: {}", self.place, self.what)
    }
}
