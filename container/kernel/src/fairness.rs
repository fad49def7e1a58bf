//! What keeps one application from hurting the others: its limit on requests at a time with a bounded queue, its memory
//! budget, and whether it is polled on threads of its own.
//!
//! Where the limit is far away a request costs two atomic steps on a cache line that only its thread writes: permits lie
//! with the threads that used them last, and are fetched from elsewhere only when a thread has none.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::counters::{AppCounters, Counts, LocalCounts};
use crate::cpu::Cpu;
use crate::per_thread::InHand;

/// How many permits a thread takes at once from those that lie nowhere.
const BATCH: i64 = 8;

/// So many slow polls of one generation, and it gets threads of its own.
const SLOW_POLLS: u64 = 3;

/// On which threads the requests of an application are polled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Threads {
    /// On the workers, with all others, until its polls run long.
    #[default]
    Shared,
    /// On threads of its own from the start.
    Own,
}

/// What an application may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Requests that it answers at a time, at least 1.
    pub max_requests: usize,
    /// Requests that may wait for one of those to end.
    pub max_queued: usize,
    /// How long each may wait.
    pub queue_timeout: Duration,
    /// Bytes on its heap above which new requests are refused; 0 for no budget.
    pub memory_budget: u64,
    /// Thousandths of a processor that it may keep busy; more, and new requests are refused. 0 for no limit.
    pub cpu_limit: u32,
    /// A poll that takes longer is slow.
    pub slow_poll: Duration,
    /// Where it is polled.
    pub threads: Threads,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            max_requests: 4000,
            max_queued: 1000,
            queue_timeout: Duration::from_secs(5),
            memory_budget: 0,
            cpu_limit: 0,
            slow_poll: Duration::from_millis(100),
            threads: Threads::Shared,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Too many requests wait already, or it waited too long.
    Busy = 0,
    /// The application holds more memory than its budget.
    Memory = 1,
    /// None of the application's own threads comes back from a poll.
    Stuck = 2,
    /// The application keeps more processors busy than it may.
    Cpu = 3,
}

/// The state of an application's share, which outlives its generations. All but the queue is lock-free.
#[derive(Debug)]
pub struct Fairness {
    share: Mutex<Share>,
    own_threads: AtomicBool,
    over_budget: AtomicBool,
    /// Permits that lie with no thread; below zero after the limit was lowered, until so many have come back.
    pool: AtomicI64,
    queue: Mutex<Queue>,
    /// Length of the queue.
    waiting: AtomicUsize,
    rejected: [AtomicU64; 4],
    slow: AtomicU64,
    slow_of_generation: AtomicU64,
    stuck: AtomicU64,
    pub(crate) cpu: Cpu,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
    granted: Vec<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes up to `most` of what is there.
fn take(from: &AtomicI64, most: i64) -> i64 {
    let taken = from.fetch_update(SeqCst, Relaxed, |n| (n > 0).then(|| n - n.min(most)));
    taken.map_or(0, |before| before.min(most))
}

impl Default for Fairness {
    fn default() -> Self {
        let share = Share::default();
        Self {
            pool: AtomicI64::new(i64::try_from(share.max_requests).unwrap_or(i64::MAX)),
            share: Mutex::new(share),
            own_threads: AtomicBool::new(false),
            over_budget: AtomicBool::new(false),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            rejected: Default::default(),
            slow: AtomicU64::new(0),
            slow_of_generation: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            cpu: Cpu::default(),
        }
    }
}

impl Fairness {
    /// A new generation begins with this share, and with no record of slow polls.
    pub fn begin(&self, share: Share) {
        let share = Share { max_requests: share.max_requests.clamp(1, 1 << 40), ..share };
        let before = std::mem::replace(&mut *lock(&self.share), share);
        self.pool.fetch_add(share.max_requests as i64 - before.max_requests as i64, SeqCst);
        self.own_threads.store(share.threads == Threads::Own, SeqCst);
        self.slow_of_generation.store(0, Relaxed);
        self.over_budget.store(false, Relaxed);
        self.cpu.begin();
    }

    /// The share.
    pub fn share(&self) -> Share {
        *lock(&self.share)
    }

    /// Whether its requests are polled on threads of its own.
    pub fn on_own_threads(&self) -> bool {
        self.own_threads.load(Relaxed)
    }

    /// Whether it holds more memory than its budget.
    pub fn is_over_budget(&self) -> bool {
        self.over_budget.load(Relaxed)
    }

    /// Whether it keeps more processors busy than it may.
    pub fn is_over_cpu(&self) -> bool {
        self.cpu.is_over()
    }

    /// It holds so many bytes now. Returns whether that moved it over its budget, or back.
    pub fn holds(&self, bytes: u64) -> bool {
        let budget = self.share().memory_budget;
        let over = budget > 0 && bytes > budget;
        self.over_budget.swap(over, Relaxed) != over
    }

