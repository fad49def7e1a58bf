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

/// For the fuzz targets: reads a stored session.
#[cfg(fuzzing)]
pub fn read_stored(context: &str, text: &[u8]) {
    if let Ok(stored) = form::read(context, text) {
        let again = form::write(context, &stored).expect("what was read can be written");
        assert!(form::read(context, &again).is_ok());
    }
}
