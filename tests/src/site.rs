//! A folder in which the program runs: a deploy folder, perhaps a configuration, and what it wrote.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Wharf, wharf};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 for the end by a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A folder that goes away with this.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// A folder with an empty `deploy` folder.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wharf-test-").tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("deploy")).expect("a deploy folder");
        Self { dir }
    }

    /// With a file in it.
    #[must_use]
    pub fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.put(path, content);
        self
    }

    /// The path of something in it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Puts a file into it, in one rename.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let temporary = self.temporary(path);
        fs::write(&temporary, content).unwrap_or_else(|e| panic!("{path}: {e}"));
        self.rename(&temporary, path);
    }

    /// The path of a file beside `path` that the program does not look at.
    ///
    /// # Panics
    /// When the folder can't be made.
    pub fn temporary(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        let dir = path.parent().expect("a folder");
        fs::create_dir_all(dir).expect("the folder can be made");
        dir.join(format!(".{}.part", path.file_name().expect("a name").to_string_lossy()))
    }

    /// Renames what is at `from` to `path`.
    ///
    /// # Panics
    /// When that can't be done.
    pub fn rename(&self, from: &Path, path: &str) {
        fs::rename(from, self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Removes a file.
    ///
    /// # Panics
    /// When that can't be done.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// The program, to be run in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(wharf());
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"WHARF__")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs `wharf passwd` on a file with these arguments; the password comes by standard input. Says whether it did it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn passwd(&self, file: &str, arguments: &[&str], password: &str) -> bool {
        let mut command = self.command(&[&["passwd", file], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the program runs");
        writeln!(child.stdin.take().expect("a pipe"), "{password}").expect("it reads");
        child.wait().expect("it ends").success()
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("the program runs");
        Output {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a container on a free port and waits until it listens.
    pub fn start(self, arguments: &[&str]) -> Wharf {
        self.start_as(arguments, |_| {})
    }

    /// Starts a container on a free port.
    pub fn launch(self, arguments: &[&str]) -> Wharf {
        Wharf::launch(self, arguments, |_| {})
    }

    /// As [`Site::start`], after `prepare` has changed the command, such as its environment.
    pub fn start_as(self, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Wharf {
        let mut wharf = Wharf::launch(self, arguments, prepare);
        wharf.wait_ready();
        wharf
    }
}
