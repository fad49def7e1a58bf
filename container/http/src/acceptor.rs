//! Accepts connections and hands each to the worker that has the fewest.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use wharf_kernel::ServerCounters;

use crate::Listen;
use crate::pool::Pool;
use crate::server::Bound;
use crate::worker::{Command, Shared, Socket};

/// An open listener.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens it. Needs a runtime's context.
    pub(crate) fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(*addr)?;
                Ok(Self::Tcp(socket.listen(1024)?))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }

    pub(crate) fn bound(&self) -> io::Result<Bound> {
        Ok(match self {
            Self::Tcp(listener) => Bound::Tcp(listener.local_addr()?),
            Self::Unix(_, path) => Bound::Unix(path.clone()),
        })
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it a small response can wait for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream.into_std()?))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket file that a process left behind; one that somebody listens on, or another kind of file, stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// One worker, seen from here.
pub(crate) type Seat = (Arc<Shared>, mpsc::UnboundedSender<Command>);

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepting {
    NotYet,
    Now,
    NoMore,
}

/// Accepts while `state` says so. At the limit of connections it waits for one to go; an error that lasts (no file
/// descriptors left) is waited out, not spun on.
pub(crate) async fn run(
    listener: Listener,
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
    counters: Arc<ServerCounters>,
    mut state: watch::Receiver<Accepting>,
) {
    let _ = state.wait_for(|state| *state != Accepting::NotYet).await;
    let mut pause = Duration::from_millis(10);
    let accept = async {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(socket) => {
                    pause = Duration::from_millis(10);
                    counters.connection_opened();
                    if !pool.seat(socket, permit) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    counters.accept_failed();
                    tracing::warn!("can't accept a connection: {error}; trying again in {} ms", pause.as_millis());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    };
    let stopped = state.wait_for(|state| *state == Accepting::NoMore);
    let (mut accept, mut stopped) = (std::pin::pin!(accept), std::pin::pin!(stopped));
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        accept.as_mut().poll(cx)
    })
    .await;
}
