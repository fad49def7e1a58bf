//! The time limits of connections, kept coarsely: one look a tick at all connections of a worker instead of a timer for
//! each request.
//!
//! hyper makes and drops a timer for every request head, and looks for the next one before it rests. On a busy connection none
//! of them ever fires. Here a timer is a number in the connection's slot; the worker's sweep wakes the connections whose
//! number has passed, and sees itself which of them wait for a head. A slot is used where its connection is polled; only
//! [`Slot::reap`] and the end of a [`Content`] come from elsewhere.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::StatusCode;
use wharf_kernel::RequestId;

use crate::Limits;

const NEVER: u64 = u64::MAX;
/// A limit that begins with the first sweep that sees it.
const UNSEEN: u64 = u64::MAX - 1;
/// Smaller than any time: the limit has passed.
const DUE: u64 = 0;
/// No request has this number: there will be none any more.
const NOT_AGAIN: u32 = u32::MAX;
/// Milliseconds after which a new connection that has said nothing counts as idle.
const SILENCE: u64 = 1000;
/// Time for an HTTP/2 client to answer to a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What one connection waits for and until when, in milliseconds since its worker's start.
#[derive(Debug)]
pub(crate) struct Slot {
    epoch: Instant,
    /// When somebody looked at the clock last: the sweep, or an HTTP/2 request that began.
    seen: AtomicU64,
    answer_limit: u64,
    header_limit: u64,
    idle_limit: u64,
    send_limit: u64,
    send_rate: u64,
    tick: u64,
    /// Whether its protocol is not known yet: what comes before the first request has limits of its own.
    opening: bool,
    /// Whether it speaks HTTP/2.
    pub(crate) http2: bool,
    /// HTTP/1: the head of a request, set by the first sweep that sees the connection wait for one. HTTP/2: a request at all.
    head: AtomicU64,
    /// Whether bytes came while that is waited for.
    begun: AtomicBool,
    /// Requests that began.
    requests: AtomicU32,
    /// HTTP/1: the number of the last request whose answer is sent, and whether one has ended that hyper has not flushed yet.
    replied: AtomicU32,
    over: AtomicBool,
    /// HTTP/1: the number of the request whose content comes in; 0 for none.
    content: AtomicU32,
    /// HTTP/1: the application's answer; [`UNSEEN`] until the first sweep that sees it awaited.
    answer: AtomicU64,
    late: AtomicBool,
    /// The client, to take bytes off the socket.
    send: AtomicU64,
    /// HTTP/2: the client, to open a window for any of the answers that wait for one.
    pull: AtomicU64,
    /// HTTP/2: requests under way, and answers that wait.
    streams: AtomicUsize,
    waiting: AtomicUsize,
    /// HTTP/2: whether goodbye was said.
    leaving: AtomicBool,
    cut: AtomicBool,
    /// What was answered to bytes that are no request, and the id in that answer.
    pub(crate) refused: OnceLock<(StatusCode, RequestId)>,
    /// HTTP/1: whether the client may still be sending what nobody reads.
    unread: AtomicBool,
}

impl Slot {
    pub(crate) fn new(epoch: Instant, limits: &Limits, http2: bool) -> Arc<Self> {
        let slot = Self::made(epoch, limits, http2);
        if http2 {
            slot.head.store(slot.after(slot.header_limit), Relaxed);
        }
        Arc::new(slot)
    }

    /// The slot of a connection before its first request: of a handshake, or while its protocol is not known.
    pub(crate) fn opening(epoch: Instant, limits: &Limits) -> Arc<Self> {
        let slot = Self { opening: true, ..Self::made(epoch, limits, false) };
        slot.head.store(slot.after(slot.header_limit), Relaxed);
        Arc::new(slot)
    }

    fn made(epoch: Instant, limits: &Limits, http2: bool) -> Self {
        Self {
            epoch,
            seen: AtomicU64::new(millis(epoch.elapsed())),
            answer_limit: millis(limits.response_timeout),
            header_limit: millis(limits.header_timeout),
            idle_limit: millis(limits.keep_alive),
            send_limit: millis(limits.send_timeout),
            send_rate: limits.send_min_rate.into(),
            tick: millis(tick(limits)),
            opening: false,
            http2,
            head: AtomicU64::new(NEVER),
            begun: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            replied: AtomicU32::new(0),
            over: AtomicBool::new(false),
            content: AtomicU32::new(0),
            answer: AtomicU64::new(NEVER),
            late: AtomicBool::new(false),
            send: AtomicU64::new(NEVER),
            pull: AtomicU64::new(NEVER),
            streams: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            refused: OnceLock::new(),
            unread: AtomicBool::new(false),
        }
    }

    /// Milliseconds since the worker's start.
    pub(crate) fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    fn after(&self, limit: u64) -> u64 {
        self.now().saturating_add(limit)
    }

