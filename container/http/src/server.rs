//! The threads of the server: one that accepts, and the workers that serve and live until the process ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot, watch};
use wharf_kernel::launch::Launcher;
use wharf_kernel::workers::Workers;

use crate::acceptor::{self, Accepting, Listener, Peers};
use crate::own_threads::WithOwnThreads;
use crate::pool::Pool;
use crate::watchdog::{self, Watches};
use crate::worker::Command;
use crate::{Limits, Pipeline, ServerConfig};

/// An address that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// A TCP address with its real port.
    Tcp(SocketAddr),
    /// The same, with TLS.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    /// As in the line a starting container prints: `http://127.0.0.1:8080`, `unix:/run/wharf.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "http://{addr}"),
            Self::Tls(addr) => write!(f, "https://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A running server. It is stopped in two steps, since applications are unloaded between them: [`Server::drain`] ends the
/// connections, [`Server::stop`] (or dropping it) ends the threads.
pub struct Server {
    bound: Vec<Bound>,
    pool: Arc<Pool>,
    accepting: watch::Sender<Accepting>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    watchdog: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    watches: Watches,
}

/// Opening a listener, which decides whether a container can run at all, with what was being opened.
fn naming(error: &io::Error, listen: &crate::Listen) -> io::Error {
    let what = match listen {
        crate::Listen::Tcp(addr) | crate::Listen::Tls(addr) => addr.to_string(),
        crate::Listen::Unix(path) => path.display().to_string(),
    };
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program uses it: stop that one or choose another port",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 or a folder that can be written",
        _ => "",
    };
    io::Error::new(error.kind(), format!("can't listen on {what}: {error}{advice}"))
}

impl Server {
    /// Opens the listeners and starts the threads. Connections are taken from [`Server::accept`] on; until then the kernel
    /// lets them wait, so that a client that comes while the applications start gets an answer and not an error.
    ///
    /// # Errors
    /// A listener that can't be opened, named, or a thread or runtime that can't be started.
    pub fn start(config: &ServerConfig, pipeline: Arc<Pipeline>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (mut listeners, mut bound) = (Vec::new(), Vec::new());
        {
            let _context = runtime.enter();
            for listen in &config.listen {
                let proxy_protocol = config.proxy_protocol.contains(listen);
                let listener = Listener::bind(listen, proxy_protocol, config.tls.as_ref());
                let listener = listener.map_err(|e| naming(&e, listen))?;
                bound.push(listener.bound()?);
                listeners.push(listener);
            }
        }
        let watches = Watches::default();
        let pool = Arc::new(Pool::start(config.workers.max(1), pipeline.clone(), watches.clone())?);
        let (accepting, state) = watch::channel(Accepting::NotYet);
        let body = {
            let (pool, pipeline, limits) = (pool.clone(), pipeline.clone(), config.limits.clone());
            move || accept_all(&runtime, listeners, &pool, &limits, &pipeline, &state)
        };
        let acceptor = std::thread::Builder::new().name("wharf-acceptor".to_owned()).spawn(body)?;
        let (end, ended) = mpsc::channel();
        let body = {
            let (pool, watches) = (pool.clone(), watches.clone());
            move || watchdog::run(&watches, &pipeline.routes, || pool.relieve(), &ended)
        };
        let watchdog = std::thread::Builder::new().name("wharf-watchdog".to_owned()).spawn(body)?;
        Ok(Self {
            bound,
            pool,
            accepting,
            acceptor: Mutex::new(Some(acceptor)),
            watchdog: Some((end, watchdog)),
            watches,
        })
    }

    /// Takes the connections that wait, and those that come.
    pub fn accept(&self) {
        self.accepting.send_if_modified(|state| {
            let first = *state == Accepting::NotYet;
            if first {
                *state = Accepting::Now;
            }
            first
        });
    }

    /// Where it listens, in the order of the configuration.
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// The workers, for whoever must run something on each of them.
    pub fn workers(&self) -> Arc<dyn Workers> {
        self.pool.clone()
    }

    /// A launcher like this one, whose applications can be polled on threads of their own.
    pub fn with_own_threads(&self, launcher: Arc<dyn Launcher>) -> Arc<dyn Launcher> {
        Arc::new(WithOwnThreads::new(launcher, self.watches.clone()))
    }

    /// Stops accepting, lets every connection finish the request it is at, and cuts what is left after `time`. Returns
    /// how many connections were cut. Blocks; the workers live on. Calling it again with a shorter time cuts sooner.
    pub fn drain(&self, time: Duration) -> usize {
        self.accepting.send_replace(Accepting::NoMore);
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            let _ = acceptor.join();
        }
        let seats = self.pool.seats();
        let waiting: Vec<_> = seats
            .iter()
            .filter_map(|(shared, sender)| {
                let open = shared.open.load(Ordering::Acquire);
                let (done, waiting) = oneshot::channel();
                sender.send(Command::Drain(time, done)).ok().map(|()| (waiting, open))
            })
            .collect();
        // A worker that is stuck in an application does not answer; its connections are cut by the end of the process.
        let end = Instant::now() + time + Duration::from_secs(1);
        let mut cut = 0;
        for (mut waiting, open) in waiting {
            loop {
                match waiting.try_recv() {
                    Ok(n) => cut += n,
                    Err(oneshot::error::TryRecvError::Empty) if Instant::now() < end => {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    Err(oneshot::error::TryRecvError::Empty) => cut += open,
                    Err(oneshot::error::TryRecvError::Closed) => {}
                }
                break;
            }
        }
        cut
    }

    /// Ends the threads; connections that are still open are cut.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.send_replace(Accepting::NoMore);
        if let Some(acceptor) = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = acceptor.join();
        }
        if let Some((end, watchdog)) = self.watchdog.take() {
            drop(end);
            let _ = watchdog.join();
        }
        self.pool.end();
    }
}

fn accept_all(
    runtime: &Runtime,
    listeners: Vec<Listener>,
    pool: &Arc<Pool>,
    limits: &Limits,
    pipeline: &Pipeline,
    state: &watch::Receiver<Accepting>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let peers = limits.connections_per_address.map(Peers::new);
    runtime.block_on(async {
        let tasks: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                let (counters, state) = (pipeline.counters.clone(), state.clone());
                tokio::spawn(acceptor::run(listener, pool.clone(), permits.clone(), peers.clone(), counters, state))
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    });
}
