//! What applications of the Wharf container are written with.
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod app;
#[doc(hidden)]
pub mod application;
mod blocking;
mod body;
mod client;
mod context;
mod dispatch;
#[allow(unsafe_code)]
mod entry;
mod error;
mod export;
#[cfg(feature = "axum")]
pub mod extract;
mod facts;
#[allow(unsafe_code)]
mod ffi;
mod filter;
mod handler;
#[allow(unsafe_code)]
mod heap;
mod listener;
mod local;
#[allow(unsafe_code)]
mod log;
mod mount;
mod parameters;
mod pattern;
mod request;
mod response;
mod running;
#[cfg(feature = "serve")]
mod serve;
mod servlet;

pub use app::App;
pub use application::{IntoApplication, MappingError};
pub use blocking::{BlockingServlet, blocking};
pub use body::Body;
pub use client::{TestClient, TestClientBuilder, TestRequest, TestResponse};
pub use context::ServletContext;
pub use cookie;
pub use error::{BoxError, Error};
pub use facts::ContainerInfo;

pub use filter::{Filter, FilterConfig, Next, filter_fn};
pub use handler::{Handlers, any, delete, get, head, options, patch, post, put};
pub use http::{self, Method, StatusCode};
pub use listener::ContextListener;
pub use parameters::{MAX_PARAMETERS, Parameters};
pub use pattern::IntoPatterns;
pub use request::{DEFAULT_CONTENT_LIMIT, Request};
pub use response::{IntoResponse, Response};
#[cfg(feature = "serve")]
pub use serve::{serve, serve_until};
pub use servlet::{Servlet, ServletConfig};

/// What the macros use. Not for people.
#[doc(hidden)]
pub mod __private {
    pub use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
    pub use wharf_abi::{DESCRIPTOR_MAGIC, ModuleRef, concat, total_len};

    pub use crate::application::{Application, Factory};
    pub use crate::entry::{Entry, root};
    pub use crate::heap::ModuleAllocator;

    /// ABI of this SDK.
    pub const ABI: &str = "1.0";
    /// Version of this SDK.
    pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");
    /// The compiler that built this SDK, and so the module.
    pub const RUSTC: &str = env!("WHARF_RUSTC");
}
