//! The long-lived threads that enter applications, seen by whoever must run something on each of them.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;

/// The threads of the container that poll applications and live on when an application goes.
pub trait Workers: Send + Sync + 'static {
    /// Has every worker run `task` once, between two polls, and returns at once. `done` is called, on the worker, with the
    /// worker's name after each run; it is called [`Workers::count`] times in all unless a worker is stuck.
    fn on_each(&self, task: Arc<dyn Fn() + Send + Sync>, done: Arc<dyn Fn(&str) + Send + Sync>);

    /// How many there are.
    fn count(&self) -> usize;

    /// Their names, in order.
    fn names(&self) -> Vec<String>;
}

/// Has the worker whose thread this is do something, in such a way that another worker can go on with it where this one is stuck.
pub type Spawn = fn(Pin<Box<dyn Future<Output = ()> + Send>>);

/// A worker, to whoever runs on its thread.
#[derive(Debug, Clone, Copy)]
pub struct Here {
    /// Its number: one that no other worker has or had, and not 0.
    pub number: usize,
    /// Has it do what the container needs.
    pub spawn: Spawn,
    /// Has it do something for the application that it polls, watched as that is.
    pub spawn_watched: Spawn,
}

thread_local! {
    static HERE: Cell<Option<Here>> = const { Cell::new(None) };
}

/// This thread is this worker's from now on.
pub fn begin(here: Here) {
    HERE.set(Some(here));
}

/// The worker whose thread this is. `None` on any other thread.
#[inline]
pub fn here() -> Option<Here> {
    HERE.get()
}

/// The number of the worker whose thread this is; 0 on any other thread.
#[inline]
pub fn number() -> usize {
    here().map_or(0, |here| here.number)
}

/// What hangs on the runtime of the worker that made it, such as a timer. Where another worker goes on with it, it is made anew there;
/// threads that are no worker's use it as it is.
#[derive(Debug)]
pub struct OfWorker<T> {
    what: T,
    number: usize,
}

impl<T> OfWorker<T> {
    /// This was made on this thread.
    pub fn new(what: T) -> Self {
        Self { what, number: number() }
    }

    /// It, on the thread that uses it now; `again` makes it anew where that is another worker's.
    #[inline]
    pub fn here(&mut self, again: impl FnOnce(&mut T)) -> &mut T {
        let number = number();
        if number != self.number && number != 0 {
            self.number = number;
            again(&mut self.what);
        }
        &mut self.what
    }

    /// It, as it is.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.what
    }
}

/// No worker at all: for the trial load and for tests.
pub struct NoWorkers;

impl Workers for NoWorkers {
    fn on_each(&self, _task: Arc<dyn Fn() + Send + Sync>, _done: Arc<dyn Fn(&str) + Send + Sync>) {}

    fn count(&self) -> usize {
        0
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
