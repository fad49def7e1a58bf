//! The ports of managed resources: the container owns them, applications use them by the names of their descriptors.

mod cache;
mod client;
mod need;
mod sql;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::AppId;
pub use crate::settings::ResourceKind;
pub use cache::{Cache, CacheOrder, CacheReply, OwnResources, SharedStore};
pub use client::{ClientError, ClientErrorKind, ClientRequest, ClientResponse, HttpClient};
pub(crate) use need::is_name;
pub use need::{BadNeed, Need};
pub use sql::{
    DataSource, Done, Isolation, Migration, Pieces, Rows, SqlError, SqlErrorKind, SqlValue, Statement, Transaction,
    TransactionStep,
};

/// Pieces of bytes that come one after the other: messages, or content.
pub trait Chunks: Send {
    /// The next. After an error there are no more.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>>;
}

/// The future of work on a resource.
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The names under which an application knows its resources, to the names in the configuration, where they differ.
pub type Bindings = BTreeMap<String, String>;

/// All resources of the container.
pub trait Resources: Send + Sync + 'static {
    /// Whether everything that an application needs is there, and of the kind that it needs.
    ///
    /// # Errors
    /// What is missing, with the lines to add.
    fn check(&self, needs: &[Need], bindings: &Bindings) -> Result<(), String>;

    /// What one generation of an application may use. Blocks until each has been asked whether it answers.
    ///
    /// # Errors
    /// As [`Resources::check`], or that one does not answer, and is to be waited for.
    fn bind(
        &self,
        app: &AppId,
        generation: u64,
        needs: &[Need],
        bindings: &Bindings,
    ) -> Result<Arc<dyn BoundResources>, BindError>;
}

/// Why an application can't have its resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindError {
    /// What is missing, with the lines to add.
    Missing(String),
    /// What does not answer at present.
    Down(String),
}

/// There are none.
pub struct NoResources;

impl Resources for NoResources {
    fn check(&self, needs: &[Need], _: &Bindings) -> Result<(), String> {
        match needs.first() {
            None => Ok(()),
            Some(need) => Err(format!("it needs resource '{}', and there are none here", need.name)),
        }
    }

    fn bind(
        &self,
        _: &AppId,
        _: u64,
        needs: &[Need],
        bindings: &Bindings,
    ) -> Result<Arc<dyn BoundResources>, BindError> {
        self.check(needs, bindings).map_err(BindError::Missing)?;
        Err(BindError::Missing("there are no resources here".into()))
    }
}

/// What one generation of an application may use: nothing but what its descriptor names.
pub trait BoundResources: Send + Sync + 'static {
    /// The data source with this name.
    ///
    /// # Errors
    /// The name is not in the descriptor, or that of something else.
    fn data_source(&self, name: &str) -> Result<Arc<dyn DataSource>, String>;

    /// The cache with this name.
    ///
    /// # Errors
    /// As [`BoundResources::data_source`].
    fn cache(&self, name: &str) -> Result<Arc<dyn Cache>, String>;

    /// The HTTP client with this name.
    ///
    /// # Errors
    /// As [`BoundResources::data_source`].
    fn http_client(&self, name: &str) -> Result<Arc<dyn HttpClient>, String>;

    /// A request has begun that is part of a trace: its id and its `traceparent` (W3C Trace Context).
    fn request_traced(&self, request: &str, trace: &str);

    /// The `traceparent` of a request, if it has one.
    fn trace(&self, request: &str) -> Option<String>;

    /// The settings of a resource, its secrets included, as JSON: for an application that connects by itself.
    ///
    /// # Errors
    /// The name is not in the descriptor, or the configuration does not share them.
    fn settings(&self, name: &str) -> Result<String, String>;

    /// A request has ended, its response's content too. What it left open is undone and reported.
    fn request_ended(&self, request: &str);

    /// The generation goes. What it left open is undone; each is described for people to read.
    fn retire(&self) -> Vec<String>;
}

/// The state of a resource, for people and for readiness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceState {
    /// Name in the configuration.
    pub name: String,
    /// What it is.
    pub kind: ResourceKind,
    /// What answers: `sqlite`, `postgres`, `mysql`, `memory`, `redis`, `http`.
    pub engine: String,
    /// Where it is, without any secret.
    pub place: String,
    /// Why it can't be used at present; empty where it can.
    pub down: String,
    /// Whether the container is ready without it.
    pub optional: bool,
    /// Its figures.
    pub figures: ResourceFigures,
}

/// The figures of a resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceFigures {
    /// Connections in use now.
    pub in_use: u64,
    /// Open connections that wait for somebody.
    pub idle: u64,
    /// The most connections there may be.
    pub max: u64,
    /// Callers that wait for a connection now.
    pub waiting: u64,
    /// Connections that were handed out.
    pub acquired: u64,
    /// How long all callers together have waited for them, in seconds.
    pub wait_seconds: f64,
    /// Statements.
    pub statements: u64,
    /// How long all of them took, in seconds.
    pub statement_seconds: f64,
    /// Statements that took longer than `slow_statement`.
    pub slow: u64,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// Transactions that were left open and rolled back.
    pub left_open: u64,
}
