//! The admin API: HTTP on a Unix socket that only its owner can open. The command line does nothing that it can't do.
#![forbid(unsafe_code)]

mod api;
mod problem;
mod socket;

pub use api::{Info, Manager, router, serve};
pub use problem::Problem;
pub use socket::bind;
