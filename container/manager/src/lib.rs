//! The admin API: HTTP on a Unix socket that only its owner can open and, where it is configured, on a TCP port for those with a
//! token or a password. The command line does nothing that it can't do.
#![forbid(unsafe_code)]

mod api;
mod audit;
mod door;
mod peer;
mod problem;
mod socket;

pub use api::{Info, Listeners, Manager, serve};
pub use door::Door;
pub use problem::Problem;
pub use socket::bind;
