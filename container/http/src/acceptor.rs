//! Accepts connections and hands each to the worker that has the fewest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use wharf_kernel::ServerCounters;

use crate::Listen;
use crate::connection::Socket;
use crate::pool::Pool;
use crate::server::Bound;
use crate::tls::Tls;
use crate::worker::{Command, Shared, Waiting};

/// An open listener.
pub(crate) enum Listener {
    /// With true where connections begin with a PROXY protocol header.
    Tcp(TcpListener, bool),
    Tls(TcpListener, bool, Arc<Tls>),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens it. Needs a runtime's context.
    pub(crate) fn bind(listen: &Listen, proxy_protocol: bool, tls: Option<&Arc<Tls>>) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => Ok(Self::Tcp(tcp(*addr)?, proxy_protocol)),
            Listen::Tls(addr) => {
                let tls = tls.ok_or_else(|| io::Error::other("no certificate is configured"))?;
                Ok(Self::Tls(tcp(*addr)?, proxy_protocol, tls.clone()))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }

    pub(crate) fn bound(&self) -> io::Result<Bound> {
        Ok(match self {
            Self::Tcp(listener, _) => Bound::Tcp(listener.local_addr()?),
            Self::Tls(listener, ..) => Bound::Tls(listener.local_addr()?),
            Self::Unix(_, path) => Bound::Unix(path.clone()),
        })
    }

    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        let (listener, proxy_protocol, tls) = match self {
            Self::Tcp(listener, proxy_protocol) => (listener, *proxy_protocol, None),
            Self::Tls(listener, proxy_protocol, tls) => (listener, *proxy_protocol, Some(tls.clone())),
            Self::Unix(listener, _) => return Ok((Socket::Unix(listener.accept().await?.0.into_std()?), None)),
        };
        let (stream, peer) = listener.accept().await?;
        // Without it a small response can wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        Ok((Socket::Tcp { stream: stream.into_std()?, proxy_protocol, tls }, Some(peer.ip())))
    }
}

fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(1024)
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

/// What a connection holds while it is open.
pub(crate) struct Pass {
    _permit: OwnedSemaphorePermit,
    _peer: Option<Peer>,
}

/// How many connections each address has.
#[derive(Debug)]
pub(crate) struct Peers {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    /// At most so many each.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// One more for this address, unless it has as many as it may.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        (*count < self.limit).then(|| {
            *count += 1;
            Peer { address, peers: self.clone() }
        })
    }
}

/// One connection of an address.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    peers: Arc<Peers>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Ends the connections that have been idle longest, or that have said nothing for a while, so that new ones can be served. Which of
/// those that began to be idle within one tick of the sweep is not said. A few at once, since looking for them takes a walk over all.
fn reap_idle(workers: &[Seat]) {
    let mut idle: Vec<_> = workers.iter().flat_map(|(shared, _)| shared.idle()).collect();
    idle.sort_unstable_by_key(|(since, ..)| *since);
    let few = idle.len() / 64 + 1;
    for (_, slot, waker) in idle.into_iter().take(few) {
        slot.reap();
        waker.wake();
    }
}

/// How long one waits at the limit before the connections are looked through again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// One worker, seen from here.
pub(crate) type Seat = (Arc<Shared>, mpsc::UnboundedSender<Command>);

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepting {
    NotYet,
    Now,
    NoMore,
}

/// Accepts while `state` says so. At the limit of connections it ends idle ones and waits for one to go; an error that lasts (no file
/// descriptors left) is waited out, not spun on.
pub(crate) async fn run(
    listener: Listener,
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
    peers: Option<Arc<Peers>>,
    counters: Arc<ServerCounters>,
    mut state: watch::Receiver<Accepting>,
) {
    let _ = state.wait_for(|state| *state != Accepting::NotYet).await;
    let mut pause = Duration::from_millis(10);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    pause = Duration::from_millis(10);
                    let permit = match permits.clone().try_acquire_owned() {
                        Ok(permit) => permit,
                        Err(_) => loop {
                            reap_idle(&pool.seats());
                            let freed = permits.clone().acquire_owned();
                            match tokio::time::timeout(LOOK_AGAIN, freed).await {
                                Ok(Ok(permit)) => break permit,
                                Ok(Err(_)) => return,
                                Err(_) => {}
                            }
                        },
                    };
                    let peer = match (&peers, address) {
                        (Some(peers), Some(address)) => match peers.enter(address) {
                            Some(peer) => Some(peer),
                            None => {
                                tracing::info!(%address, "a connection is refused: the address has as many as it may");
                                continue;
                            }
                        },
                        _ => None,
                    };
                    counters.connection_opened();
                    if !pool.seat(Waiting::New(socket, Pass { _permit: permit, _peer: peer })) {
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
