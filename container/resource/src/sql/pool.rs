//! The connections of a data source: made when they are needed, kept, looked after, and never more than so many.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bb8::{ErrorSink, ManageConnection, PooledConnection, QueueStrategy, RunError};
use sqlx::Connection;
use tokio::runtime::Handle;
use wharf_kernel::resource::{SqlError, SqlErrorKind};
use wharf_kernel::settings::Resource;

use super::engine::{self, Engine};
use super::stats::Stats;

/// A connection that was used a moment ago is not asked for a sign of life again.
const FRESH: Duration = Duration::from_secs(3);

/// What all connections of a data source have in common.
pub(super) struct Shared<E: Engine> {
    pub(super) options: E::Options,
    pub(super) settings: Resource,
    pub(super) runtime: Handle,
    pub(super) stats: Stats,
    /// Counts the times that the database went away: connections of before are looked at, however fresh.
    epoch: AtomicU64,
    /// Why the last attempt to connect failed; empty since one succeeded.
    trouble: Mutex<String>,
}

impl<E: Engine> Shared<E> {
    /// The database went away.
    pub(super) fn lost(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Why no connection can be made at present; empty when the last attempt succeeded.
    pub(super) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// A connection.
pub(super) struct Conn<E: Engine> {
    pub(super) inner: E::Connection,
    /// Set while it works. Left set, the work was given up: the connection is closed and the work stopped.
    pub(super) busy: bool,
    used: Instant,
    epoch: u64,
    cancel: E::Cancel,
    shared: Arc<Shared<E>>,
}

impl<E: Engine> Conn<E> {
    pub(super) fn shared(&self) -> &Shared<E> {
        &self.shared
    }

    /// The work has come to its end.
    pub(super) fn rest(&mut self) {
        self.busy = false;
        self.used = Instant::now();
    }
}

impl<E: Engine> Drop for Conn<E> {
    fn drop(&mut self) {
        if self.busy {
            let cancel = E::cancel(&self.shared.options, &self.cancel);
            self.shared.runtime.spawn(cancel);
        }
    }
}

/// Makes connections and says which are good.
pub(super) struct Manager<E: Engine>(Arc<Shared<E>>);

impl<E: Engine> ManageConnection for Manager<E> {
    type Connection = Conn<E>;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<Conn<E>, sqlx::Error> {
        let epoch = self.0.epoch.load(Ordering::Relaxed);
        let (inner, cancel) = match E::connect(&self.0.options, &self.0.settings).await {
            Ok(made) => made,
            Err(error) => {
                self.0.set_trouble(error.to_string());
                return Err(error);
            }
        };
        self.0.set_trouble(String::new());
        Ok(Conn { inner, busy: false, used: Instant::now(), epoch, cancel, shared: self.0.clone() })
    }

    async fn is_valid(&self, conn: &mut Conn<E>) -> Result<(), sqlx::Error> {
        let epoch = self.0.epoch.load(Ordering::Relaxed);
        if !self.0.settings.validate || (conn.epoch == epoch && conn.used.elapsed() < FRESH) {
            return Ok(());
        }
        conn.busy = true;
        let alive = conn.inner.ping().await;
        // One that does not answer is closed; there is nothing to stop in it.
        match &alive {
            Ok(()) => {
                conn.rest();
                conn.epoch = epoch;
            }
            Err(_) => self.0.lost(),
        }
        alive
    }

    fn has_broken(&self, conn: &mut Conn<E>) -> bool {
        conn.busy
    }
}

/// Hears of failed attempts, which the pool repeats within the wait limit.
struct Log {
    name: Arc<str>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl ErrorSink<sqlx::Error> for Log {
    fn sink(&self, error: sqlx::Error) {
        tracing::debug!(resource = %self.name, "a connection failed: {error}");
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<sqlx::Error>> {
        Box::new(Self { name: self.name.clone() })
    }
}

/// A connection that was handed out, and goes back by itself.
pub(super) type Pooled<E> = PooledConnection<'static, Manager<E>>;

/// The pool of a data source.
pub(super) struct Pool<E: Engine> {
    pub(super) shared: Arc<Shared<E>>,
    pool: bb8::Pool<Manager<E>>,
}

impl<E: Engine> Pool<E> {
    /// A pool that has no connection yet. `max` and the ages are the settings' unless a database can't take them.
    pub(super) fn new(
        name: &Arc<str>,
        settings: &Resource,
        alone: bool,
        runtime: &Handle,
    ) -> Result<Self, sqlx::Error> {
        let shared = Arc::new(Shared {
            options: E::options(settings)?,
            settings: settings.clone(),
            runtime: runtime.clone(),
            stats: Stats::default(),
            epoch: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero() && !alone);
        let _inside = runtime.enter();
        let pool = bb8::Pool::builder()
            .max_size(if alone { 1 } else { settings.max })
            .min_idle(Some(settings.min_idle).filter(|n| *n > 0))
            .test_on_check_out(true)
            .max_lifetime(some(settings.max_age))
            .idle_timeout(some(settings.idle))
            .connection_timeout(settings.wait)
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(Log { name: name.clone() }))
            .build_unchecked(Manager(shared.clone()));
        Ok(Self { shared, pool })
    }

    /// A connection, within the wait limit.
    pub(super) async fn get(&self) -> Result<Pooled<E>, SqlError> {
        let waiting = self.shared.stats.wait();
        let got = self.pool.get_owned().await;
        drop(waiting);
        got.inspect(|_| _ = self.shared.stats.acquired.fetch_add(1, Ordering::Relaxed)).map_err(|error| match error {
            RunError::User(error) => engine::error::<E>(&error),
            RunError::TimedOut => self.timed_out(),
        })
    }

    fn timed_out(&self) -> SqlError {
        let trouble = self.shared.trouble();
        let wait = self.shared.settings.wait;
        if !trouble.is_empty() {
            let what = format!("no connection within {wait:?}: {trouble}");
            return SqlError::new(SqlErrorKind::Connection, what);
        }
        let (open, idle) = self.open();
        let what = format!(
            "no connection became free within {wait:?}: {} of {} are in use",
            open - idle.min(open),
            self.max()
        );
        SqlError::new(SqlErrorKind::WaitLimit, what)
    }

    /// Open connections, and how many of them are idle.
    pub(super) fn open(&self) -> (u64, u64) {
        let state = self.pool.state();
        (state.connections.into(), state.idle_connections.into())
    }

    /// The most there may be.
    pub(super) fn max(&self) -> u64 {
        self.pool.config().max_size.into()
    }
}
