//! What the rest of the container holds of the deployer.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::time::Duration;

use wharf_kernel::admin::{AppStatus, OperationError, Operations};
use wharf_mapping::AppName;

use crate::deployer::{Message, Operation, Readiness, Stats};
use crate::operate::temporary_beside;
use crate::scan::Root;

/// The deployer, seen from outside. Clones speak to the same one; all operations are done one after the other.
#[derive(Clone)]
pub struct DeployerHandle {
    sender: Sender<Message>,
    readiness: Arc<Readiness>,
    stats: Arc<Stats>,
    roots: Vec<Root>,
}

impl DeployerHandle {
    pub(crate) fn new(sender: Sender<Message>, readiness: Arc<Readiness>, stats: Arc<Stats>, roots: Vec<Root>) -> Self {
        Self { sender, readiness, stats, roots }
    }

    /// Waits until the applications of the first look serve or are refused; false when that takes longer than `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.readiness.wait(timeout)
    }

    /// Looks at the folders now and waits until nothing is left to do; false when that takes longer than `timeout`.
    pub fn wait_settled(&self, timeout: Duration) -> bool {
        let (sender, receiver) = sync_channel(1);
        self.sender.send(Message::Settle(sender)).is_ok() && receiver.recv_timeout(timeout).is_ok()
    }

    /// What it has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Tells every application that it will have to end, so that its upgraded connections close in good order. They go on
    /// serving. Does not block.
    pub fn drain(&self) {
        let _ = self.sender.send(Message::Drain);
    }

    /// Takes everything out of service, retires it and ends. Blocks until all is gone or held.
    ///
    /// Returns what is still held, by application.
    pub fn shutdown(&self, drain_timeout: Duration) -> Vec<AppStatus> {
        let (done, receiver) = sync_channel(1);
        if self.sender.send(Message::Shutdown { drain_timeout, done }).is_err() {
            return Vec::new();
        }
        let all = receiver.recv().unwrap_or_default();
        all.into_iter().filter(|a| a.generations.iter().any(|g| !g.held_by.is_empty())).collect()
    }

    fn ask(&self, operation: Operation) -> Result<AppStatus, OperationError> {
        let gone = || OperationError::Failed("the deployer has ended".into());
        let (sender, receiver) = sync_channel(1);
        self.sender.send(Message::Operation(operation, sender)).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?
    }
}

impl Operations for DeployerHandle {
    fn list(&self) -> Vec<AppStatus> {
        let (sender, receiver) = sync_channel(1);
        if self.sender.send(Message::List(sender)).is_err() {
            return Vec::new();
        }
        receiver.recv().unwrap_or_default()
    }

    fn deploy(&self, name: &str, file: &mut dyn Read) -> Result<AppStatus, OperationError> {
        let failed = |e: io::Error| OperationError::Failed(format!("the upload could not be stored: {e}"));
        let name = name.strip_suffix(".so").unwrap_or(name);
        AppName::parse(name).map_err(|e| OperationError::Invalid(e.to_string()))?;
        let root = self.roots.first().ok_or_else(|| OperationError::Failed("there is no deploy folder".into()))?;
        let mut temporary = temporary_beside(&root.dir.join(name)).map_err(failed)?;
        io::copy(file, temporary.as_file_mut()).map_err(failed)?;
        self.ask(Operation::Install { name: name.to_owned(), file: temporary })
    }

    fn undeploy(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.ask(Operation::Undeploy { name: name.to_owned() })
    }

    fn start(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.ask(Operation::Start { name: name.to_owned() })
    }

    fn stop(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.ask(Operation::Stop { name: name.to_owned() })
    }

    fn reload(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.ask(Operation::Reload { name: name.to_owned() })
    }

    fn rollback(&self, name: &str) -> Result<AppStatus, OperationError> {
        self.ask(Operation::Rollback { name: name.to_owned() })
    }

    fn is_ready(&self) -> bool {
        self.readiness.get()
    }
}
