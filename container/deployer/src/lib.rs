//! Decides what should run, from the files in the deploy folders, and moves traffic there without losing a request.
//!
//! `scan` looks at a folder; `app` says whether its files are complete and new; `job` brings up a generation on a thread
//! of its own; `reconcile` swaps it in and retires the one before; `operate` does what the admin API asks for. All
//! decisions are made on one thread, `deployer`.
#![forbid(unsafe_code)]

mod app;
pub mod app_toml;
mod deployer;
mod folders;
mod generation;
mod handle;
mod job;
mod keep;
mod operate;
mod reconcile;
pub mod scan;

pub use deployer::{DeployerConfig, Launchers, Stats, start};
pub use handle::DeployerHandle;
pub use scan::{Root, only_module};
