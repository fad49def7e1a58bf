//! Write applications for the Wharf container.
#![deny(unsafe_code)]

mod app;
#[doc(hidden)]
pub mod application;
mod blocking;
mod body;
mod context;
mod dispatch;
mod error;
mod filter;
mod handler;
mod listener;
mod mount;
mod parameters;
mod pattern;
mod request;
mod response;
mod running;
mod servlet;

pub use app::App;
pub use application::{IntoApplication, MappingError};
pub use blocking::{BlockingServlet, blocking};
pub use body::Body;
pub use context::ServletContext;
pub use cookie;
pub use error::{BoxError, Error};
pub use filter::{Filter, FilterConfig, Next, filter_fn};
pub use handler::{Handlers, any, delete, get, head, options, patch, post, put};
pub use http::{self, Method, StatusCode};
pub use listener::ContextListener;
pub use parameters::{MAX_PARAMETERS, Parameters};
pub use pattern::IntoPatterns;
pub use request::{ContainerInfo, DEFAULT_CONTENT_LIMIT, Request};
#[doc(hidden)]
pub use request::{RequestFacts, target_in_context};
pub use response::{IntoResponse, Response};
pub use servlet::{Servlet, ServletConfig};
