//! The sessions of the container: one manager for each context, which outlives every generation of its application; the
//! thread that ends sessions nobody uses; and the files that sessions are kept in.
#![forbid(unsafe_code)]

mod clock;
mod files;
mod form;
mod manager;
mod registry;
mod shared;

pub use registry::{SessionRegistry, Statistics};
