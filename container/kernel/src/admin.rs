//! The port between the admin API and whoever moves applications.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::launch::Kind;
use crate::lifecycle::State;

/// One generation of an application, for people to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number, unique in the container.
    pub generation: u64,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: State,
    /// Version in its descriptor.
    pub package_version: String,
    /// Hexadecimal SHA-256 of its file.
    pub sha256: String,
    /// Seconds since it was found.
    pub age_seconds: u64,
    /// Requests, bodies and upgraded connections in flight.
    pub leases: u64,
    /// Memory its code holds, in bytes, where that is known.
    pub live_bytes: Option<u64>,
    /// What keeps it in memory, when it is held.
    pub held_by: Vec<String>,
}

/// What an application is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppState {
    /// Its first generation is being started, or its file is still being copied.
    Starting,
    /// It answers requests.
    Serving,
    /// Someone stopped it: it answers 503 until it is started.
    Stopped,
    /// Its side-car says `enabled = false`.
    Disabled,
    /// A newer version has taken its place.
    Superseded,
    /// Nothing of it runs: see the error.
    Failed,
    /// Its file is gone; generations of it still drain or are held.
    Removed,
}

/// One application, for people to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// The name by which the operations know it: the stem of its file (`shop`, `ROOT`, `a#b##2`), with the host and a
    /// colon in front for an application of another host's folder.
    pub name: String,
    /// Name of its virtual host.
    pub host: String,
    /// Context path, `/` for the root.
    pub context_path: String,
    /// Version, empty for an unversioned application.
    pub version: String,
    /// What it is made of.
    pub kind: Kind,
    /// The file or folder.
    pub source: String,
    /// What it is doing.
    pub state: AppState,
    /// Why the newest file does not run, where it does not.
    pub error: Option<Refusal>,
    /// Its generations, newest first.
    pub generations: Vec<GenerationStatus>,
}

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// There is no such application.
    #[error("there is no application '{0}'; see 'wharf list'")]
    NotFound(String),
    /// The request itself makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The application was refused; what ran before goes on.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The state of the application does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The file system or the deployer failed.
    #[error("{0}")]
    Failed(String),
}

/// What can be done with the applications of a container. Every call may block until the change has settled.
pub trait Operations: Send + Sync + 'static {
    /// All applications, sorted by name.
    fn list(&self) -> Vec<AppStatus>;

    /// Puts a file into the deploy folder under this name (a stem: `shop`, `a#b##2`), replacing an older one in one
    /// rename, and waits until it serves or is refused.
    ///
    /// # Errors
    /// [`OperationError::Invalid`] for a bad name, [`OperationError::Refused`] when it does not start.
    fn deploy(&self, name: &str, file: &mut dyn Read) -> Result<AppStatus, OperationError>;

    /// Removes the application's file and retires its generations in the background.
    ///
    /// # Errors
    /// [`OperationError::NotFound`], or what the file system said.
    fn undeploy(&self, name: &str) -> Result<AppStatus, OperationError>;

    /// Starts an application that was stopped.
    ///
    /// # Errors
    /// [`OperationError::NotFound`], [`OperationError::Refused`] when it does not start.
    fn start(&self, name: &str) -> Result<AppStatus, OperationError>;

    /// Retires the application's generation; it answers 503 until it is started again or the container is.
    ///
    /// # Errors
    /// [`OperationError::NotFound`].
    fn stop(&self, name: &str) -> Result<AppStatus, OperationError>;

    /// Starts a new generation of the same file and moves traffic to it.
    ///
    /// # Errors
    /// [`OperationError::NotFound`], [`OperationError::Conflict`] for a stopped application,
    /// [`OperationError::Refused`] when it does not start.
    fn reload(&self, name: &str) -> Result<AppStatus, OperationError>;

    /// Puts the previous good file back and moves traffic to it.
    ///
    /// # Errors
    /// [`OperationError::NotFound`], [`OperationError::Conflict`] where no earlier file is kept.
    fn rollback(&self, name: &str) -> Result<AppStatus, OperationError>;

    /// True once the applications of the first look at the deploy folders serve or are refused.
    fn is_ready(&self) -> bool;
}