    /// A poll of it took longer than its share allows; `stuck` when far longer. Returns true when it gets threads of its own
    /// for this.
    pub fn polled_slowly(&self, stuck: bool) -> bool {
        let move_it = if stuck {
            self.stuck.fetch_add(1, Relaxed);
            true
        } else {
            self.slow.fetch_add(1, Relaxed);
            self.slow_of_generation.fetch_add(1, Relaxed) + 1 >= SLOW_POLLS
        };
        move_it && !self.own_threads.swap(true, SeqCst)
    }

    /// A poll that was stuck has come back.
    pub fn came_back(&self) {
        self.stuck.fetch_sub(1, Relaxed);
    }

    /// A request was refused.
    pub fn reject(&self, why: Rejection) {
        self.rejected[why as usize].fetch_add(1, Relaxed);
    }

    /// Requests refused because of the limit, the memory budget, threads that are stuck, and the processors that it keeps busy.
    pub fn rejected(&self) -> [u64; 4] {
        std::array::from_fn(|i| self.rejected[i].load(Relaxed))
    }

    /// Requests that wait.
    pub fn queued(&self) -> u64 {
        self.waiting.load(Relaxed) as u64
    }

    /// Polls that took longer than they may.
    pub fn slow_polls(&self) -> u64 {
        self.slow.load(Relaxed)
    }

    /// Polls that have not come back for far longer than they may.
    pub fn stuck_polls(&self) -> u64 {
        self.stuck.load(Relaxed)
    }

    /// Gives a permit to the one that has waited longest. False where nobody waits.
    fn hand_over(&self) -> bool {
        let waker = {
            let mut queue = lock(&self.queue);
            let Some((key, waker)) = queue.waiting.pop_front() else { return false };
            queue.granted.push(key);
            self.waiting.fetch_sub(1, SeqCst);
            waker
        };
        waker.wake();
        true
    }
}

impl AppCounters {
    /// A permit to answer a request, where one is left.
    pub fn try_admit(&self) -> Option<Permit> {
        let local = self.local();
        let got = take(&local.free, 1) == 1 || self.fetch();
        got.then(|| Permit::new(local))
    }

    /// Gets a permit from elsewhere for this thread.
    #[cold]
    fn fetch(&self) -> bool {
        let batch = take(&self.fairness.pool, BATCH);
        if batch > 0 {
            self.local().free.fetch_add(batch - 1, SeqCst);
            settle(self.local());
            return true;
        }
        self.sets().any(|set| take(&set.free, 1) == 1)
    }

    /// Waits for a permit. `None` where too many wait already. The caller limits the time.
    pub fn queue(self: &Arc<Self>) -> Option<Queued> {
        let fairness = &self.fairness;
        let most = fairness.share().max_queued;
        let key = {
            let mut queue = lock(&fairness.queue);
            if queue.waiting.len() >= most {
                return None;
            }
            queue.next += 1;
            let key = queue.next;
            queue.waiting.push_back((key, Waker::noop().clone()));
            fairness.waiting.fetch_add(1, SeqCst);
            key
        };
        // One that was given back before this was seen to wait.
        if self.fetch() {
            drop(Permit::new(self.local()));
        }
        Some(Queued { counters: self.clone(), key: Some(key) })
    }
}

/// Allows one request to be answered. The next one may when it is given back, or dropped.
#[derive(Debug)]
pub struct Permit {
    counts: InHand<Counts>,
    held: bool,
}

impl std::ops::Deref for Permit {
    type Target = LocalCounts;

    /// Where the request is counted.
    fn deref(&self) -> &LocalCounts {
        &self.counts
    }
}

impl Permit {
    fn new(counts: &LocalCounts) -> Self {
        Self { counts: InHand::of(counts), held: true }
    }

    /// Names where a request is counted that holds no permit: its turn is still to come, or it needs none.
    pub fn none(counts: &LocalCounts) -> Self {
        Self { counts: InHand::of(counts), held: false }
    }

