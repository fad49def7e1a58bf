//! The connectors and the server's own pipeline: from an accepted connection to the endpoint of an application and back.
//!
//! [`Server`] owns the threads. [`Pipeline`] is what happens to a request, in order: `pipeline.rs` reads as a ladder.
#![forbid(unsafe_code)]

mod acceptor;
mod admission;
mod check;
mod clock;
mod dispatch;
pub mod error_page;
mod limits;
mod link;
mod own_threads;
mod pipeline;
mod pool;
mod request_body;
mod request_id;
mod response;
mod response_body;
mod server;
mod watch;
mod watchdog;
mod worker;

pub use limits::{Limits, Listen, ServerConfig};
pub use own_threads::WithOwnThreads;
pub use pipeline::Pipeline;
pub use server::{Bound, Server};
