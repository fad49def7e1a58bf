//! Caches: values by keys, with a time to live, and messages.

mod memory;
mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wharf_kernel::resource::{ResourceFigures, ResourceState};
use wharf_kernel::settings::{Resource, ResourceKind, ResourceStart, hide_password};

use crate::any::AnyResource;
use crate::health::Health;

/// Makes the cache that `settings`, with their secrets put in, describe.
///
/// # Errors
/// What of them can't be understood, without any secret.
pub(crate) fn cache(
    name: &str,
    shown: &str,
    settings: &Resource,
    runtime: &Handle,
) -> Result<Arc<dyn AnyResource>, String> {
    let common = Common {
        name: name.to_owned(),
        place: hide_password(shown),
        optional: settings.start == ResourceStart::Degraded,
        ..Common::default()
    };
    if settings.url.starts_with("memory:") {
        return Ok(Arc::new(memory::Memory::new(common, settings.max_bytes)));
    }
    Ok(Arc::new(redis::Redis::new(common, settings, runtime)?))
}

/// What every cache has.
#[derive(Default)]
struct Common {
    name: String,
    place: String,
    optional: bool,
    health: Health,
    orders: AtomicU64,
    nanos: AtomicU64,
    errors: AtomicU64,
}

impl Common {
    fn state(&self, engine: &str) -> ResourceState {
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let errors = Some(count(&self.errors)).filter(|n| *n > 0).map(|n| ("connection".to_owned(), n));
        ResourceState {
            name: self.name.clone(),
            kind: ResourceKind::Cache,
            engine: engine.to_owned(),
            place: self.place.clone(),
            down: self.health.down(),
            optional: self.optional,
            figures: ResourceFigures {
                statements: count(&self.orders),
                statement_seconds: Duration::from_nanos(count(&self.nanos)).as_secs_f64(),
                errors: errors.into_iter().collect(),
                ..ResourceFigures::default()
            },
        }
    }

    fn count<T>(&self, since: Instant, result: &Result<T, String>) {
        self.orders.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.errors.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
    }
}

/// A number as it is kept: text, as Redis has it.
fn number(value: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| "the value is not an integer".to_owned())
}
