//! Extractors: the container's gifts as arguments of axum handlers.
//!
//! ```
//! use axum::{Router, routing::get};
//! use wharf_sdk::TestClient;
//! use wharf_sdk::extract::{ContextPath, RequestId};
//!
//! async fn home(ContextPath(path): ContextPath, RequestId(id): RequestId) -> String {
//!     format!("request {id} to {path}")
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let app = Router::new().route("/", get(home));
//! let client = TestClient::new(app).context_path("/shop").start().await.unwrap();
//! assert_eq!(client.get("/").send().await.text().await, "request local-1 to /shop");
//! # });
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::{ContainerInfo, Principal, ServletContext};

/// Why an extractor failed: always an error of the program, never of the client, so the answer is 500.
#[derive(Debug)]
pub struct Rejection(String);

impl Rejection {
    fn outside() -> Self {
        Self("this handler needs a Wharf container, wharf_sdk::serve or wharf_sdk::TestClient around it".into())
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Rejection {}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        tracing::error!(target: "wharf_sdk", "{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

fn info(parts: &Parts) -> Result<&ContainerInfo, Rejection> {
    parts.extensions.get::<ContainerInfo>().ok_or_else(Rejection::outside)
}

/// The application's surroundings: parameters, folder, attributes.
#[derive(Debug, Clone)]
pub struct Context(pub Arc<ServletContext>);

impl Deref for Context {
    type Target = ServletContext;

    fn deref(&self) -> &ServletContext {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(Arc::clone(info(parts)?.context())))
    }
}

/// Context path: empty for the root context, else it starts with `/` and does not end with one. Links that start with it
/// work wherever the application is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for ContextPath {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(info(parts)?.context().context_path().to_owned()))
    }
}

/// Init parameters: all as text, or read into a structure as by
/// [`ServletContext::init_parameters_as`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitParams<T = BTreeMap<String, String>>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InitParams<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        info(parts)?.context().init_parameters_as().map(Self).map_err(|error| Rejection(error.to_string()))
    }
}

/// Request id: the same in the access log and in every log record written for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(info(parts)?.id().to_owned()))
    }
}

/// Address of the peer; `None` on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub Option<SocketAddr>);

impl<S: Send + Sync> FromRequestParts<S> for RemoteAddr {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(info(parts)?.remote_addr()))
    }
}

/// The authenticated user; `None` where nobody had to log in. Whether somebody has to is said by the application's `[[constraints]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(pub Option<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(info(parts)?.user_principal()))
    }
}
