//! [cgi]: how the programs of a folder are run by CGI/1.1 (RFC 3875).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The table `[cgi]` of an application's TOML file. Every key may be left out. Relative paths begin at the application's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgiOptions {
    /// One program that answers every path of the context. Default none: programs are looked for below the root.
    pub program: Option<PathBuf>,
    /// Extensions of programs, without the dot. Default none: every file that may be executed is a program.
    pub extensions: Vec<String>,
    /// Names of programs that answer for a folder. Default `["index.cgi"]`.
    pub index: Vec<String>,
    /// Folders below the root in which nothing is run. Default none.
    pub no_execute: Vec<String>,
    /// Whether other files are served as they are; needs `extensions`. Default false.
    pub static_files: bool,
    /// Environment variables for every program. They win over those of the request. `PATH` is `/usr/local/bin:/usr/bin:/bin`
    /// where it is not set here; nothing else is taken from the container's own environment.
    pub env: BTreeMap<String, String>,
    /// Whether programs see the field `Authorization`, passwords included. Default false.
    pub pass_authorization: bool,
    /// How long a program may take for its header after the last byte it was sent. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// How long it may pause after that. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long it may run in all. Default `"10m"`.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// From SIGTERM to SIGKILL. Default `"2s"`.
    #[serde(with = "humantime_serde")]
    pub kill_timeout: Duration,
    /// Processes at once. Default 32.
    pub max_processes: usize,
    /// Requests that wait for one of them to end; more are answered with 503. Default 64.
    pub queue: usize,
    /// How long they wait. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// Bytes of a response's header. Default 32768.
    pub max_header_bytes: usize,
    /// Fields of a response's header. Default 100.
    pub max_header_fields: usize,
    /// Address space of a process in bytes (RLIMIT_AS). Default: that of the container.
    pub memory: Option<u64>,
    /// Processor time of a process (RLIMIT_CPU), counted in whole seconds. Default: that of the container.
    #[serde(with = "humantime_serde")]
    pub cpu: Option<Duration>,
    /// Open files of a process (RLIMIT_NOFILE). Default: that of the container.
    pub open_files: Option<u64>,
    /// Folders from which a program may have a file sent with `X-Sendfile`. Default none.
    pub sendfile_roots: Vec<PathBuf>,
    /// The same for `X-Accel-Redirect`: a prefix of the path, which begins and ends with a slash, and its folder. Default none.
    pub accel_redirects: BTreeMap<String, PathBuf>,
}

impl Default for CgiOptions {
    fn default() -> Self {
        Self {
            program: None,
            extensions: Vec::new(),
            index: vec!["index.cgi".into()],
            no_execute: Vec::new(),
            static_files: false,
            env: BTreeMap::new(),
            pass_authorization: false,
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(600),
            kill_timeout: Duration::from_secs(2),
            max_processes: 32,
            queue: 64,
            queue_timeout: Duration::from_secs(5),
            max_header_bytes: 32 << 10,
            max_header_fields: 100,
            memory: None,
            cpu: None,
            open_files: None,
            sendfile_roots: Vec::new(),
            accel_redirects: BTreeMap::new(),
        }
    }
}

impl CgiOptions {
    /// Rules that a type can't hold.
    ///
    /// # Errors
    /// The key at fault and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.static_files && self.extensions.is_empty() {
            return Err(
                "static_files needs extensions, as [\"cgi\", \"pl\"]: else a program that lost its permission to be executed would be shown".into(),
            );
        }
        if self.program.is_some() && (self.static_files || !self.extensions.is_empty()) {
            return Err("program answers every path: it goes with neither extensions nor static_files".into());
        }
        for extension in &self.extensions {
            if extension.is_empty() || !extension.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                return Err(format!("extensions: '{extension}' is no extension; write \"cgi\" for .cgi"));
            }
        }
        for index in &self.index {
            if index.is_empty() || index.contains('/') {
                return Err(format!("index: '{index}' is no name of a file"));
            }
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!(
                    "env: '{}' can't be the name of a variable, or its value one",
                    name.escape_debug()
                ));
            }
        }
        for prefix in self.accel_redirects.keys() {
            if !prefix.starts_with('/') || !prefix.ends_with('/') {
                return Err(format!("accel_redirects: '{prefix}' must begin and end with '/'"));
            }
        }
        let times = [
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
            ("total_timeout", self.total_timeout),
        ];
        if let Some((key, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(format!("{key} must be longer than nothing"));
        }
        let counts = [
            ("max_processes", self.max_processes),
            ("max_header_bytes", self.max_header_bytes),
            ("max_header_fields", self.max_header_fields),
        ];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(format!("{key} must be at least 1")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (text, word) in [
            ("", ""),
            ("static_files = true\nextensions = [\"cgi\"]", ""),
            ("static_files = true", "needs extensions"),
            ("program = \"/x\"\nextensions = [\"cgi\"]", "neither"),
            ("extensions = [\".cgi\"]", "write \"cgi\""),
            ("index = [\"a/b\"]", "no name of a file"),
            ("env = { \"a=b\" = \"c\" }", "name of a variable"),
            ("accel_redirects = { \"/x\" = \"/srv\" }", "end with '/'"),
            ("idle_timeout = \"0s\"", "idle_timeout must"),
            ("max_processes = 0", "max_processes must"),
        ] {
            let options: CgiOptions = toml::from_str(text).unwrap();
            match options.check() {
                Ok(()) => assert_eq!(word, "", "{text}"),
                Err(error) => assert!(!word.is_empty() && error.contains(word), "{text}: {error}"),
            }
        }
    }
}
