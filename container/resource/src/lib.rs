//! What the container manages for its applications: databases, through pools that outlive redeploys,
//! and caches.
//!
//! Applications name what they need; the configuration says what it is. Nothing of it crosses to another generation: what
//! one leaves open is undone when its request ends, or it does.
#![forbid(unsafe_code)]

mod any;
mod bound;
mod cache;
mod client;
mod health;
mod inward;
mod registry;
mod secrets;
mod sql;
mod streamed;

pub use registry::ResourceRegistry;
pub use secrets::expand;
