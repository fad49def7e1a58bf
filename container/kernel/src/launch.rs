//! The ports between the deployer, which decides what should run, and the crates that know how to run it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{Constraint, Options};
use crate::{AppId, Endpoint, Gate, Refusal};

/// What an application is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A compiled module.
    Module,
    /// A folder of files.
    Static,
    /// A folder of programs that are run by CGI/1.1.
    Cgi,
    /// An application behind FastCGI, such as PHP.
    Fastcgi,
    /// ASP.NET pages, run by Mono's FastCGI server.
    Aspnet,
    /// Any HTTP server, or several.
    Proxy,
}

/// Where an application is found, and how it wants to run. All paths are absolute or relative to the working directory.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who it is.
    pub id: AppId,
    /// What it is.
    pub kind: Kind,
    /// The `.so` for a module, the document root for files and programs, the TOML file or its folder for a proxy.
    pub source: PathBuf,
    /// The exploded folder it belongs to, if any: a module may read its own files there.
    pub folder: Option<PathBuf>,
    /// Init parameters (Servlet 6.1, section 4.2).
    pub init: BTreeMap<String, String>,
    /// Counts the generations of the container, from 1.
    pub generation: u64,
    /// How long the trial load in a child process may take.
    pub trial_timeout: Duration,
    /// How long init and start may take.
    pub start_timeout: Duration,
    /// How long stop may take, and how long retirement waits for each of its steps.
    pub stop_timeout: Duration,
    /// Threads of the module's own runtime.
    pub runtime_threads: usize,
    /// Threads for blocking servlets.
    pub blocking_threads: usize,
    /// What its TOML file says to the part that runs it.
    pub options: Arc<Options>,
}

/// What the container knows about an application before any of its code runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Description {
    /// Package name in the descriptor; the folder's name for a static site.
    pub name: String,
    /// Package version in the descriptor.
    pub version: String,
    /// SDK version.
    pub sdk: String,
    /// Compiler.
    pub rustc: String,
    /// ABI as `major.minor`.
    pub abi: String,
    /// Hexadecimal SHA-256 of the file.
    pub sha256: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Resources that it needs.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Roles that it knows.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// A servlet with its URL patterns, as the mapper needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servlet {
    /// Servlet name.
    pub name: String,
    /// URL patterns (Servlet 6.1, section 12.2).
    pub patterns: Vec<String>,
}

/// Runs applications of one or more kinds. Every call may block: the deployer calls it on threads of its own.
pub trait Launcher: Send + Sync + 'static {
    /// Looks at the source and decides whether it may run, without running any of its code in this process.
    ///
    /// # Errors
    /// The refusal, for people to read.
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal>;

    /// Loads and starts a generation. When it returns an error nothing of it is left (or what is left is reported).
    ///
    /// # Errors
    /// The refusal, with its stage.
    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal>;

    /// The application was undeployed: what is kept for it beyond its generations ends.
    fn undeployed(&self, id: &AppId) {
        let _ = id;
    }
}

/// A generation that runs.
pub trait Launched: Send + Sync + 'static {
    /// What it is.
    fn description(&self) -> &Description;

    /// What answers its requests.
    fn endpoint(&self) -> Arc<dyn Endpoint>;

    /// Its servlets; empty where the endpoint takes the whole context.
    fn servlets(&self) -> &[Servlet];

    /// The security constraints that it declares itself, beside those of its TOML file.
    fn constraints(&self) -> &[Constraint] {
        &[]
    }

    /// Its gate.
    fn gate(&self) -> &Gate;

    /// Memory its code holds now, in bytes, where that is known.
    fn live_bytes(&self) -> Option<u64>;

    /// Processor time that threads and processes of its own took since the last call.
    fn take_own_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Panics of its code that were caught so far.
    fn panics(&self) -> u64 {
        0
    }

    /// Tells it that it will have to end, so that its upgraded connections close in good order. It goes on serving. Returns
    /// soon; may be called more than once.
    fn drain(&self) {
        self.gate().drain();
    }

    /// Lets it go: waits for its last lease, stops and unloads it. Blocks, at most a few times `stop_timeout` after the drain.
    /// The caller has taken it out of the route table and closed its gate.
    ///
    /// Called once. When the report says that it is held, it stays as it is and [`Launched::retry_retire`] may be called.
    fn retire(&self, drain_timeout: Duration) -> Retirement;

    /// Looks again at a generation that was held; finishes its retirement where that is possible now.
    fn retry_retire(&self) -> Retirement;
}

/// How a retirement ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Retirement {
    /// What holds the generation, each for people to read (`thread 'poller'`, `1 response body`). Empty when it is gone.
    pub held_by: Vec<String>,
    /// Bytes its code left on its heap, freed with it.
    pub left_bytes: u64,
    /// Blocks its code left on its heap.
    pub left_blocks: u64,
    /// Upgraded connections that had not ended within the drain time, and were cut.
    #[serde(default)]
    pub cut_upgrades: u64,
    /// File descriptors its code left open, closed with it.
    #[serde(default)]
    pub left_descriptors: u64,
    /// Thread-local destructors the container ran for it.
    pub destructors_run: u64,
    /// True when `dl_iterate_phdr` no longer lists it (true for what has no code).
    pub unmapped: bool,
    /// Other things worth a line in the log (a failing stop, a private allocator).
    pub notes: Vec<String>,
}
