//! The port through which the admin API sees and drains the backends of a proxy.

use serde::{Deserialize, Serialize};

use crate::AppId;

/// Whether a backend gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// It does.
    Healthy,
    /// Requests failed: none for a while.
    Ejected,
    /// Its active check fails, or its process does not run.
    Unhealthy,
    /// No new ones: somebody said so.
    Drained,
}

/// One backend of a proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its URL.
    pub url: String,
    /// Its weight.
    pub weight: u32,
    /// Whether it gets requests.
    pub state: BackendState,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that it was given.
    pub requests: u64,
    /// Requests of these that failed.
    pub failures: u64,
    /// Latency in milliseconds, its peaks remembered.
    pub latency_ms: f64,
}

/// What can be done with the backends of proxies.
pub trait Backends: Send + Sync + 'static {
    /// The backends of an application; `None` where it is no proxy that serves.
    fn list(&self, app: &AppId) -> Option<Vec<BackendStatus>>;

    /// Gives a backend no new requests, or gives it some again. False where there is none with this URL. Holds until it is
    /// taken back, the container stops, or the backend is taken out of the file.
    fn set_drained(&self, app: &AppId, url: &str, drained: bool) -> bool;
}
