//! What several containers share, in a table of a database: sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use tokio::sync::OnceCell;
use wharf_kernel::resource::{Rows, SharedStore, SqlError, SqlValue, Statement, Work};

use super::engine::Engine;
use super::{Source, run};
use crate::inward::Inward;

/// What has expired is deleted so often.
const SWEEP_MS: u64 = 60_000;

/// See the module.
pub(super) struct Shared<E: Engine>(Arc<Inner<E>>);

struct Inner<E: Engine> {
    source: Arc<Source<E>>,
    made: OnceCell<()>,
    swept: AtomicU64,
}

impl<E: Engine> Shared<E> {
    pub(super) fn new(source: Arc<Source<E>>) -> Self {
        Self(Arc::new(Inner { source, made: OnceCell::new(), swept: AtomicU64::new(0) }))
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as a value; 0 stands for never.
fn int(millis: u64) -> SqlValue {
    SqlValue::Int(i64::try_from(millis).unwrap_or(i64::MAX))
}

impl<E: Engine> Inner<E> {
    async fn run(&self, sql: &str, values: Vec<SqlValue>) -> Result<Rows, SqlError> {
        let mut conn = self.source.get().await?;
        let statement = Statement { sql: sql.to_owned(), sets: vec![values], timeout: None, request: String::new() };
        let mut pieces = run::rows(&mut conn, statement, &self.source, "sessions");
        let mut all = Rows::default();
        while let Some(piece) = pieces.next().await {
            all.values.extend(piece?.values);
        }
        Ok(all)
    }

    /// The table is there.
    async fn table(&self) -> Result<(), SqlError> {
        let types = match E::CALLED {
            "postgres" => ["text", "bytea"],
            "mysql" => ["varchar(200) character set ascii", "longblob"],
            _ => ["text", "blob"],
        };
        let sql = format!(
            "create table if not exists wharf_shared (k {} primary key, v {} not null, expires_ms bigint not null)",
            types[0], types[1]
        );
        self.made.get_or_try_init(async || self.run(&sql, Vec::new()).await.map(|_| ())).await.map(|_| ())
    }

    async fn save(&self, key: String, value: Vec<u8>, time: Option<Duration>) -> Result<(), SqlError> {
        self.table().await?;
        let now = now();
        let expires = time.map_or(0, |t| now.saturating_add(u64::try_from(t.as_millis()).unwrap_or(u64::MAX)).max(1));
        let or_replace = match E::CALLED {
            "mysql" => "on duplicate key update v = values(v), expires_ms = values(expires_ms)",
            _ => "on conflict (k) do update set v = excluded.v, expires_ms = excluded.expires_ms",
        };
        let sql = format!("insert into wharf_shared (k, v, expires_ms) values (?, ?, ?) {or_replace}");
        self.run(&sql, vec![SqlValue::Text(key), SqlValue::Bytes(value), int(expires)]).await?;
        let swept = self.swept.load(Ordering::Relaxed);
        if now.saturating_sub(swept) > SWEEP_MS
            && self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let sql = "delete from wharf_shared where expires_ms > 0 and expires_ms <= ?";
            self.run(sql, vec![int(now)]).await?;
        }
        Ok(())
    }

    async fn load(&self, key: String) -> Result<Option<Vec<u8>>, SqlError> {
        self.table().await?;
        let sql = "select v from wharf_shared where k = ? and (expires_ms = 0 or expires_ms > ?)";
        let rows = self.run(sql, vec![SqlValue::Text(key), int(now())]).await?;
        Ok(rows.values.into_iter().find_map(|value| match value {
            SqlValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }))
    }

    async fn remove(&self, key: String) -> Result<(), SqlError> {
        self.table().await?;
        self.run("delete from wharf_shared where k = ?", vec![SqlValue::Text(key)]).await.map(|_| ())
    }
}

impl<E: Engine> Shared<E> {
    fn work<T, F>(&self, work: impl FnOnce(Arc<Inner<E>>) -> F) -> Work<Result<T, String>>
    where
        T: 'static,
        F: Future<Output = Result<T, SqlError>> + Send + 'static,
    {
        let work = work(self.0.clone());
        Inward::boxed(self.0.source.runtime().clone(), async move { work.await.map_err(|error| error.to_string()) })
    }
}

impl<E: Engine> SharedStore for Shared<E> {
    fn load(&self, key: String) -> Work<Result<Option<Vec<u8>>, String>> {
        self.work(|inner| async move { inner.load(key).await })
    }

    fn save(&self, key: String, value: Vec<u8>, time: Option<Duration>) -> Work<Result<(), String>> {
        self.work(move |inner| async move { inner.save(key, value, time).await })
    }

    fn remove(&self, key: String) -> Work<Result<(), String>> {
        self.work(|inner| async move { inner.remove(key).await })
    }
}
