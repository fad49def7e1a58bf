//! One application: what the files want, what serves, and what was tried.

use std::path::Path;
use std::time::{Duration, Instant};

use wharf_kernel::Refusal;

use crate::generation::Generation;
use crate::scan::{Print, Source, Spec};

/// How long a file without a closing event must stay as it is before it is taken.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);
/// How long a file that is cut off must stay as it is before that is reported.
pub(crate) const CUT_OFF: Duration = Duration::from_secs(2);

/// The files of an application, as last looked at.
pub(crate) struct Seen {
    pub(crate) since: Instant,
    /// A closing event or a rename came after the last write.
    pub(crate) closed: bool,
}

/// An attempt that is under way.
pub(crate) struct Pending {
    pub(crate) generation: Generation,
    pub(crate) print: Print,
}

pub(crate) struct App {
    /// What is in the folder; `None` when it was removed.
    pub(crate) source: Option<Source>,
    pub(crate) seen: Seen,
    pub(crate) serving: Option<Generation>,
    pub(crate) pending: Option<Pending>,
    /// The state of the files that was tried last, whatever came of it.
    pub(crate) handled: Option<Print>,
    /// Why the last try failed.
    pub(crate) error: Option<Refusal>,
    /// Someone stopped it.
    pub(crate) stopped: bool,
    /// Try again although nothing changed.
    pub(crate) force: bool,
    /// A newer version serves, and older ones are to go.
    pub(crate) superseded: bool,
    /// When a file that was cut off is tried again.
    pub(crate) retry_at: Option<Instant>,
}

impl App {
    pub(crate) fn new(source: Source, closed: bool) -> Self {
        Self {
            source: Some(source),
            seen: Seen { since: Instant::now(), closed },
            serving: None,
            pending: None,
            handled: None,
            error: None,
            stopped: false,
            force: false,
            superseded: false,
            retry_at: None,
        }
    }

    pub(crate) fn has_file(&self, path: &Path) -> bool {
        self.source.as_ref().is_some_and(|s| s.files.iter().any(|f| f == path))
    }

    pub(crate) fn spec(&self) -> Option<&Spec> {
        self.source.as_ref()?.spec.as_ref().ok()
    }

    fn is_enabled(&self) -> bool {
        self.spec().is_none_or(|s| s.toml.enabled)
    }

    /// Whether anything of it may serve.
    pub(crate) fn may_serve(&self) -> bool {
        self.source.is_some() && !self.stopped && self.is_enabled() && !self.superseded
    }

    /// The state of the files has not been tried yet, and shall be.
    pub(crate) fn is_wanted(&self) -> bool {
        let Some(source) = &self.source else { return false };
        self.may_serve() && (self.force || self.handled.as_ref() != Some(&source.print))
    }

    /// The files look complete.
    pub(crate) fn is_complete(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| now >= at)
            && (self.seen.closed
                || now.duration_since(self.seen.since) >= SETTLE
                || self.source.as_ref().is_some_and(|s| s.print.is_older_than(CUT_OFF)))
    }

    /// Nothing is under way and nothing waits to be tried.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_none() && !self.is_wanted() && (self.may_serve() || self.serving.is_none())
    }

    /// When it must be looked at again, if nothing happens before.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.pending.is_some() || !self.is_wanted() || self.is_complete(now) {
            return None;
        }
        Some(self.retry_at.unwrap_or(self.seen.since + SETTLE))
    }
}
