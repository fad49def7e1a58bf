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

/// Has the worker whose thread this is do something for the application that it polls, in such a way that another worker can go on with it
/// where this one is stuck.
pub type Spawn = fn(Pin<Box<dyn Future<Output = ()> + Send>>);

thread_local! {
    static SPAWN: Cell<Option<Spawn>> = const { Cell::new(None) };
}

/// This thread is a worker's from now on, and this is how it is told to do something.
pub fn spawn_with(spawn: Spawn) {
    SPAWN.set(Some(spawn));
}

/// How the worker is told to do something whose thread this is. `None` on any other thread.
pub fn spawn() -> Option<Spawn> {
    SPAWN.get()
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
