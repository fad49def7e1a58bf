//! A cache in Redis, or whatever speaks its protocol.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_stream::stream;
use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError, Script, ScriptInvocation};
use tokio::runtime::Handle;
use tokio::time::timeout;
use wharf_kernel::resource::{Cache, CacheOrder, CacheReply, Chunks, ResourceState, SharedStore, Work};
use wharf_kernel::settings::{Resource, hide_password};

use super::Common;
use crate::any::AnyResource;
use crate::inward::Inward;
use crate::streamed::Streamed;

/// KEYS: the key. ARGV: whether there is to be a value before, that value, the new one, its time to live.
const COMPARE_AND_SET: &str = "
local now = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then
    if now then return 0 end
elseif now ~= ARGV[2] then
    return 0
end
if ARGV[4] == '0' then redis.call('SET', KEYS[1], ARGV[3]) else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
";
/// KEYS: the key. ARGV: how much, the time to live of a new one.
const INCREMENT: &str = "
local is_new = redis.call('EXISTS', KEYS[1]) == 0
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
if is_new and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return sum
";

/// See the module.
pub(super) struct Redis(Arc<Inner>);

struct Inner {
    common: Common,
    client: Client,
    connection: ConnectionManager,
    wait: Duration,
    runtime: Handle,
    compare_and_set: Script,
    increment: Script,
}

impl Redis {
    pub(super) fn new(common: Common, settings: &Resource, runtime: &Handle) -> Result<Self, String> {
        // Its error may hold the URL, and with it a password.
        let bad = |_| format!("url '{}' can't be understood", hide_password(&common.place));
        let mut info = settings.url.as_str().into_connection_info().map_err(bad)?;
        let mut redis = info.redis_settings().clone();
        if let Some(user) = &settings.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password);
        }
        info = info.set_redis_settings(redis);
        let client = Client::open(info).map_err(bad)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.wait))
            .set_response_timeout(Some(settings.wait))
            .set_max_delay(Duration::from_secs(1));
        let _inside = runtime.enter();
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(bad)?;
        Ok(Self(Arc::new(Inner {
            common,
            client,
            connection,
            wait: settings.wait,
            runtime: runtime.clone(),
            compare_and_set: Script::new(COMPARE_AND_SET),
            increment: Script::new(INCREMENT),
        })))
    }

    /// Work of this cache: inside of the runtime, within its time, counted.
    fn work<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F + Send + 'static) -> Work<Result<T, String>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RedisError>> + Send + 'static,
    {
        let inner = self.0.clone();
        Inward::boxed(self.0.runtime.clone(), async move {
            let since = Instant::now();
            let result = match timeout(inner.wait, work(inner.clone())).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {:?}", inner.wait)),
            };
            inner.common.count(since, &result);
            result
        })
    }
}

impl Inner {
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        script.invoke_async(&mut self.connection.clone()).await
    }

    async fn run(&self, order: CacheOrder) -> Result<CacheReply, RedisError> {
        Ok(match order {
            CacheOrder::Get(key) => CacheReply::Value(self.query(&Cmd::get(key)).await?),
            CacheOrder::Set(key, value, ttl) => {
                self.query::<()>(&set(&key, &value, ttl)).await?;
                CacheReply::Done(true)
            }
            CacheOrder::Add(key, value, ttl) => {
                let mut command = set(&key, &value, ttl);
                let done: Option<String> = self.query(command.arg("NX")).await?;
                CacheReply::Done(done.is_some())
            }
            CacheOrder::CompareAndSet(key, before, value, ttl) => {
                let mut script = self.compare_and_set.prepare_invoke();
                let (there, before) = (u8::from(before.is_some()), before.unwrap_or_default());
                script.key(key).arg(there).arg(before).arg(value).arg(millis(ttl));
                CacheReply::Done(self.script::<i64>(&script).await? == 1)
            }
            CacheOrder::Increment(key, by, ttl) => {
                let mut script = self.increment.prepare_invoke();
                script.key(key).arg(by).arg(millis(ttl));
                CacheReply::Number(self.script(&script).await?)
            }
            CacheOrder::Remove(key) => CacheReply::Done(self.query::<i64>(&Cmd::del(key)).await? > 0),
            CacheOrder::Publish(channel, message) => {
                CacheReply::Number(self.query(&Cmd::publish(channel, message)).await?)
            }
        })
    }
}

fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut command = Cmd::set(key, value);
    if ttl.is_some() {
        command.arg("PX").arg(millis(ttl));
    }
    command
}

fn millis(time: Option<Duration>) -> u64 {
    time.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1))
}

impl Cache for Redis {
    fn order(&self, order: CacheOrder) -> Work<Result<CacheReply, String>> {
        self.work(|inner| async move { inner.run(order).await })
    }

    fn subscribe(&self, channel: String) -> Box<dyn Chunks> {
        let inner = self.0.clone();
        let runtime = Some(inner.runtime.clone());
        let messages = stream! {
            // A connection of its own: one that hears does nothing else.
            let subscribe = async {
                let mut connection = inner.client.get_async_pubsub().await?;
                connection.subscribe(&channel).await?;
                Ok::<_, RedisError>(connection.into_on_message())
            };
            let mut messages = match timeout(inner.wait, subscribe).await {
                Ok(Ok(messages)) => messages,
                Ok(Err(error)) => {
                    yield Err(error.to_string());
                    return;
                }
                Err(_) => {
                    yield Err(format!("no answer within {:?}", inner.wait));
                    return;
                }
            };
            while let Some(message) = messages.next().await {
                yield Ok(Bytes::copy_from_slice(message.get_payload_bytes()));
            }
            yield Err("the connection broke".to_owned());
        };
        Box::new(Streamed { stream: Some(Box::pin(messages)), runtime })
    }
}

impl SharedStore for Redis {
    fn load(&self, key: String) -> Work<Result<Option<Vec<u8>>, String>> {
        self.work(|inner| async move { inner.query(&Cmd::get(key)).await })
    }

    fn save(&self, key: String, value: Vec<u8>, time: Option<Duration>) -> Work<Result<(), String>> {
        self.work(move |inner| async move { inner.query(&set(&key, &value, time)).await })
    }

    fn remove(&self, key: String) -> Work<Result<(), String>> {
        self.work(|inner| async move { inner.query(&Cmd::del(key)).await })
    }
}

impl AnyResource for Redis {
    fn state(&self) -> ResourceState {
        self.0.common.state("redis")
    }

    fn ask(self: Arc<Self>) -> Work<Result<(), String>> {
        let asked = self.work(|inner| async move { inner.query::<String>(&redis::cmd("PING")).await });
        Box::pin(async move { self.0.common.health.keep(asked.await.map(|_| ())) })
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }

    fn shared_store(self: Arc<Self>) -> Option<Arc<dyn SharedStore>> {
        Some(self)
    }
}
