//! A cache in the memory of the container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_stream::stream;
use bytes::Bytes;
use moka::Expiry;
use moka::future::Cache as Moka;
use moka::ops::compute::{CompResult, Op};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use wharf_kernel::resource::{Cache, CacheOrder, CacheReply, Chunks, ResourceState, Work};

use super::{Common, number};
use crate::any::AnyResource;
use crate::streamed::Streamed;

/// What an entry costs beside its bytes, about.
const OVERHEAD: usize = 64;
/// A subscriber that is so many messages behind loses the oldest.
const BEHIND: usize = 1024;

#[derive(Clone)]
struct Entry {
    value: Arc<[u8]>,
    /// How long it lives from now on; `None` leaves what was.
    ttl: Option<Life>,
}

#[derive(Clone, Copy)]
struct Life(Option<Duration>);

/// Each entry has its own time to live.
struct PerEntry;

impl Expiry<String, Entry> for PerEntry {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        entry.ttl.and_then(|life| life.0)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        current: Option<Duration>,
    ) -> Option<Duration> {
        entry.ttl.map_or(current, |life| life.0)
    }
}

#[derive(Default)]
struct Channels(Mutex<HashMap<String, broadcast::Sender<Vec<u8>>>>);

impl Channels {
    fn subscribe(&self, channel: String) -> broadcast::Receiver<Vec<u8>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, sender| sender.receiver_count() > 0);
        all.entry(channel).or_insert_with(|| broadcast::Sender::new(BEHIND)).subscribe()
    }

    fn publish(&self, channel: &str, message: Vec<u8>) -> i64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = all.get(channel).and_then(|sender| sender.send(message).ok());
        heard.and_then(|n| i64::try_from(n).ok()).unwrap_or(0)
    }
}

/// See the module.
pub(super) struct Memory(Arc<Inner>);

struct Inner {
    common: Common,
    entries: Moka<String, Entry>,
    channels: Channels,
}

impl Memory {
    pub(super) fn new(common: Common, max_bytes: u64) -> Self {
        let size =
            |key: &String, entry: &Entry| u32::try_from(key.len() + entry.value.len() + OVERHEAD).unwrap_or(u32::MAX);
        let entries = Moka::builder().max_capacity(max_bytes).weigher(size).expire_after(PerEntry).build();
        let _ = common.health.keep(Ok(()));
        Self(Arc::new(Inner { common, entries, channels: Channels::default() }))
    }
}

fn entry(value: Vec<u8>, ttl: Option<Duration>) -> Entry {
    Entry { value: value.into(), ttl: Some(Life(ttl)) }
}

impl Inner {
    async fn run(&self, order: CacheOrder) -> Result<CacheReply, String> {
        Ok(match order {
            CacheOrder::Get(key) => CacheReply::Value(self.entries.get(&key).await.map(|e| e.value.to_vec())),
            CacheOrder::Set(key, value, ttl) => {
                self.entries.insert(key, entry(value, ttl)).await;
                CacheReply::Done(true)
            }
            CacheOrder::Add(key, value, ttl) => self.set_if(key, |before| before.is_none(), value, ttl).await,
            CacheOrder::CompareAndSet(key, wanted, value, ttl) => {
                self.set_if(key, |before| before == wanted.as_deref(), value, ttl).await
            }
            CacheOrder::Increment(key, by, ttl) => {
                let add = |before: Option<moka::Entry<String, Entry>>| {
                    let sum = match &before {
                        None => Ok(by),
                        Some(before) => number(&before.value().value)
                            .and_then(|n| n.checked_add(by).ok_or_else(|| "the sum is no 64-bit integer".into())),
                    };
                    let next = sum.map(|sum| Entry {
                        value: sum.to_string().into_bytes().into(),
                        ttl: before.is_none().then_some(Life(ttl)),
                    });
                    std::future::ready(next.map(Op::Put))
                };
                match self.entries.entry(key).and_try_compute_with(add).await? {
                    CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) => {
                        CacheReply::Number(number(&entry.value().value)?)
                    }
                    _ => return Err("the number was not changed".into()),
                }
            }
            CacheOrder::Remove(key) => CacheReply::Done(self.entries.remove(&key).await.is_some()),
            CacheOrder::Publish(channel, message) => CacheReply::Number(self.channels.publish(&channel, message)),
        })
    }

    async fn set_if(
        &self,
        key: String,
        fits: impl FnOnce(Option<&[u8]>) -> bool,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> CacheReply {
        let set = |before: Option<moka::Entry<String, Entry>>| {
            let fits = fits(before.as_ref().map(|e| &*e.value().value));
            std::future::ready(if fits { Op::Put(entry(value, ttl)) } else { Op::Nop })
        };
        let done = self.entries.entry(key).and_compute_with(set).await;
        CacheReply::Done(matches!(done, CompResult::Inserted(_) | CompResult::ReplacedWith(_)))
    }
}

impl Cache for Memory {
    fn order(&self, order: CacheOrder) -> Work<Result<CacheReply, String>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let since = Instant::now();
            let reply = inner.run(order).await;
            inner.common.count(since, &reply);
            reply
        })
    }

    fn subscribe(&self, channel: String) -> Box<dyn Chunks> {
        let mut receiver = self.0.channels.subscribe(channel);
        let messages = stream! {
            loop {
                match receiver.recv().await {
                    Ok(message) => yield Ok(Bytes::from(message)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        Box::new(Streamed { stream: Some(Box::pin(messages)), runtime: None })
    }
}

impl AnyResource for Memory {
    fn state(&self) -> ResourceState {
        self.0.common.state("memory")
    }

    fn ask(self: Arc<Self>) -> Work<Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }
}
