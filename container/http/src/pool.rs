//! The workers together: which of them a connection goes to, and who takes over where one is stuck.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use wharf_kernel::workers::Workers;

use crate::Pipeline;
use crate::acceptor::Seat;
use crate::task;
use crate::watchdog::Watches;
use crate::worker::{self, Command, Shared, Waiting};

/// How many workers may be started for ones that are stuck.
const RELIEFS: usize = 32;

/// All workers.
pub(crate) struct Pool {
    pipeline: Arc<Pipeline>,
    watches: Watches,
    /// How many there shall be that are not stuck.
    wanted: usize,
    seats: Mutex<Arc<[Seat]>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_free(seat: &Seat) -> bool {
    !seat.0.watch.stuck.load(Ordering::Acquire)
}

impl Pool {
    /// Starts the workers.
    ///
    /// # Errors
    /// A thread or a runtime that can't be had.
    pub(crate) fn start(wanted: usize, pipeline: Arc<Pipeline>, watches: Watches) -> io::Result<Self> {
        let pool = Self { pipeline, watches, wanted, seats: Mutex::new(Arc::from([])), threads: Mutex::default() };
        for _ in 0..wanted {
            pool.add()?;
        }
        Ok(pool)
    }

    /// One more worker.
    fn add(&self) -> io::Result<()> {
        let mut seats = lock(&self.seats);
        let index = seats.len();
        let name = format!("wharf-worker-{index}");
        let (sender, receiver) = mpsc::unbounded_channel();
        // Files are read on threads of this runtime; they are few and short-lived.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .thread_name(format!("wharf-files-{index}"))
            // Whoever else wants this processor goes first: when it comes back, more requests are there to be served in one
            // go. Measured with the client on the same two processors: 0.98 of plain axum's rate and 1.12 times its
            // processor time, without it 0.74 and 1.40.
            .on_thread_park(std::thread::yield_now)
            .build()?;
        let watch = self.watches.add(name.clone());
        let shared = Arc::new(Shared::new(index, self.pipeline.clone(), watch, runtime.handle().clone()));
        let body = {
            let shared = shared.clone();
            move || runtime.block_on(worker::run(shared, receiver))
        };
        lock(&self.threads).push(std::thread::Builder::new().name(name).spawn(body)?);
        *seats = seats.iter().cloned().chain([(shared, sender)]).collect();
        Ok(())
    }

    /// The workers there are now.
    pub(crate) fn seats(&self) -> Arc<[Seat]> {
        lock(&self.seats).clone()
    }

    /// Where the next connection goes. `None` when the server ends.
    fn least(&self) -> Option<Seat> {
        let busy = |seat: &&Seat| (!is_free(seat), seat.0.open.load(Ordering::Relaxed));
        self.seats().iter().min_by_key(busy).cloned()
    }

    /// Gives it to the free worker that has the fewest connections; where none is free, to the one that has the fewest, from
    /// which it is taken when a free one is there. False when the server ends.
    pub(crate) fn seat(&self, waiting: Waiting) -> bool {
        let Some((shared, sender)) = &self.least() else { return false };
        match &waiting {
            Waiting::New(..) => _ = shared.open.fetch_add(1, Ordering::AcqRel),
            Waiting::Moved(work) => _ = work.berth.as_ref().map(|berth| berth.move_to(shared)),
        }
        shared.inbox().push_back(waiting);
        sender.send(Command::Serve).is_ok()
    }

    /// Sees to it that there are as many free workers as wanted, and gives them what waits for those that are stuck.
    pub(crate) fn relieve(&self) {
        let seats = self.seats();
        let free = seats.iter().filter(|seat| is_free(seat)).count();
        if free < self.wanted && seats.len() < self.wanted + RELIEFS {
            match self.add() {
                Ok(()) => tracing::warn!("wharf-worker-{} was started, since another one is stuck", seats.len()),
                Err(error) => tracing::error!(%error, "no worker could be started for one that is stuck"),
            }
        }
        if !self.seats().iter().any(is_free) {
            return;
        }
        for (shared, _) in seats.iter().filter(|seat| !is_free(seat)) {
            let waiting = std::mem::take(&mut *shared.inbox());
            for waiting in waiting {
                if let Waiting::New(..) = waiting {
                    shared.open.fetch_sub(1, Ordering::AcqRel);
                }
                self.seat(waiting);
            }
            let upgraded = shared.upgraded();
            let moved = task::take_all(shared);
            let connections = upgraded.len() + moved.iter().filter(|work| work.berth.is_some()).count();
            if connections > 0 {
                tracing::warn!(thread = shared.watch.thread, "its {connections} other connections go on elsewhere");
            }
            for link in upgraded {
                if let Some((worker, _)) = self.least() {
                    link.move_to(&worker);
                }
            }
            for work in moved {
                self.seat(Waiting::Moved(work));
            }
        }
    }

    /// Ends the threads. One that is stuck in an application is left behind.
    pub(crate) fn end(&self) {
        let seats = std::mem::replace(&mut *lock(&self.seats), Arc::from([]));
        let stuck: Vec<bool> = seats.iter().map(|seat| !is_free(seat)).collect();
        // Without senders the workers' loops end.
        drop(seats);
        for (thread, stuck) in lock(&self.threads).drain(..).zip(stuck) {
            if !stuck {
                let _ = thread.join();
            }
        }
    }
}

impl Workers for Pool {
    fn on_each(&self, task: Arc<dyn Fn() + Send + Sync>, done: Arc<dyn Fn(&str) + Send + Sync>) {
        for (shared, sender) in self.seats().iter() {
            let (task, done, name) = (task.clone(), done.clone(), shared.watch.thread.clone());
            let _ = sender.send(Command::Run(Box::new(move || {
                task();
                done(&name);
            })));
        }
    }

    fn count(&self) -> usize {
        self.seats().len()
    }

    fn names(&self) -> Vec<String> {
        self.seats().iter().map(|(shared, _)| shared.watch.thread.clone()).collect()
    }
}
