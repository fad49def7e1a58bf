//! Caches: values by keys, shared by all generations of an application, and by containers where the configuration says so.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use wharf_abi::{CacheAnswer, CacheOrder, FfiCache, FfiCacheWork};

/// Why a cache did not do what it was asked: it can't be reached, or the value is not what was taken for granted.
#[derive(Debug, Clone)]
pub struct CacheError(String);

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CacheError {}

/// A cache that the container has: in its memory, or in Redis.
///
/// From [`ServletContext::cache`](crate::ServletContext::cache). The name must be in the descriptor, by
/// [`export!`](crate::export): `resources = ["cache": "cache"]`. Keys belong to the cache, not to the application: two that use
/// the same one see the same values.
///
/// A cache may forget a value at any time, to make room. With Redis that depends on how Redis is set up.
///
/// ```
/// use std::time::Duration;
///
/// use wharf_sdk::{Error, Request, Response};
///
/// async fn page(request: Request) -> Result<Response, Error> {
///     let cache = request.context().cache("cache")?;
///     if let Some(page) = cache.get("front").await? {
///         return Ok(Response::text(String::from_utf8_lossy(&page).into_owned()));
///     }
///     let page = "made with much work";
///     cache.set_for("front", page, Duration::from_secs(60)).await?;
///     Ok(Response::text(page))
/// }
/// ```
#[derive(Clone)]
pub struct Cache(Arc<FfiCache>);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Cache {
    pub(crate) fn new(ffi: FfiCache) -> Self {
        Self(Arc::new(ffi))
    }

    async fn ask(&self, order: CacheOrder) -> Result<CacheAnswer, CacheError> {
        let mut work = self.0.order(order);
        match poll_fn(|cx| work.poll_answer(cx)).await {
            CacheAnswer::Failed(what) => Err(CacheError(what.into())),
            answer => Ok(answer),
        }
    }

    async fn done(&self, order: CacheOrder) -> Result<bool, CacheError> {
        self.ask(order).await.map(|answer| matches!(answer, CacheAnswer::Done(true)))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the cache can't be reached, as with all of these.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        match self.ask(CacheOrder::Get(key.into())).await? {
            CacheAnswer::Value(value) => Ok(value.into_option().map(Into::into)),
            _ => Ok(None),
        }
    }

    /// Sets a value, until it is replaced or removed.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), CacheError> {
        self.done(CacheOrder::Set(key.into(), value.as_ref().into(), 0)).await.map(|_| ())
    }

    /// Sets a value for so long.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn set_for(&self, key: &str, value: impl AsRef<[u8]>, time: Duration) -> Result<(), CacheError> {
        self.done(CacheOrder::Set(key.into(), value.as_ref().into(), millis(time))).await.map(|_| ())
    }

    /// Sets a value where there is none; for ever, or for so long. False when there is one.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn add(&self, key: &str, value: impl AsRef<[u8]>, time: Option<Duration>) -> Result<bool, CacheError> {
        self.done(CacheOrder::Add(key.into(), value.as_ref().into(), time.map_or(0, millis))).await
    }

    /// Sets a value where the present one is `before` (`None`: where there is none). False when it is another.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn compare_and_set(
        &self,
        key: &str,
        before: Option<&[u8]>,
        value: impl AsRef<[u8]>,
        time: Option<Duration>,
    ) -> Result<bool, CacheError> {
        let before = before.map(Into::into).into();
        let order = CacheOrder::CompareAndSet(key.into(), before, value.as_ref().into(), time.map_or(0, millis));
        self.done(order).await
    }

    /// Adds to a number, which is 0 where there is none, and gives the sum. The time is that of a new one.
    ///
    /// # Errors
    /// As [`Cache::get`], and when the value is no number or the sum is none of 64 bits.
    pub async fn increment(&self, key: &str, by: i64, time: Option<Duration>) -> Result<i64, CacheError> {
        match self.ask(CacheOrder::Increment(key.into(), by, time.map_or(0, millis))).await? {
            CacheAnswer::Number(sum) => Ok(sum),
            _ => Err(CacheError("the cache gave no number".into())),
        }
    }

    /// Removes a value. False when there was none.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn remove(&self, key: &str) -> Result<bool, CacheError> {
        self.done(CacheOrder::Remove(key.into())).await
    }

    /// Sends a message on a channel. Gives how many subscriptions there were to hear it.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn publish(&self, channel: &str, message: impl AsRef<[u8]>) -> Result<u64, CacheError> {
        match self.ask(CacheOrder::Publish(channel.into(), message.as_ref().into())).await? {
            CacheAnswer::Number(heard) => Ok(u64::try_from(heard).unwrap_or(0)),
            _ => Ok(0),
        }
    }

    /// Messages of a channel from now on: with Redis, from the moment at which the first is waited for. Whoever falls far
    /// behind loses some.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        Subscription(Some(self.0.order(CacheOrder::Subscribe(channel.into()))))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

/// Messages of a channel.
pub struct Subscription(Option<FfiCacheWork>);

impl Subscription {
    /// The next message. `None` after the last: the container stops, or there was an error.
    ///
    /// A future that ends with [`ServletContext::draining`](crate::ServletContext::draining) belongs beside it: a subscription
    /// that is waited for keeps its generation in memory.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, CacheError>> {
        let work = self.0.as_mut()?;
        match poll_fn(|cx| work.poll_answer(cx)).await {
            CacheAnswer::Message(message) => Some(Ok(message.into())),
            CacheAnswer::Failed(what) => {
                self.0 = None;
                Some(Err(CacheError(what.into())))
            }
            _ => {
                self.0 = None;
                None
            }
        }
    }
}
