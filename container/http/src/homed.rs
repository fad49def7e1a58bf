//! What hangs on the runtime of the worker at which a connection is: its socket moves along with it.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use wharf_kernel::workers;
use wharf_worker::{Home, Movable, Moving, Timer};

use crate::berth::Berth;
use crate::worker::Shared;

/// The socket of a connection, in the runtime of the worker at which the connection is.
pub(crate) type Homed<S> = Moving<AtBerth<S>>;

/// A socket of the runtime of the worker at which the connection is.
pub(crate) fn homed<S: Movable>(socket: S, berth: Arc<Berth>) -> Homed<S> {
    Moving::at(AtBerth { socket: Some(socket), home: berth.number(), berth })
}

pub(crate) struct AtBerth<S> {
    /// `None` once it could not be moved.
    socket: Option<S>,
    berth: Arc<Berth>,
    home: usize,
}

impl<S: Movable> AtBerth<S> {
    #[cold]
    fn follow(&mut self) -> io::Result<()> {
        // Before the look at the runtime: if it moves on in between, the next poll sees that.
        self.home = self.berth.number();
        let runtime = self.berth.runtime().ok_or(io::ErrorKind::NotConnected)?;
        let _inside = runtime.enter();
        self.socket = self.socket.take().map(S::moved).transpose()?;
        Ok(())
    }
}

impl<S: Movable> Home for AtBerth<S> {
    type Socket = S;

    #[inline]
    fn here(&mut self) -> io::Result<&mut S> {
        if self.berth.number() != self.home {
            self.follow()?;
        }
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// A timer of the worker that polls it; on a thread that is no worker's, it is that worker's.
pub(crate) fn timer(worker: &Shared, deadline: Instant) -> Timer {
    let _inside = (workers::number() == 0).then(|| worker.runtime.enter());
    Timer::at(deadline)
}
