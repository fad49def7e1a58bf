//! What a session is (Servlet 6.1, chapter 7), without any input or output: the container keeps its sessions by these rules,
//! and so do `TestClient` and `serve` of the SDK. Times and random bytes are given by the caller.
#![forbid(unsafe_code)]

mod session;
mod sessions;
mod tracking;

pub use session::{Refused, Session, Stored, Value};
pub use sessions::{Counts, Limits, Sessions};
pub use tracking::{ID_LEN, ID_RANDOM_BYTES, id_from_random, in_cookies, in_link, in_path, is_id};

use std::time::{Duration, SystemTime};

/// The present, on two clocks: expiry goes by the one that is never set back or forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment, never set.
    pub steady: Duration,
    /// Time of day, which people may set.
    pub wall: SystemTime,
}
