//! The words every part of the container shares: identities, the lease, the endpoint, the life cycle, the route table,
//! the settings model and the refusals. Nothing here does input or output.
#![forbid(unsafe_code)]

pub mod app;
pub mod body;
pub mod endpoint;
pub mod launch;
pub mod lease;
pub mod refusal;
pub mod workers;

pub use app::{AppId, ContextPath, Version};
pub use body::{Body, BoxError};
pub use endpoint::{Connection, Endpoint, Exchange, PathElements, ResponseFuture};
pub use lease::{Gate, Hold, Lease};
pub use refusal::{Refusal, Stage};
