//! Data sources: databases through pools that outlive every generation of every application.

mod engine;
mod marks;
mod mysql;
mod numeric;
mod pool;
mod postgres;
mod run;
mod shared;
mod sqlite;
mod stats;
mod temporal;
mod transaction;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_stream::stream;
use futures_util::StreamExt;
use sqlx::migrate::{Migrate, MigrateError, Migration as Step, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, MySql, Postgres, SqlSafeStr, Sqlite};
use tokio::runtime::Handle;
use wharf_kernel::resource::{
    DataSource, Isolation, Migration, Pieces, ResourceFigures, ResourceState, SharedStore, SqlError, SqlErrorKind,
    Statement, Transaction, Work,
};
use wharf_kernel::settings::{Resource, ResourceKind, ResourceStart, hide_password};

use crate::any::AnyResource;
use crate::bound::Who;
use crate::health::Health;
use crate::inward::Inward;
use engine::Engine;
use pool::{Pool, Pooled};
use run::Inside;

/// Makes the source that `settings`, with their secrets put in, describe.
///
/// # Errors
/// What of them can't be understood, without any secret.
pub(crate) fn source(
    name: &str,
    shown: &str,
    settings: &Resource,
    runtime: &Handle,
) -> Result<Arc<dyn AnyResource>, String> {
    let scheme = settings.url.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" => Ok(Source::<Sqlite>::new(name, shown, settings, runtime)?),
        "postgres" | "postgresql" => Ok(Source::<Postgres>::new(name, shown, settings, runtime)?),
        "mysql" | "mariadb" => Ok(Source::<MySql>::new(name, shown, settings, runtime)?),
        _ => Err("url must begin with sqlite:, postgres:// or mysql://".into()),
    }
}

/// A database and its pool.
struct Source<E: Engine> {
    name: Arc<str>,
    place: String,
    pool: Pool<E>,
    health: Health,
}

impl<E: Engine> Source<E> {
    fn new(name: &str, shown: &str, settings: &Resource, runtime: &Handle) -> Result<Arc<Self>, String> {
        let name: Arc<str> = name.into();
        let alone = E::CALLED == "sqlite" && sqlite::in_memory(&settings.url);
        // The error may hold the URL, and with it a password.
        let pool = Pool::new(&name, settings, alone, runtime)
            .map_err(|_| format!("url '{}' can't be understood", hide_password(shown)))?;
        Ok(Arc::new(Self { name, place: hide_password(shown), pool, health: Health::default() }))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn runtime(&self) -> &Handle {
        &self.pool.shared.runtime
    }

    fn settings(&self) -> &Resource {
        &self.pool.shared.settings
    }

    fn left_open(&self) {
        self.pool.shared.stats.left_open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error.
    fn note(&self, error: SqlError) -> SqlError {
        self.pool.shared.stats.failed(&error);
        error
    }

    async fn get(&self) -> Result<Pooled<E>, SqlError> {
        self.pool.get().await.map_err(|error| self.note(error))
    }

    /// Whether it answers.
    async fn look(&self) -> Result<(), String> {
        let limit = self.settings().wait * 2;
        let seen = async {
            let mut conn = self.pool.get().await?;
            conn.busy = true;
            match conn.inner.ping().await {
                Ok(()) => {
                    conn.rest();
                    Ok(())
                }
                Err(error) => {
                    self.pool.shared.lost();
                    Err(engine::error::<E>(&error))
                }
            }
        };
        match tokio::time::timeout(limit, seen).await {
            Ok(Ok(())) => Ok(()),
            // All connections at work is no illness.
            Ok(Err(error)) if error.kind == SqlErrorKind::WaitLimit && self.health.down().is_empty() => Ok(()),
            Ok(Err(error)) => Err(error.message),
            Err(_) => {
                self.pool.shared.lost();
                Err(format!("no sign of life within {limit:?}"))
            }
        }
    }

    /// A statement has taken so long.
    fn took(&self, time: Duration, app: &str, request: &str, sql: &str) {
        self.pool.shared.stats.statement(time);
        let limit = self.settings().slow_statement;
        if limit.is_zero() || time < limit {
            return;
        }
        self.pool.shared.stats.slow.fetch_add(1, Ordering::Relaxed);
        let request = Some(request).filter(|id| !id.is_empty());
        let sql: String = sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect();
        tracing::warn!(app, request, resource = %self.name, "slow statement, {time:.1?}: {sql}");
    }
}

impl<E: Engine> AnyResource for Source<E>
where
    E::Connection: Migrate,
{
    fn state(&self) -> ResourceState {
        let stats = &self.pool.shared.stats;
        let (open, idle) = self.pool.open();
        let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        ResourceState {
            name: self.name.to_string(),
            kind: ResourceKind::Sql,
            engine: E::CALLED.into(),
            place: self.place.clone(),
            down: self.health.down(),
            optional: self.settings().start == ResourceStart::Degraded,
            figures: ResourceFigures {
                in_use: open.saturating_sub(idle),
                idle,
                max: self.pool.max(),
                waiting: count(&stats.waiting),
                acquired: count(&stats.acquired),
                wait_seconds: stats.wait_seconds(),
                statements: count(&stats.statements),
                statement_seconds: stats.statement_seconds(),
                slow: count(&stats.slow),
                errors: stats.errors().map(|(kind, n)| (kind.name().to_owned(), n)).collect(),
                left_open: count(&stats.left_open),
            },
        }
    }

    fn ask(self: Arc<Self>) -> Work<Result<(), String>> {
        Box::pin(async move { self.health.keep(self.look().await) })
    }

    fn data_source(self: Arc<Self>, who: Arc<Who>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(Bound { source: self, who }))
    }

    fn shared_store(self: Arc<Self>) -> Option<Arc<dyn SharedStore>> {
        Some(Arc::new(shared::Shared::new(self)))
    }
}

/// A source in the hands of one generation of an application.
struct Bound<E: Engine> {
    source: Arc<Source<E>>,
    who: Arc<Who>,
}

impl<E: Engine> DataSource for Bound<E>
where
    E::Connection: Migrate,
{
    fn engine(&self) -> &'static str {
        E::CALLED
    }

