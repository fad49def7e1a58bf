//! The ports of caches, and of what several containers share.

use std::time::Duration;

use super::{Chunks, DataSource, Work};

/// What is asked of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheOrder {
    /// The value of a key.
    Get(String),
    /// Sets a value.
    Set(String, Vec<u8>, Option<Duration>),
    /// Sets a value where there is none.
    Add(String, Vec<u8>, Option<Duration>),
    /// Sets a value where the one before is this: key, before, value, time to live.
    CompareAndSet(String, Option<Vec<u8>>, Vec<u8>, Option<Duration>),
    /// Adds to a number, which is 0 where there is none. The time to live is that of a new one.
    Increment(String, i64, Option<Duration>),
    /// Removes a value.
    Remove(String),
    /// Sends a message on a channel.
    Publish(String, Vec<u8>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheReply {
    /// A value, or that there is none.
    Value(Option<Vec<u8>>),
    /// Whether it was done.
    Done(bool),
    /// The number after an increment, or how many heard a message.
    Number(i64),
}

/// A cache.
pub trait Cache: Send + Sync + 'static {
    /// Does what is asked. Errors are for people to read.
    fn order(&self, order: CacheOrder) -> Work<Result<CacheReply, String>>;

    /// Messages of a channel, from now on.
    fn subscribe(&self, channel: String) -> Box<dyn Chunks>;
}

/// Values that several containers share: sessions.
pub trait SharedStore: Send + Sync + 'static {
    /// A value.
    fn load(&self, key: String) -> Work<Result<Option<Vec<u8>>, String>>;

    /// Keeps a value, for so long (`None`: for ever).
    fn save(&self, key: String, value: Vec<u8>, time: Option<Duration>) -> Work<Result<(), String>>;

    /// Removes a value.
    fn remove(&self, key: String) -> Work<Result<(), String>>;
}

/// The resources that the container itself uses.
pub trait OwnResources: Send + Sync + 'static {
    /// The store in the resource with this name.
    ///
    /// # Errors
    /// There is none, or it can't keep values; with the lines to add.
    fn shared_store(&self, name: &str) -> Result<std::sync::Arc<dyn SharedStore>, String>;

    /// The database with this name, for the container itself.
    ///
    /// # Errors
    /// There is none; with the lines to add.
    fn database(&self, name: &str) -> Result<std::sync::Arc<dyn DataSource>, String>;

    /// The cache with this name, to count in.
    ///
    /// # Errors
    /// There is none; with the lines to add.
    fn counters(&self, name: &str) -> Result<std::sync::Arc<dyn Cache>, String>;
}