    /// Gives it back, where it has not been given back yet.
    pub fn give_back(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let fairness = &self.counts.fairness;
        if fairness.pool.load(Relaxed) < 0
            && fairness.pool.fetch_update(SeqCst, Relaxed, |n| (n < 0).then_some(n + 1)).is_ok()
        {
            return;
        }
        // First given back, then looked: whoever begins to wait sees it, or this sees that somebody waits.
        self.counts.free.fetch_add(1, SeqCst);
        settle(&self.counts);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Hands the permits that lie here to those that wait.
fn settle(counts: &LocalCounts) {
    let fairness = &counts.fairness;
    while fairness.waiting.load(SeqCst) > 0 && take(&counts.free, 1) == 1 {
        if !fairness.hand_over() {
            counts.free.fetch_add(1, SeqCst);
        }
    }
}

/// A request that waits for its permit.
#[derive(Debug)]
pub struct Queued {
    counters: Arc<AppCounters>,
    /// `None` once it has the permit.
    key: Option<u64>,
}

impl Future for Queued {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(key) = self.key else { return Poll::Pending };
        {
            let mut queue = lock(&self.counters.fairness.queue);
            let Some(at) = queue.granted.iter().position(|k| *k == key) else {
                if let Ok(at) = queue.waiting.binary_search_by_key(&key, |(k, _)| *k) {
                    queue.waiting[at].1.clone_from(cx.waker());
                }
                return Poll::Pending;
            };
            queue.granted.swap_remove(at);
        }
        self.key = None;
        Poll::Ready(Permit::new(self.counters.local()))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let fairness = &self.counters.fairness;
        let mut queue = lock(&fairness.queue);
        if let Ok(at) = queue.waiting.binary_search_by_key(&key, |(k, _)| *k) {
            queue.waiting.remove(at);
            fairness.waiting.fetch_sub(1, SeqCst);
            return;
        }
        queue.granted.retain(|k| *k != key);
        drop(queue);
        // It had been given one just before.
        drop(Permit::new(self.counters.local()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppId, ContextPath, Version};

    fn counters(max_requests: usize, max_queued: usize) -> Arc<AppCounters> {
        let app = AppId { host: "default".into(), path: ContextPath::root(), version: Version::default() };
        let counters = Arc::new(AppCounters::new(app));
        counters.fairness.begin(Share { max_requests, max_queued, ..Share::default() });
        counters
    }

    fn poll(queued: &mut Queued) -> Option<Permit> {
        match Pin::new(queued).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_limit_holds_and_the_queue_is_first_come_first_served() {
        let app = counters(2, 2);
        let (a, b) = (app.try_admit().unwrap(), app.try_admit().unwrap());
        assert!(app.try_admit().is_none());
        let (mut first, mut second) = (app.queue().unwrap(), app.queue().unwrap());
        assert!(app.queue().is_none());
        assert_eq!(app.fairness.queued(), 2);
        drop(a);
        assert!(poll(&mut second).is_none());
        let a = poll(&mut first).unwrap();
        assert!(app.try_admit().is_none());
        drop(second);
        assert_eq!(app.fairness.queued(), 0);
        drop((a, b));
        // One that got its permit and did not look gives it back.
        let all = [app.try_admit().unwrap(), app.try_admit().unwrap()];
        let third = app.queue().unwrap();
        drop(all);
        drop(third);
        let _all = [app.try_admit().unwrap(), app.try_admit().unwrap()];
        assert!(app.try_admit().is_none());
    }

    #[test]
    fn a_limit_that_is_lowered_holds_when_the_permits_are_back() {
        let app = counters(3, 0);
        let mut held: Vec<_> = (0..3).map(|_| app.try_admit().unwrap()).collect();
        app.fairness.begin(Share { max_requests: 1, ..app.fairness.share() });
        held.pop();
        held.pop();
        assert!(app.try_admit().is_none());
        held.pop();
        let one = app.try_admit().unwrap();
        assert!(app.try_admit().is_none());
        app.fairness.begin(Share { max_requests: 2, ..app.fairness.share() });
        drop((one, app.try_admit().unwrap()));
    }

    #[test]
    fn many_threads_never_have_more_than_the_limit_and_lose_no_permit() {
        let app = counters(5, 100);
        let now = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..2000 {
                        let permit = app.try_admit().or_else(|| {
                            let mut queued = app.queue()?;
                            // Every third gives up.
                            let patience = if round % 3 == 0 { 1 } else { usize::MAX };
                            (0..patience).find_map(|_| {
                                std::thread::yield_now();
                                poll(&mut queued)
                            })
                        });
                        if let Some(_permit) = permit {
                            assert!(now.fetch_add(1, SeqCst) < 5);
                            now.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        let all: Vec<_> = std::iter::from_fn(|| app.try_admit()).collect();
        assert_eq!((all.len(), app.fairness.queued()), (5, 0));
    }

    #[test]
    fn slow_polls_lead_to_threads_of_its_own_until_the_next_generation() {
        let app = counters(1, 1);
        assert!(!app.fairness.polled_slowly(false) && !app.fairness.polled_slowly(false));
        assert!(app.fairness.polled_slowly(false) && app.fairness.on_own_threads());
        assert!(!app.fairness.polled_slowly(true));
        app.fairness.begin(Share::default());
        assert!(!app.fairness.on_own_threads() && app.fairness.polled_slowly(true));
    }
}
