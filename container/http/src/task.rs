//! The tasks of a worker: what it does for connections and requests, in a form that another worker can go on with.
//!
//! A task belongs to the runtime of the worker that spawned it, and waits with it where an application does not come back from a
//! poll. So the runtime is given a shell only. What is in it is at rest whenever it is not polled, wherever it waits; it
//! can be taken out then and put into a shell of another runtime. The first poll there tells all that it waits for whom to wake from
//! now on, as any poll does. Sockets and timers come along by [`crate::homed`].

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use try_lock::TryLock;

use crate::berth::Berth;
use crate::watch::{self, Seen};
use crate::worker::Shared;

/// What a task does.
pub(crate) type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static HERE: OnceCell<Arc<Shared>> = const { OnceCell::new() };
}

/// This thread is this worker's from now on.
pub(crate) fn begin(shared: &Arc<Shared>) {
    HERE.with(|here| _ = here.set(shared.clone()));
    wharf_kernel::workers::begin(wharf_kernel::workers::Here {
        number: shared.number,
        spawn: |future| _ = spawn_boxed(future),
        spawn_watched,
    });
}

/// Calls `f` with the worker whose thread this is; with `None` on any other thread.
#[inline]
pub(crate) fn here<T>(f: impl FnOnce(Option<&Arc<Shared>>) -> T) -> T {
    HERE.with(|here| f(here.get()))
}

/// Has this worker do something. False on a thread that is no worker's.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> bool {
    spawn_boxed(Box::pin(future))
}

fn spawn_boxed(future: Boxed) -> bool {
    here(|worker| worker.map(|worker| Task::start(worker, Work { future, berth: None }))).is_some()
}

/// Has this worker do something for the application that it polls at the moment, and is watched while it polls that.
fn spawn_watched(mut future: Boxed) {
    let asks = here(|worker| worker.and_then(|worker| worker.watch.seen(worker.watch.turn())));
    spawn(poll_fn(move |cx| match &asks {
        Some(Seen { app, id, target }) => watch::during(app, id, target, || future.as_mut().poll(cx)),
        None => future.as_mut().poll(cx),
    }));
}

/// Spawns what hyper asks for on the worker that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        // Connections are polled by workers alone.
        spawn(future);
    }
}

/// What a task does, at rest.
pub(crate) struct Work {
    pub(crate) future: Boxed,
    /// Of a whole connection.
    pub(crate) berth: Option<Arc<Berth>>,
}

/// A task, as its worker has it in its list.
pub(crate) struct Task {
    worker: Arc<Shared>,
    key: usize,
    /// Locked while it is polled, and while another worker takes it. `None` once it has ended, or is another worker's.
    future: TryLock<Option<Boxed>>,
    berth: Option<Arc<Berth>>,
}

impl Task {
    /// Has the worker whose thread this is do that.
    pub(crate) fn start(worker: &Arc<Shared>, work: Work) {
        let Work { future, berth } = work;
        let task = {
            let mut all = worker.tasks();
            let place = all.vacant_entry();
            let task = Task { worker: worker.clone(), key: place.key(), future: TryLock::new(Some(future)), berth };
            let task = Arc::new(task);
            place.insert(Arc::downgrade(&task));
            task
        };
        tokio::spawn(Shell { task, polled: false });
    }

    /// Takes out what it does, unless it is polled.
    fn take(&self) -> Option<Work> {
        let future = self.future.try_lock()?.take()?;
        Some(Work { future, berth: self.berth.clone() })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.worker.tasks().try_remove(self.key);
    }
}

/// Takes from a worker all that it does, but for what it polls at the moment.
pub(crate) fn take_all(worker: &Shared) -> Vec<Work> {
    // A task that ends here takes itself off the list.
    let all: Vec<Arc<Task>> = worker.tasks().iter().filter_map(|(_, task)| Weak::upgrade(task)).collect();
    all.iter().filter_map(|task| task.take()).collect()
}

/// What the runtime has of a task.
struct Shell {
    task: Arc<Task>,
    polled: bool,
}

impl Future for Shell {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let first = !std::mem::replace(&mut self.polled, true);
        // Where it is locked it is just being taken.
        let Some(mut future) = self.task.future.try_lock() else { return Poll::Ready(()) };
        let Some(running) = &mut *future else { return Poll::Ready(()) };
        if first && let Some(berth) = &self.task.berth {
            berth.wakes(cx.waker());
        }
        let polled = running.as_mut().poll(cx);
        if polled.is_ready() {
            *future = None;
        }
        polled
    }
}
