//! What programs write to their standard error, on its way into the log: by lines, and not more than the log can bear.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt};
use wharf_kernel::RequestId;

/// Lines that an application may log at once.
const BURST: f64 = 200.0;
/// Lines a second beyond that.
const RATE: f64 = 20.0;
/// Bytes of a line that are shown.
const LINE: usize = 2000;

/// How much an application may still log.
pub(crate) struct Budget(Mutex<(f64, Instant)>);

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl Budget {
    /// Takes one line out of it, if there is one at this time.
    fn take(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(state.1).as_secs_f64() * RATE;
        *state = ((state.0 + gained).min(BURST), now);
        if state.0 < 1.0 {
            return false;
        }
        state.0 -= 1.0;
        true
    }
}

/// Logs all that comes, to its end.
pub(crate) async fn log(mut from: impl AsyncRead + Unpin, app: String, request: RequestId, budget: Arc<Budget>) {
    let mut lines = Lines::new(app, request, budget);
    let mut buffer = vec![0; 8 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        lines.take(&buffer[..length]);
    }
}

/// Makes lines for the log out of what comes. The last one is logged when this is dropped.
pub(crate) struct Lines {
    line: Vec<u8>,
    dropped: u64,
    app: String,
    request: RequestId,
    budget: Arc<Budget>,
}

impl Lines {
    pub(crate) fn new(app: String, request: RequestId, budget: Arc<Budget>) -> Self {
        Self { line: Vec::new(), dropped: 0, app, request, budget }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let whole = part.ends_with(b"\n");
            let room = LINE.saturating_sub(self.line.len());
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if whole {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.trim_ascii().is_empty() {
            return;
        }
        if self.budget.take(Instant::now()) {
            // A line of a program must not look like one of the container's.
            let text: String = String::from_utf8_lossy(line.trim_ascii())
                .chars()
                .flat_map(|c| {
                    let escaped = c.is_control().then(|| c.escape_default());
                    let plain = (!c.is_control()).then_some(c);
                    escaped.into_iter().flatten().chain(plain)
                })
                .collect();
            tracing::warn!(app = %self.app, request = %self.request, "{text}");
        } else {
            self.dropped += 1;
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
        if self.dropped > 0 {
            tracing::warn!(app = %self.app, request = %self.request, "{} lines of its standard error were too many and are not shown", self.dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_budget_is_spent_and_comes_back() {
        let budget = Budget::default();
        let now = Instant::now();
        assert_eq!((0..500).filter(|_| budget.take(now)).count(), 200);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| budget.take(later)).count(), 20);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..500).filter(|_| budget.take(much_later)).count(), 200);
    }
}
