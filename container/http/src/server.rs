//! The threads of the server: one that accepts, and the workers that serve and live until the process ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use wharf_kernel::workers::Workers;

use crate::acceptor::{self, Accepting, Listener, Peers, Seat};
use crate::worker::{self, Command, Shared};
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
    workers: Vec<JoinHandle<()>>,
}

/// The workers as the rest of the container sees them.
struct Pool {
    names: Vec<String>,
    seats: Mutex<Arc<[Seat]>>,
}

impl Pool {
    fn seats(&self) -> Arc<[Seat]> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Workers for Pool {
    fn on_each(&self, task: Arc<dyn Fn() + Send + Sync>, done: Arc<dyn Fn(&str) + Send + Sync>) {
        for ((_, sender), name) in self.seats().iter().zip(&self.names) {
            let (task, done, name) = (task.clone(), done.clone(), name.clone());
            let _ = sender.send(Command::Run(Box::new(move || {
                task();
                done(&name);
            })));
        }
    }

    fn count(&self) -> usize {
        self.names.len()
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
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
        let (mut seats, mut names, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..config.workers.max(1) {
            let name = format!("wharf-worker-{index}");
            let (sender, receiver) = mpsc::unbounded_channel();
            let shared = Arc::new(Shared::new(index, pipeline.clone()));
            seats.push((shared.clone(), sender));
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
            let body = move || runtime.block_on(worker::run(shared, receiver));
            workers.push(std::thread::Builder::new().name(name.clone()).spawn(body)?);
            names.push(name);
        }
        let seats: Arc<[Seat]> = seats.into();
        let (accepting, state) = watch::channel(Accepting::NotYet);
        let body = {
            let (seats, limits) = (seats.clone(), config.limits.clone());
            move || accept_all(&runtime, listeners, &seats, &limits, &pipeline, &state)
        };
        let acceptor = std::thread::Builder::new().name("wharf-acceptor".to_owned()).spawn(body)?;
        Ok(Self {
            bound,
            pool: Arc::new(Pool { names, seats: Mutex::new(seats) }),
            accepting,
            acceptor: Mutex::new(Some(acceptor)),
            workers,
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
            .filter_map(|(_, sender)| {
                let (done, waiting) = oneshot::channel();
                sender.send(Command::Drain(time, done)).ok().map(|()| waiting)
            })
            .collect();
        waiting.into_iter().filter_map(|waiting| waiting.blocking_recv().ok()).sum()
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
        // Without senders the workers' loops end.
        *self.pool.seats.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(Vec::new());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn accept_all(
    runtime: &Runtime,
    listeners: Vec<Listener>,
    seats: &Arc<[Seat]>,
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
                tokio::spawn(acceptor::run(listener, seats.clone(), permits.clone(), peers.clone(), counters, state))
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    });
}
