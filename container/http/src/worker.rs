//! A worker: one thread with one runtime that serves its share of the connections for as long as the process lives.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::Pipeline;
use crate::acceptor::Pass;
use crate::berth::{Berth, Guard};
use crate::clock::{self, Slot};
use crate::connection::{self, Socket};
use crate::link::Link;
use crate::task::{self, Task, Work};
use crate::watch::Watch;

/// What waits to be taken by a worker.
pub(crate) enum Waiting {
    /// A new connection, with the pass that goes back when it is gone.
    New(Socket, Pass),
    /// What another worker was at.
    Moved(Work),
}

/// What a worker is told.
pub(crate) enum Command {
    /// Serve the next connection of the inbox, if another worker has not taken it.
    Serve,
    /// Run this between two polls.
    Run(Box<dyn FnOnce() + Send>),
    /// End every connection after the request it is at, cut what is left after the time, and say how many were cut.
    Drain(Duration, oneshot::Sender<usize>),
}

/// How the connections are to behave.
pub(crate) const OPEN: u8 = 0;
const DRAINING: u8 = 1;
pub(crate) const CUT: u8 = 2;

/// How a connection is reached from outside its task.
pub(crate) struct Seated {
    pub(crate) waker: Waker,
    pub(crate) slot: Arc<Slot>,
    /// Of HTTP/1, which may be upgraded.
    pub(crate) link: Option<Arc<Link>>,
}

/// What a worker's connections share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What this worker's thread is doing.
    pub(crate) watch: Arc<Watch>,
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Where its sockets and timers are.
    pub(crate) runtime: Handle,
    /// What it has not taken yet. Not in the commands, so that it can go to another worker when this one is stuck.
    pub(crate) inbox: Mutex<VecDeque<Waiting>>,
    /// What it is at.
    tasks: Mutex<Slab<Weak<Task>>>,
    /// The next connection's key.
    pub(crate) keys: AtomicU64,
    /// Connections handed to this worker that are not gone yet.
    pub(crate) open: AtomicUsize,
    state: AtomicU8,
    /// Wakes each connection when `state` changes or its time is up. Locked when a connection comes or goes.
    wakers: Mutex<HashMap<u64, Seated>>,
    pub(crate) began: Instant,
    /// Told when the last connection is gone.
    idle: Notify,
}

impl Shared {
    pub(crate) fn new(index: usize, pipeline: Arc<Pipeline>, watch: Arc<Watch>, runtime: Handle) -> Self {
        Self {
            pipeline,
            watch,
            number: index + 1,
            runtime,
            inbox: Mutex::default(),
            tasks: Mutex::default(),
            keys: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            state: AtomicU8::new(OPEN),
            wakers: Mutex::default(),
            began: Instant::now(),
            idle: Notify::new(),
        }
    }

    pub(crate) fn inbox(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Seated>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tasks(&self) -> std::sync::MutexGuard<'_, Slab<Weak<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that speak something else than HTTP by now.
    pub(crate) fn upgraded(&self) -> Vec<Arc<Link>> {
        self.wakers().values().filter_map(|seated| seated.link.clone()).filter(|link| link.is_upgraded()).collect()
    }

    /// One connection less.
    pub(crate) fn left(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// The connections that are idle between two requests or have said nothing yet, and since when, to a tick of the sweep.
    pub(crate) fn idle(&self) -> Vec<(Instant, Arc<Slot>, Waker)> {
        let all = self.wakers();
        all.values().filter_map(|s| Some((s.slot.idle()?, s.slot.clone(), s.waker.clone()))).collect()
    }

    fn change(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        for seated in self.wakers().values() {
            seated.waker.wake_by_ref();
        }
    }

    /// Wakes, for ever, the connections whose time is up.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(clock::tick(&self.pipeline.limits));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await.into_std();
            for seated in self.wakers().values() {
                if seated.slot.sweep(now) {
                    seated.waker.wake_by_ref();
                }
            }
        }
    }

    async fn drain(&self, time: Duration) -> usize {
        self.change(DRAINING);
        let empty = async {
            loop {
                let notified = self.idle.notified();
                if self.open.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        let mut empty = pin!(empty);
        if tokio::time::timeout(time, empty.as_mut()).await.is_ok() {
            return 0;
        }
        // Upgraded connections have no task of this worker that could end them.
        let (cut, links): (usize, Vec<_>) = {
            let all = self.wakers();
            (all.len(), all.values().filter_map(|seated| seated.link.clone()).collect())
        };
        self.change(CUT);
        links.iter().for_each(|link| link.cut());
        empty.await;
        cut
    }
}

/// The body of a worker's thread: serves until the commands end.
pub(crate) async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    task::begin(&shared);
    tokio::spawn({
        let shared = shared.clone();
        async move { shared.sweep().await }
    });
    while let Some(command) = commands.recv().await {
        match command {
            Command::Run(task) => {
                // The panic hook has reported it; the worker lives on.
                let _ = catch_unwind(AssertUnwindSafe(task));
            }
            Command::Drain(time, done) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = done.send(shared.drain(time).await);
                });
            }
            Command::Serve => {
                // It stays in the inbox until this worker really gets to it.
                let shared = shared.clone();
                tokio::spawn(async move { take(&shared) });
            }
        }
    }
}

/// Begins to serve what is next in the inbox, if no other worker has taken it.
fn take(worker: &Arc<Shared>) {
    let next = worker.inbox().pop_front();
    match next {
        None => {}
        Some(Waiting::Moved(work)) => Task::start(worker, work),
        Some(Waiting::New(socket, pass)) => {
            let berth = Berth::new(worker);
            let guard = Guard::new(worker.clone(), berth.clone(), pass);
            if let Some(future) = connection::begin(worker, socket, guard) {
                Task::start(worker, Work { future, berth: Some(berth) });
            }
        }
    }
}

/// How the connections of this thread's worker are to behave.
pub(crate) fn state() -> u8 {
    task::here(|worker| worker.map_or(OPEN, |worker| worker.state.load(Ordering::Acquire)))
}