    /// The same without a look at the clock: by the last one, which is up to a tick old. Never earlier.
    fn about(&self, limit: u64) -> u64 {
        self.seen.load(Relaxed).saturating_add(self.tick).saturating_add(limit)
    }

    /// The time by the last look at the clock, never earlier than it is.
    pub(crate) fn roughly_now(&self) -> Instant {
        self.epoch + Duration::from_millis(self.about(0))
    }

    /// HTTP/1: whether the head of a request is waited for.
    fn awaits_head(&self) -> bool {
        !self.opening && !self.http2 && !self.is_busy()
    }

    /// HTTP/1: how long: the first one has the time for a head alone, the others that of an idle connection.
    fn head_limit(&self) -> u64 {
        if self.requests.load(Relaxed) == 0 { self.header_limit } else { self.idle_limit }
    }

    /// HTTP/1: whether it was not there in time. One that came while the slot was reaped was.
    pub(crate) fn is_late_head(&self) -> bool {
        self.head.load(Relaxed) == DUE && !self.is_busy()
    }

    /// Whether the connection is to be woken; marks the limits that have passed.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let now = millis(now.saturating_duration_since(self.epoch));
        self.seen.store(now, Relaxed);
        let mut due = false;
        let mut head = self.head.load(Relaxed);
        if head == NEVER && self.awaits_head() {
            head = now.saturating_add(self.head_limit());
            self.head.store(head, Relaxed);
        }
        if head != NEVER {
            // A head that has begun has less time than an idle connection.
            let limit = now.saturating_add(self.header_limit);
            if !self.http2 && head > limit && self.begun.load(Relaxed) {
                self.head.store(limit, Relaxed);
            } else if head <= now && !self.opening {
                self.head.store(DUE, Relaxed);
                due = true;
            }
        }
        match self.answer.load(Relaxed) {
            UNSEEN => self.answer.store(now.saturating_add(self.answer_limit), Relaxed),
            answer if answer <= now => {
                self.answer.store(NEVER, Relaxed);
                self.late.store(true, Relaxed);
                due = true;
            }
            _ => {}
        }
        if self.send.load(Relaxed) <= now || self.pull.load(Relaxed) <= now {
            self.cut.store(true, Relaxed);
            due = true;
        }
        due
    }

    /// Whether the connection must end at once: the client does not take what is sent.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Bytes came.
    pub(crate) fn received(&self) {
        if self.awaits_head() || self.head.load(Relaxed) != NEVER {
            self.begun.store(true, Relaxed);
        }
    }

    /// A request has begun at this time, its head is there; gives how many that makes.
    pub(crate) fn request(&self, began: Instant) -> u32 {
        self.head.store(NEVER, Relaxed);
        if self.http2 {
            self.seen.store(millis(began.saturating_duration_since(self.epoch)), Relaxed);
        }
        self.begun.store(false, Relaxed);
        self.over.store(false, Relaxed);
        let nth = self.requests.load(Relaxed).wrapping_add(1);
        self.requests.store(nth, Relaxed);
        nth
    }

    /// HTTP/1: whether what is sent is of a request, or of a protocol that it led to; or the connection is over.
    pub(crate) fn is_busy(&self) -> bool {
        self.replied.load(Relaxed) != self.requests.load(Relaxed) || self.content.load(Relaxed) != 0
    }

    /// HTTP/1: the answer has come to its end; hyper has it, or will break off.
    pub(crate) fn replied(&self) {
        self.over.store(true, Relaxed);
    }

    /// HTTP/1: all that hyper had is sent.
    pub(crate) fn flushed(&self) {
        if self.over.load(Relaxed) {
            self.over.store(false, Relaxed);
            self.head.store(NEVER, Relaxed);
            self.replied.store(self.requests.load(Relaxed), Relaxed);
        }
    }

    /// The application is waited for.
    pub(crate) fn await_answer(&self) {
        self.answer.store(UNSEEN, Relaxed);
    }

    /// The application has answered.
    pub(crate) fn answered(&self) {
        self.answer.store(NEVER, Relaxed);
    }

    /// Whether the application has not answered in time; says so once.
    pub(crate) fn take_late(&self) -> bool {
        self.late.load(Relaxed) && self.late.swap(false, Relaxed)
    }

    /// The client does not take what is sent: since `since` it has taken `sent` bytes.
    pub(crate) fn blocked(&self, since: u64, sent: u64) {
        let rated = sent.saturating_mul(1000).checked_div(self.send_rate).unwrap_or(NEVER);
        let by_rate = since.saturating_add(self.send_limit).saturating_add(rated);
        self.send.store(by_rate.min(self.after(self.send_limit)), Relaxed);
    }

    /// The client has taken what was sent.
    pub(crate) fn unblocked(&self) {
        self.send.store(NEVER, Relaxed);
    }

    /// The connection is over but for what the client still sends: that is read for so long.
    pub(crate) fn linger(&self, time: Duration) {
        self.content.store(NOT_AGAIN, Relaxed);
        self.head.store(NEVER, Relaxed);
        self.send.store(self.after(millis(time)), Relaxed);
    }

    /// HTTP/1: the connection ends in the middle of a request's content.
    pub(crate) fn leave_unread(&self) {
        self.unread.store(!self.http2, Relaxed);
    }

    /// HTTP/1: whether it ends in the middle of a request's content.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Since when, to a tick of its worker, it has been idle between two requests, or has said nothing at all. A new connection has
    /// [`SILENCE`] to begin.
    pub(crate) fn idle(&self) -> Option<Instant> {
        let head = match self.head.load(Relaxed) {
            // No sweep has seen it yet: it has not been idle for long.
            NEVER if self.awaits_head() => self.about(self.head_limit()),
            head => head,
        };
        if head == NEVER || head == DUE || self.begun.load(Relaxed) {
            return None;
        }
        let is_new = self.requests.load(Relaxed) == 0;
        let since = head.saturating_sub(if is_new { self.header_limit } else { self.idle_limit });
        let is_idle = !is_new || self.now() >= since.saturating_add(SILENCE);
        is_idle.then(|| self.epoch + Duration::from_millis(since))
    }

    /// Ends the wait for the next request.
    pub(crate) fn reap(&self) {
        self.head.store(DUE, Relaxed);
    }

    /// Whether it has to make room before its first request.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.opening && self.head.load(Relaxed) == DUE
    }

    /// HTTP/2: whether it has been without a request for too long.
    pub(crate) fn is_idle(&self) -> bool {
        self.http2 && self.head.load(Relaxed) == DUE
    }

    /// HTTP/2: goodbye was said. A client must answer to that; once no request is under way it has little time left.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.head.store(NEVER, Relaxed);
        if self.streams.load(Relaxed) == 0 {
            self.linger(GOODBYE);
        }
    }
}