    fn query(&self, statement: Statement) -> Box<dyn Pieces> {
        let (source, who) = (self.source.clone(), self.who.clone());
        let runtime = source.runtime().clone();
        let rows = stream! {
            let mut conn = match source.get().await {
                Ok(conn) => conn,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            let batch = statement.sets.len() > 1;
            if batch {
                for command in E::begin(Isolation::Default) {
                    if let Err(error) = run::command(&mut conn, command).await {
                        yield Err(source.note(error));
                        return;
                    }
                }
            }
            let mut last = None;
            {
                let mut rows = run::rows(&mut conn, statement, &source, &who.app);
                while let Some(piece) = rows.next().await {
                    match piece {
                        Ok(piece) if piece.done.is_none() => yield Ok(piece),
                        end => last = Some(end),
                    }
                }
            }
            if batch && !conn.busy {
                let end = if matches!(last, Some(Ok(_))) { "commit" } else { "rollback" };
                if let Err(error) = run::command(&mut conn, end).await {
                    last = Some(Err(source.note(error)));
                }
            }
            // Before the last word, so that whoever hears it finds the connection free.
            drop(conn);
            if let Some(end) = last {
                yield end;
            }
        };
        Inside::boxed(Box::pin(rows), runtime)
    }

    fn begin(
        &self,
        isolation: Isolation,
        request: String,
        place: String,
    ) -> Work<Result<Arc<dyn Transaction>, SqlError>> {
        transaction::begin(self.source.clone(), self.who.clone(), isolation, request, place)
    }

    fn migrate(&self, migrations: Vec<Migration>) -> Work<Result<u64, SqlError>> {
        let source = self.source.clone();
        let runtime = source.runtime().clone();
        let app = self.who.app.clone();
        Inward::boxed(runtime, async move {
            let steps = migrations.into_iter().map(|m| {
                let sql = AssertSqlSafe(m.sql).into_sql_str();
                Step::new(m.version, Cow::Owned(m.description), MigrationType::Simple, sql, false)
            });
            let mut migrator = Migrator::with_migrations(steps.collect());
            // An older version of the application may come back to a newer schema.
            migrator.set_ignore_missing(true);
            let mut conn = source.get().await?;
            conn.busy = true;
            let before = applied(&mut conn).await;
            migrator
                .run_direct(None, &mut conn.inner, false)
                .await
                .map_err(|error| source.note(migration_error::<E>(&error)))?;
            let after = applied(&mut conn).await;
            conn.rest();
            let done = after.saturating_sub(before);
            if done > 0 {
                tracing::info!(app, resource = %source.name, "{done} migrations applied");
            }
            Ok(done)
        })
    }
}

/// How many steps of its history the schema has.
async fn applied<E: Engine>(conn: &mut Pooled<E>) -> u64
where
    E::Connection: Migrate,
{
    conn.inner.list_applied_migrations("_sqlx_migrations").await.map_or(0, |list| list.len() as u64)
}

fn migration_error<E: Engine>(error: &MigrateError) -> SqlError {
    let (kind, what) = match error {
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => {
            let ours = engine::error::<E>(inner);
            (ours.kind, error.to_string())
        }
        MigrateError::VersionMismatch(version) => {
            let what = format!("migration {version} was changed after it was applied: add a new one instead");
            (SqlErrorKind::Other, what)
        }
        _ => (SqlErrorKind::Other, error.to_string()),
    };
    SqlError::new(kind, what)
}
