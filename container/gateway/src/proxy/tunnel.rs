//! Connections that were upgraded: bytes both ways until one side ends, nothing moves any more, or the generation goes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use wharf_kernel::{Lease, Phase, RequestId};

use super::activity::{Active, Activity};
use super::member::Turn;

/// A tunnel whose generation goes is closed when nothing has moved for so long: nothing is cut in the middle, and a stop does
/// not wait for connections that are merely open.
const PAUSE: Duration = Duration::from_secs(1);

/// The tunnels of a generation.
#[derive(Clone)]
pub(crate) struct Tunnels {
    close: watch::Sender<bool>,
    open: Arc<(Mutex<usize>, Condvar)>,
    idle: Duration,
}

/// One of them, counted.
struct Counted(Arc<(Mutex<usize>, Condvar)>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}

impl Tunnels {
    pub(crate) fn new(idle: Duration) -> Self {
        Self { close: watch::Sender::new(false), open: Arc::default(), idle }
    }

    /// Joins the two sides as soon as both have changed over, on the worker whose thread this is.
    pub(crate) fn join(&self, client: OnUpgrade, backend: OnUpgrade, lease: Lease, turn: Turn, id: RequestId) {
        *self.open.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let counted = Counted(self.open.clone());
        let (mut closing, idle) = (self.close.subscribe(), self.idle);
        let draining = lease.reached(Phase::Draining);
        wharf_worker::spawn(async move {
            // In this order at the end: the lease goes back last but for the count.
            let _held = (turn, lease, counted);
            let activity = Activity::begin();
            let copy = async {
                let (client, backend) = tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
                let mut client = Active { inner: TokioIo::new(client), activity: activity.clone() };
                let mut backend = Active { inner: TokioIo::new(backend), activity: activity.clone() };
                tokio::io::copy_bidirectional(&mut client, &mut backend).await
            };
            tokio::select! {
                done = copy => match done {
                    Ok((up, down)) => tracing::debug!(request = &*id, up, down, "the tunnel has ended"),
                    Err(error) => tracing::debug!(request = &*id, "the tunnel broke off: {error}"),
                },
                () = activity.stalled(idle) => tracing::info!(request = &*id, "the tunnel was silent for {idle:?} and is closed"),
                () = async { draining.await; activity.stalled(PAUSE).await } => {
                    tracing::info!(request = &*id, "the tunnel is closed in a pause: its application goes");
                }
                _ = closing.wait_for(|close| *close) => tracing::info!(request = &*id, "the tunnel is closed: its application goes"),
            }
        });
    }

    /// Closes them, and waits a moment until they are.
    pub(crate) fn close(&self) {
        self.close.send_replace(true);
        let open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.open.1.wait_timeout_while(open, Duration::from_secs(2), |open| *open > 0);
    }
}