/// The content of a request, as long as the client may send more of it: the next head comes after it.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) slot: Arc<Slot>,
    nth: u32,
}

impl Content {
    /// That of the request which has begun last.
    pub(crate) fn begin(slot: &Arc<Slot>) -> Self {
        let nth = slot.requests.load(Relaxed);
        if !slot.http2 {
            slot.content.store(nth, Relaxed);
        }
        Self { slot: slot.clone(), nth }
    }
}

impl Drop for Content {
    /// On any thread, and maybe after the next request has begun.
    fn drop(&mut self) {
        let _ = self.slot.content.compare_exchange(self.nth, 0, Relaxed, Relaxed);
    }
}

/// A request of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Stream {
    slot: Arc<Slot>,
    waiting: bool,
}

impl Stream {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        slot.streams.fetch_add(1, Relaxed);
        slot.head.store(NEVER, Relaxed);
        Self { slot, waiting: false }
    }

    /// There is something to send; the client must open a window for it.
    pub(crate) fn wait(&mut self) {
        if !std::mem::replace(&mut self.waiting, true) {
            self.slot.waiting.fetch_add(1, Relaxed);
        }
        self.slot.pull.store(self.slot.about(self.slot.send_limit), Relaxed);
    }

    /// The client did.
    pub(crate) fn pulled(&mut self) {
        if std::mem::take(&mut self.waiting) {
            let last = self.slot.waiting.fetch_sub(1, Relaxed) == 1;
            let at = if last { NEVER } else { self.slot.about(self.slot.send_limit) };
            self.slot.pull.store(at, Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.pulled();
        if self.slot.streams.fetch_sub(1, Relaxed) > 1 {
            return;
        }
        if self.slot.leaving.load(Relaxed) {
            self.slot.linger(GOODBYE);
        } else {
            self.slot.begun.store(false, Relaxed);
            self.slot.head.store(self.slot.after(self.slot.idle_limit), Relaxed);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER - 1)
}

/// How often the sweep looks: often enough that the shortest limit is kept to a tenth.
pub(crate) fn tick(limits: &Limits) -> Duration {
    let all = [limits.header_timeout, limits.keep_alive, limits.send_timeout, limits.response_timeout];
    let shortest = all.into_iter().filter(|l| !l.is_zero()).min().unwrap_or_default();
    (shortest / 10).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            send_min_rate: 100,
            ..Limits::default()
        }
    }

    fn after(slot: &Slot, seconds: u64) -> bool {
        slot.sweep(slot.epoch + Duration::from_secs(seconds))
    }

    /// The answer ends, and is sent.
    fn over(slot: &Slot) {
        slot.replied();
        slot.flushed();
    }

    #[test]
    fn a_new_connection_and_a_head_have_less_time_than_an_idle_connection() {
        let slot = Slot::new(Instant::now(), &limits(), false);
        assert!(!after(&slot, 1) && !after(&slot, 10) && after(&slot, 11), "the first head");
        slot.request(slot.epoch + Duration::from_secs(20));
        assert!(slot.idle().is_none() && !after(&slot, 100), "the application is waited for");
        slot.replied();
        assert!(slot.is_busy(), "the answer is not sent yet");
        slot.flushed();
        assert!(slot.idle().is_some());
        assert!(!after(&slot, 20) && !after(&slot, 79) && after(&slot, 80), "idle");
        assert!(slot.is_late_head());
        slot.request(slot.epoch + Duration::from_secs(81));
        over(&slot);
        slot.received();
        assert!(slot.idle().is_none());
        assert!(!after(&slot, 85), "its time begins");
        assert!(!after(&slot, 94) && after(&slot, 95), "a head");
        assert!(slot.is_late_head());
        slot.request(slot.epoch + Duration::from_secs(96));
        assert!(!after(&slot, 100_000));
        slot.reap();
        assert!(!slot.is_late_head(), "a request has begun meanwhile");
        over(&slot);
        assert!(!slot.is_late_head() && slot.idle().is_some(), "it is over");
        slot.linger(Duration::from_secs(1));
        assert!(slot.is_busy() && slot.idle().is_none(), "there will be no other");
    }

    #[test]
    fn the_next_head_is_waited_for_when_answer_and_content_are_over() {
        let slot = Slot::new(Instant::now(), &limits(), false);
        let begin = || {
            slot.request(slot.epoch);
            Content::begin(&slot)
        };
        let first = begin();
        over(&slot);
        assert!(slot.is_busy() && !after(&slot, 100), "content comes still");
        drop(first);
        assert!(!slot.is_busy() && !after(&slot, 100) && after(&slot, 160));
        let second = begin();
        let third = begin();
        // Whoever reads it looks at its end only now.
        drop(second);
        over(&slot);
        assert!(slot.is_busy());
        drop(third);
        assert!(!slot.is_busy());
    }

    #[test]
    fn idle_connections_of_workers_that_began_at_different_times_are_compared() {
        let began = Instant::now();
        let idle_at = |epoch: Instant, at: Duration| {
            let slot = Slot::new(epoch, &limits(), false);
            slot.request(began);
            over(&slot);
            slot.sweep(began + at);
            slot.idle().unwrap()
        };
        let first = idle_at(began, Duration::from_secs(5));
        let second = idle_at(began + Duration::from_secs(4), Duration::from_secs(6));
        assert_eq!((first, second), (began + Duration::from_secs(5), began + Duration::from_secs(6)));
    }

    #[test]
    fn whoever_takes_too_little_is_cut() {
        let slot = Slot::new(Instant::now(), &limits(), false);
        slot.blocked(0, 0);
        assert!(!after(&slot, 29) && after(&slot, 31) && slot.is_cut());
        let slot = Slot::new(Instant::now() - Duration::from_secs(20), &limits(), false);
        // 1,000 bytes in 20 s, and 100 a second are asked for: 30 s and 10 s more.
        slot.blocked(0, 1000);
        assert!(!after(&slot, 39) && after(&slot, 41));
        slot.unblocked();
        let slot = Slot::new(Instant::now(), &limits(), false);
        slot.blocked(0, 1_000_000);
        slot.unblocked();
        assert!(!after(&slot, 100_000));
    }

    #[test]
    fn an_http2_connection_is_idle_between_its_streams() {
        let slot = Slot::new(Instant::now(), &limits(), true);
        assert!(!after(&slot, 9));
        let mut streams = [Stream::new(slot.clone()), Stream::new(slot.clone())];
        slot.request(Instant::now());
        assert!(!after(&slot, 100), "requests are under way");
        streams.iter_mut().for_each(Stream::wait);
        streams[0].pulled();
        assert!(!after(&slot, 29) && slot.pull.load(Relaxed) != NEVER);
        streams[1].pulled();
        assert!(!after(&slot, 100), "the application is waited for, not the client");
        drop(streams);
        assert!(!after(&slot, 59) && after(&slot, 61) && slot.is_idle());
        slot.leave();
        assert!(!slot.is_idle() && !after(&slot, 1) && after(&slot, 3) && slot.is_cut());
    }

    #[test]
    fn an_answer_is_late_once() {
        let slot = Slot::new(Instant::now(), &limits(), false);
        slot.request(slot.epoch);
        slot.await_answer();
        assert!(!after(&slot, 1), "its time begins");
        assert!(!after(&slot, 60) && !slot.take_late());
        assert!(after(&slot, 61) && slot.take_late() && !slot.take_late());
        slot.await_answer();
        assert!(!after(&slot, 70));
        slot.answered();
        assert!(!after(&slot, 100));
    }
}
