//! How often one address may ask several containers together: each counts for itself, and all of them add up in a cache of the
//! configuration, some times a second. So a request waits for nobody, and what comes between two sums is let through.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wharf_kernel::resource::{Cache, CacheOrder, CacheReply};
use wharf_kernel::settings;

/// The sums are made so often.
const EVERY: Duration = Duration::from_millis(100);
/// Addresses counted between two sums, at most: what comes beyond them is not counted here.
const MOST: usize = 100_000;

/// See the module. Its thread ends with it.
pub(super) struct SharedRate {
    counts: Arc<Counts>,
    _stop: Sender<()>,
}

#[derive(Default)]
struct Counts {
    since: Mutex<HashMap<IpAddr, u64>>,
    /// Until when an address is refused.
    refused: RwLock<HashMap<IpAddr, Instant>>,
}

impl SharedRate {
    pub(super) fn start(settings: &settings::Rate, cache: Arc<dyn Cache>) -> Result<Self, String> {
        let counts = Arc::<Counts>::default();
        let (stop, stopped) = mpsc::channel::<()>();
        let (limit, per) =
            (u64::from(settings.burst.unwrap_or(settings.requests).max(settings.requests)), settings.per);
        let shared = counts.clone();
        let run = move || {
            let mut lost = false;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                let trouble = shared.add_up(&*cache, limit, per).err();
                if trouble.is_some() != lost {
                    lost = trouble.is_some();
                    match trouble {
                        Some(what) => tracing::error!("protect.rate is not shared: {what}"),
                        None => tracing::info!("protect.rate is shared again"),
                    }
                }
            }
        };
        std::thread::Builder::new().name("wharf-rate".into()).spawn(run).map_err(|e| e.to_string())?;
        Ok(Self { counts, _stop: stop })
    }

    /// Counts a request; where all containers together have had too many, after how many seconds to come again.
    pub(super) fn check(&self, address: IpAddr) -> Option<u64> {
        let refused = self.counts.refused.read().unwrap_or_else(PoisonError::into_inner).get(&address).copied();
        if let Some(left) = refused.and_then(|until| until.checked_duration_since(Instant::now())) {
            return Some(left.as_secs() + 1);
        }
        let mut since = self.counts.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.len() < MOST || since.contains_key(&address) {
            *since.entry(address).or_default() += 1;
        }
        None
    }
}

impl Counts {
    /// Adds what has come here to what has come elsewhere, within the present window of time. Blocks.
    fn add_up(&self, cache: &dyn Cache, limit: u64, per: Duration) -> Result<(), String> {
        let since = std::mem::take(&mut *self.since.lock().unwrap_or_else(PoisonError::into_inner));
        if since.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now, per_ms) = (now.as_millis(), per.as_millis().max(1));
        let window = now / per_ms;
        let left = Duration::from_millis(u64::try_from((window + 1) * per_ms - now).unwrap_or(0));
        let mut over = Vec::new();
        for (address, count) in since {
            let key = format!("wharf:rate:{window}:{address}");
            let order = CacheOrder::Increment(key, i64::try_from(count).unwrap_or(i64::MAX), Some(per * 2));
            if let CacheReply::Number(sum) = pollster::block_on(cache.order(order))?
                && u64::try_from(sum).unwrap_or(0) >= limit
            {
                over.push(address);
            }
        }
        let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        refused.retain(|_, until| *until > at);
        refused.extend(over.into_iter().map(|address| (address, at + left)));
        Ok(())
    }
}
