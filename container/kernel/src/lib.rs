//! The words every part of the container shares: identities, the lease, the endpoint, the life cycle, the route table,
//! the settings model and the refusals. Nothing here does input or output.
#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
pub mod app;
pub mod backends;
pub mod body;
pub mod challenges;
pub mod counters;
mod cpu;
pub mod drain;
pub mod endpoint;
pub mod fairness;
pub mod guard;
pub mod launch;
pub mod lease;
pub mod lifecycle;
pub mod options;
pub mod per_thread;
pub mod refusal;
pub mod resource;
pub mod routes;
pub mod session;
pub mod settings;
pub mod toml_error;
pub mod workers;

pub use access::{AccessRecord, AccessSink, NoAccessLog};
pub use app::{AppId, ContextPath, Version};
pub use body::{Body, BoxError};
pub use counters::{AppCounters, ServerCounters};
pub use drain::{Phase, Reached};
pub use endpoint::{Authenticated, Connection, Endpoint, Exchange, PathElements, RequestId, ResponseFuture, TlsFacts};
pub use fairness::{Fairness, Permit, Rejection, Share};
pub use lease::{Gate, Hold, Lease};
pub use refusal::{Refusal, Stage};
pub use routes::{HostSpec, Lookup, Route, RouteError, RouteTable, Routes};
pub use wharf_mapping::ShortText;
