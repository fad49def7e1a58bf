//! The connectors and the server's own pipeline: from an accepted connection to the endpoint of an application and back.
//!
//! [`Server`] owns the threads. [`Pipeline`] is what happens to a request, in order: `pipeline.rs` reads as a ladder.
#![forbid(unsafe_code)]

mod acceptor;
mod admission;
mod berth;
mod certificates;
mod check;
mod clock;
mod connection;
mod dispatch;
pub mod error_page;
mod forwarded;
mod frames;
mod homed;
mod http1;
mod http2;
mod limits;
mod link;
mod own_threads;
mod paced;
mod pipeline;
mod pool;
mod protect;
mod proxy_protocol;
mod request_body;
mod request_id;
mod response;
mod response_body;
mod server;
mod task;
mod timer;
mod tls;
mod watch;
mod watchdog;
mod worker;

pub use limits::{Limits, Listen, ServerConfig};
pub use own_threads::WithOwnThreads;
pub use pipeline::Pipeline;
pub use protect::Protect;
pub use server::{Bound, Server};
pub use tls::Tls;

/// Parsers for the fuzz targets (`tests/fuzz`), which alone are built with this.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads a PROXY protocol header.
    pub fn proxy_protocol(bytes: &[u8]) {
        crate::proxy_protocol::fuzz(bytes);
    }

    /// Reads `Forwarded` and `X-Forwarded-For` of a trusted proxy.
    pub fn forwarded(bytes: &[u8]) {
        crate::forwarded::fuzz(bytes);
    }
}
