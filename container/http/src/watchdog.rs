//! The watchdog: sees polls that do not come back, names them, moves their applications to threads of their own, and sees
//! to it that new connections find a worker that is free.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use wharf_kernel::Routes;
use wharf_kernel::counters::LocalCounts;

use crate::watch::{STUCK, Watch};

/// How often it looks, while anything is polled.
const TICK: Duration = Duration::from_millis(50);
/// How often it looks while nothing is.
const IDLE_TICK: Duration = Duration::from_millis(100);
/// How often it compares memory and processor time with the budgets.
const BUDGETS: Duration = Duration::from_millis(200);

/// All threads that are watched.
#[derive(Clone, Default)]
pub(crate) struct Watches(Arc<Mutex<Vec<Weak<Watch>>>>);

impl Watches {
    /// A watch for a thread of this name; it is forgotten when nobody has it any more.
    pub(crate) fn add(&self, thread: String) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(thread));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&watch));
        watch
    }

    fn all(&self) -> Vec<Arc<Watch>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watch| watch.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// A thread, and the poll it was in when it was last looked at.
struct Patient {
    watch: Arc<Watch>,
    turn: u64,
    since: Instant,
    /// Counted as slow already.
    noted: bool,
    /// The application whose poll is stuck.
    stuck: Option<LocalCounts>,
}

impl Patient {
    fn look(&mut self, now: Instant, passed: Duration) -> bool {
        let turn = self.watch.turn();
        if turn != self.turn {
            if let Some(app) = self.stuck.take() {
                app.fairness.came_back();
                self.watch.stuck.store(false, Ordering::Release);
                let took = now - self.since;
                tracing::warn!(app = %app.app, thread = self.watch.thread, "a poll has come back after about {took:?}");
            }
            (self.turn, self.since, self.noted) = (turn, now, false);
            return turn % 2 == 1;
        }
        let Some(seen) = self.watch.seen(turn) else { return false };
        let fairness = &seen.app.fairness;
        self.watch.count(&seen.app, passed.min(now - self.since));
        let long = now - self.since;
        let slow = fairness.share().slow_poll;
        if !self.noted && long >= slow {
            self.noted = true;
            tracing::warn!(app = %seen.app.app, request = seen.id, target = seen.target, thread = self.watch.thread,
                "a poll keeps its thread for more than {slow:?}: blocking work belongs into a blocking servlet");
            if fairness.polled_slowly(false) {
                moved(&seen.app, "its polls run long");
            }
        }
        if self.stuck.is_none() && long >= STUCK.max(slow) {
            tracing::error!(app = %seen.app.app, request = seen.id, target = seen.target, thread = self.watch.thread,
                "a poll has not come back for {long:?}; what else is on its thread goes on elsewhere");
            if fairness.polled_slowly(true) {
                moved(&seen.app, "a poll of it does not come back");
            }
            self.watch.stuck.store(true, Ordering::Release);
            self.stuck = Some(seen.app);
        }
        true
    }
}

fn moved(app: &LocalCounts, why: &str) {
    tracing::warn!(app = %app.app, "polled on threads of its own from now on, until it is redeployed: {why}");
}

/// The body of the watchdog's thread. `relieve` is called at each look where a thread is stuck. Ends with `end`.
pub(crate) fn run(watches: &Watches, routes: &Routes, relieve: impl Fn(), end: &mpsc::Receiver<()>) {
    let mut patients: Vec<Patient> = Vec::new();
    let (mut tick, mut last, mut budgets) = (TICK, Instant::now(), Instant::now());
    while end.recv_timeout(tick) == Err(mpsc::RecvTimeoutError::Timeout) {
        let now = Instant::now();
        let passed = now - std::mem::replace(&mut last, now);
        // Those of threads that have ended.
        patients.retain_mut(|patient| {
            let lives = Arc::strong_count(&patient.watch) > 1;
            if !lives && let Some(app) = patient.stuck.take() {
                app.fairness.came_back();
            }
            lives
        });
        let all = watches.all();
        for watch in all {
            if !patients.iter().any(|p| Arc::ptr_eq(&watch, &p.watch)) {
                patients.push(Patient { watch, turn: 0, since: now, noted: false, stuck: None });
            }
        }
        let active = patients.iter_mut().fold(false, |active, patient| patient.look(now, passed) | active);
        if patients.iter().any(|p| p.stuck.is_some()) {
            relieve();
        }
        tick = if active { TICK } else { IDLE_TICK };
        if now - budgets >= BUDGETS {
            compare(routes, now - std::mem::replace(&mut budgets, now));
        }
    }
}

/// Looks which applications take more than they may: of the processors in the time that has passed, and of memory now.
fn compare(routes: &Routes, passed: Duration) {
    for route in routes.load().routes() {
        let fairness = &route.counters.fairness;
        if route.counters.settle_cpu(route.endpoint.take_own_time(), passed) {
            let (app, limit) = (&route.id, f64::from(fairness.share().cpu_limit) / 1000.0);
            if fairness.is_over_cpu() {
                tracing::warn!(%app, "keeps more than its limit of {limit} processors busy: new requests get 503");
            } else {
                tracing::info!(%app, "is within its limit of {limit} processors again");
            }
        }
        let budget = fairness.share().memory_budget;
        if budget == 0 {
            continue;
        }
        let Some(bytes) = route.endpoint.live_bytes() else { continue };
        if fairness.holds(bytes) {
            let app = &route.id;
            if fairness.is_over_budget() {
                tracing::warn!(%app, "holds {bytes} bytes, more than its budget of {budget}: new requests get 503");
            } else {
                tracing::info!(%app, "holds {bytes} bytes, within its budget of {budget} again");
            }
        }
    }
}
