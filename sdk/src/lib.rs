//! What applications of the Wharf container are written with.
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod app;
#[doc(hidden)]
pub mod application;
mod assemble;
mod async_context;
mod async_listener;
mod attributes;
mod blocking;
mod body;
mod cache;
mod cancel;
mod chain;
mod charset;
mod client;
mod constraint;
mod context;
mod cookies;
mod csrf;
mod dispatch;
mod dispatch_error;
mod dispatch_state;
mod dispatcher;
mod dispatcher_type;
#[allow(unsafe_code)]
mod entry;
mod error;
mod error_pages;
mod export;
#[cfg(feature = "axum")]
pub mod extract;
mod facts;
#[allow(unsafe_code)]
mod ffi;
mod field_name;
mod field_set;
mod filter;
mod filter_mapping;
#[cfg(any(feature = "axum", feature = "serve"))]
mod goodbye;
mod handler;
#[allow(unsafe_code)]
mod heap;
mod http_client;
mod layer;
mod link;
mod listener;
mod local;
mod local_sessions;
mod locale;
#[allow(unsafe_code)]
mod log;
mod merge;
mod mount;
mod multipart;
#[cfg(any(feature = "axum", feature = "serve"))]
mod on_upgrade;
mod parameters;
mod part;
mod path_parameters;
mod pattern;
mod principal;
mod request;
mod request_content;
mod request_headers;
#[cfg(feature = "resources")]
mod resource_root;
#[cfg(feature = "resources")]
mod resource_source;
#[cfg(feature = "resources")]
mod resources;
mod response;
mod response_rules;
mod running;
#[cfg(feature = "serve")]
mod serve;
mod servlet;
mod servlet_mapping;
mod session;
mod session_listener;
mod sign;
mod slots;
pub mod sql;
mod tls;
mod trailers;
mod tunnel;
mod upgrade;
mod web;
#[cfg(feature = "websocket")]
mod websocket;

pub use app::App;
pub use application::{IntoApplication, MappingError};
pub use async_context::{AsyncAnswer, AsyncContext, DEFAULT_ASYNC_TIMEOUT};
pub use async_listener::{AsyncDropped, AsyncEvent, AsyncListener, AsyncTimeout};
pub use blocking::{BlockingServlet, blocking};
pub use body::Body;
pub use cache::{Cache, CacheError, Subscription};
pub use cancel::{Cancelled, ClientGone};
pub use client::{TestClient, TestClientBuilder, TestRequest, TestResponse};
pub use constraint::Constraint;
pub use context::ServletContext;
pub use cookie;
pub use cookies::{Nameless, parse_cookies};
pub use csrf::{CSRF_HEADER, CSRF_PARAMETER, CsrfFilter};
pub use dispatch_error::{DispatchError, MAX_DISPATCH_DEPTH};
pub use dispatch_state::DispatchPath;
#[doc(hidden)]
pub use dispatch_state::DispatchState;
pub use dispatcher::{Included, RequestDispatcher};
pub use dispatcher_type::DispatcherType;
pub use error::{BoxError, Error};
#[doc(hidden)]
pub use error_pages::ErrorPageTarget;
pub use error_pages::{ErrorInfo, IntoErrorPage, Panicked};
pub use facts::ContainerInfo;

pub use filter::{Filter, FilterConfig, Next, filter_fn};
pub use filter_mapping::{FilterMapping, IntoFilterMapping};
pub use handler::{Handlers, any, delete, get, head, options, patch, post, put};
pub use http::{self, Method, StatusCode};
pub use http_client::{ClientRequest, ClientResponse, HttpClient, HttpError, HttpErrorKind};
pub use layer::{NextService, layer};
pub use listener::{
    ContextAttributeEvent, ContextAttributeListener, ContextListener, RequestAttributeEvent, RequestAttributeListener,
    RequestEvent, RequestListener,
};
pub use multipart::{Multipart, MultipartConfig, PartStream};
pub use parameters::{MAX_PARAMETERS, Parameters};
pub use part::{Part, Parts};
pub use path_parameters::PathParameter;
pub use pattern::IntoPatterns;
pub use principal::Principal;
pub use request::Request;
pub use request_content::DEFAULT_CONTENT_LIMIT;
pub use request_headers::UrlEncoder;
#[cfg(feature = "resources")]
pub use resources::Resources;
pub use response::{IntoResponse, Response};
#[cfg(feature = "serve")]
pub use serve::{serve, serve_until};
pub use servlet::{Servlet, ServletConfig};
pub use servlet_mapping::ServletMapping;
pub use session::{Session, SessionKey};
pub use session_listener::SessionListener;
pub use tls::Tls;
pub use upgrade::Upgraded;
#[cfg(feature = "websocket")]
pub use websocket::{
    CloseReason, IntoClose, Message, Receiver, SendError, Sender, TestSocket, Text, WebSocket, WebSocketServlet,
    websocket,
};

/// The servlet specification, feature by feature: its name here, or why it is left out.
pub mod servlet_api {
    #![doc = include_str!("../servlet-api.md")]
}

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
