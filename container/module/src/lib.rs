//! The only crate that opens a `.so`: admission, load, the bridge to it, and its real unloading.
//!
//! - [`probe()`] reads a file and runs nothing of it; [`trial`] runs it in a throw-away child process first.
//! - `loaded` is a module in this process, from `dlopen` to the proof by `dl_iterate_phdr` that it is gone.
//! - [`interpose`], `descriptors` and `signals` hold what the executable puts in front of the C library's functions so that it can go
//!   and leaves nothing open.
//! - `heap` is what it allocates from; `endpoint` is the bridge for requests.
//!
//! The big home of `unsafe` in the container.

mod allocator;
mod bins;
mod cache;
mod client;
mod descriptors;
mod endpoint;
mod exit;
mod generation;
mod heap;
mod host;
mod imports;
pub mod interpose;
mod launcher;
mod lent;
mod library;
mod loaded;
mod outside;
mod probe;
mod resident;
mod resource;
mod session;
mod sign;
mod signals;
mod symbolise;
pub mod trial;
mod upgrade;

pub use allocator::Allocator;
pub use launcher::{ModuleConfig, ModuleLauncher};
pub use probe::probe;
pub use resident::{Frugal, use_small_pages};
pub use trial::trial_main;
