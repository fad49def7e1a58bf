//! The port between the admin API and whoever moves applications.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::launch::Kind;
use crate::lifecycle::State;
use crate::{AppCounters, Refusal};

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

/// What an application takes of its share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Requests begun and not ended.
    pub in_flight: u64,
    /// Requests that wait for their turn.
    pub queued: u64,
    /// Requests answered with 503 because too many came, since the start of the container.
    pub rejected_busy: u64,
    /// The same, because it held more than its memory budget.
    pub rejected_memory: u64,
    /// The same, because none of its own threads came back from a poll.
    pub rejected_stuck: u64,
    /// The same, because it kept more processors busy than it may.
    pub rejected_cpu: u64,
    /// Polls that took longer than `slow_poll`.
    pub slow_polls: u64,
    /// Polls that have not come back for a long time.
    pub stuck_polls: u64,
    /// Whether it is polled on threads of its own.
    pub own_threads: bool,
    /// Whether it holds more than its memory budget now.
    pub over_memory_budget: bool,
    /// Whether it keeps more processors busy than it may.
    pub over_cpu_limit: bool,
    /// Seconds that threads were in its polls, and seconds of processor time of its own threads.
    pub cpu_seconds: f64,
}

impl Load {
    /// As counted.
    pub fn of(counters: &AppCounters) -> Self {
        let fairness = &counters.fairness;
        let [rejected_busy, rejected_memory, rejected_stuck, rejected_cpu] = fairness.rejected();
        Self {
            in_flight: counters.in_flight(),
            queued: fairness.queued(),
            rejected_busy,
            rejected_memory,
            rejected_stuck,
            rejected_cpu,
            slow_polls: fairness.slow_polls(),
            stuck_polls: fairness.stuck_polls(),
            own_threads: fairness.on_own_threads(),
            over_memory_budget: fairness.is_over_budget(),
            over_cpu_limit: fairness.is_over_cpu(),
            cpu_seconds: counters.cpu().as_secs_f64(),
        }
    }

    /// What of it somebody should know, for people to read; empty where all is well.
    pub fn notes(&self) -> Vec<String> {
        let count = |n: u64, what: &str| (n > 0).then(|| format!("{n} {what}"));
        let say = |yes: bool, what: &str| yes.then(|| what.to_owned());
        [
            count(self.queued, "requests wait for their turn"),
            count(self.rejected_busy, "refused as too many"),
            count(self.rejected_memory, "refused above the memory budget"),
            count(self.rejected_stuck, "refused as its threads are stuck"),
            count(self.rejected_cpu, "refused above the processor limit"),
            count(self.stuck_polls, "polls do not come back"),
            say(self.own_threads, "polled on threads of its own"),
            say(self.over_memory_budget, "above its memory budget"),
            say(self.over_cpu_limit, "above its processor limit"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
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
    /// What it takes of its share.
    #[serde(default)]
    pub load: Load,
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
