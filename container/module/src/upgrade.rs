//! An upgraded connection of a module: the module's future, polled on the worker as long as the connection lives.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::{OnUpgrade, Upgraded};
use wharf_abi::{Duplex, FfiStream, FfiUpgrade, UpgradeOutcome};
use wharf_kernel::{Lease, Phase, Reached};

/// Lets the module live on the connection, on this worker, once the 101 has been sent.
pub(crate) fn spawn(on_upgrade: OnUpgrade, upgrade: FfiUpgrade, lease: Lease) {
    let cut = lease.reached(Phase::Cut);
    let upgrading = Upgrading { on_upgrade: Some(on_upgrade), upgrade, cut, _lease: lease };
    match wharf_kernel::workers::here() {
        Some(here) => (here.spawn_watched)(Box::pin(upgrading)),
        None => _ = tokio::spawn(upgrading),
    }
}

/// The order of the fields is that in which they go: the module's future, and with it the stream, before the lease. Dropping
/// them is a call into the module, and the lease says that the module is there.
struct Upgrading {
    /// `None` once it has come.
    on_upgrade: Option<OnUpgrade>,
    upgrade: FfiUpgrade,
    cut: Reached,
    _lease: Lease,
}

impl Future for Upgrading {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if Pin::new(&mut this.cut).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(on_upgrade) = &mut this.on_upgrade {
            match ready!(Pin::new(on_upgrade).poll(cx)) {
                Ok(upgraded) => {
                    this.on_upgrade = None;
                    if !this.upgrade.start(FfiStream::new(Stream(upgraded))) {
                        return Poll::Ready(());
                    }
                }
                Err(error) => {
                    tracing::debug!("the client left before its connection was upgraded: {error}");
                    return Poll::Ready(());
                }
            }
        }
        match this.upgrade.poll(cx) {
            UpgradeOutcome::Pending => Poll::Pending,
            UpgradeOutcome::Done | UpgradeOutcome::Panicked => Poll::Ready(()),
        }
    }
}

/// The socket, as the module reads and writes it, on whatever thread it does that.
///
/// It keeps wakers of the module: those of the last polls. They go when it goes: what lies below is a socket of tokio, which
/// drops its wakers when it is dropped, and a waker that is being called then is called by this worker, before the worker
/// does what unloading asks of it.
struct Stream(Upgraded);

impl Duplex for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
