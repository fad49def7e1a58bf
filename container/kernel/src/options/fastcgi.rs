//! [fastcgi]: where a FastCGI application is, or how it is started (FastCGI 1.0), and which paths go to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The table `[fastcgi]` of an application's TOML file. It needs `address` or `command`; every other key may be left out.
/// Relative paths begin at the application's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FastCgiOptions {
    /// Where it listens: `"127.0.0.1:9000"` or `"unix:/run/php/php-fpm.sock"`.
    pub address: Option<String>,
    /// The program and its arguments, started with the listening socket on descriptor 0. `{root}` and `{context}` in an argument
    /// stand for the document root and the context path (`/` for the root).
    pub command: Vec<String>,
    /// How many processes of the command, at most. Default 4; 1 for ASP.NET.
    pub processes: Option<usize>,
    /// How many there are always; more come with the requests. Default as many as `processes`.
    pub min_processes: Option<usize>,
    /// After so long without need, processes beyond `min_processes` end. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    pub process_idle_timeout: Duration,
    /// Requests after which a process of the command ends, and another takes its place: told to it as `PHP_FCGI_MAX_REQUESTS`. Default
    /// as the program has it.
    pub max_requests: Option<u32>,
    /// Environment variables of the command. It gets nothing else but `PATH`.
    pub env: BTreeMap<String, String>,
    /// From SIGTERM to SIGKILL, at the end of the command. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub kill_timeout: Duration,
    /// Parameters for every request. They win over those of the request.
    pub params: BTreeMap<String, String>,
    /// Whether the application sees the field `Authorization`, passwords included. Default false.
    pub pass_authorization: bool,
    /// Whether every path goes to the application, as path info, and no file is looked for. Default false.
    pub all_paths: bool,
    /// Extensions of scripts, without the dot. Default `["php"]`; those of ASP.NET for that.
    pub extensions: Option<Vec<String>>,
    /// Extensions whose paths go to the application though there is no such file. Default none; `["axd"]` for ASP.NET.
    pub virtual_extensions: Option<Vec<String>>,
    /// Names of scripts that answer for a folder. Default `["index.php"]`; `["default.aspx", "Default.aspx", "index.aspx"]` for ASP.NET.
    pub index: Option<Vec<String>>,
    /// The script that answers paths at which there is no file, as `"/index.php"`. Default none.
    pub fallback: Option<String>,
    /// Folders below the root in which nothing is run, as `["uploads"]`. Default none.
    pub no_execute: Vec<String>,
    /// Paths below the root that nobody gets. Default none; the private folders of ASP.NET beside.
    pub deny: Vec<String>,
    /// Whether files that are no scripts are served as they are. Default true.
    pub static_files: bool,
    /// The document root as the application sees it, where that is another (in a container of its own). Default the same.
    pub remote_root: Option<PathBuf>,
    /// Paths below the context that reach the status pages of the application itself (`pm.status_path`, `ping.path`). Default none.
    pub status_paths: Vec<String>,
    /// The addresses from which they are reached. Default none.
    pub status_from: Vec<IpAddr>,
    /// An application in the role Authorizer that is asked first for each request. An address, as above.
    pub authorizer: Option<String>,
    /// Requests at once. Default 32; as many as processes for a command of more than one.
    pub max_connections: Option<usize>,
    /// Connections that are kept. Never more than the application has processes! Default 0; as many as processes for a command.
    pub keep_connections: Option<usize>,
    /// How long an unused one is kept. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    pub keep_timeout: Duration,
    /// Requests that wait for a connection; more are answered with 503. Default 64.
    pub queue: usize,
    /// How long they wait. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// How long a connection may take. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long the header of a response may take after the last byte of the request. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// How long it may pause after that. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long it may take in all. Default `"10m"`.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// Bytes of a response's header. Default 32768.
    pub max_header_bytes: usize,
    /// Fields of a response's header. Default 100.
    pub max_header_fields: usize,
    /// Folders from which it may have a file sent with `X-Sendfile`. Default none.
    pub sendfile_roots: Vec<PathBuf>,
    /// The same for `X-Accel-Redirect`: a prefix of the path, which begins and ends with a slash, and its folder. Default none.
    pub accel_redirects: BTreeMap<String, PathBuf>,
}

impl Default for FastCgiOptions {
    fn default() -> Self {
        Self {
            address: None,
            command: Vec::new(),
            processes: None,
            min_processes: None,
            process_idle_timeout: Duration::from_secs(10),
            max_requests: None,
            env: BTreeMap::new(),
            kill_timeout: Duration::from_secs(5),
            params: BTreeMap::new(),
            pass_authorization: false,
            all_paths: false,
            extensions: None,
            virtual_extensions: None,
            index: None,
            fallback: None,
            no_execute: Vec::new(),
            deny: Vec::new(),
            static_files: true,
            remote_root: None,
            status_paths: Vec::new(),
            status_from: Vec::new(),
            authorizer: None,
            max_connections: None,
            keep_connections: None,
            keep_timeout: Duration::from_secs(10),
            queue: 64,
            queue_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(600),
            max_header_bytes: 32 << 10,
            max_header_fields: 100,
            sendfile_roots: Vec::new(),
            accel_redirects: BTreeMap::new(),
        }
    }
}

/// Where a FastCGI application listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastCgiAddress {
    /// Host and port.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FastCgiAddress {
    /// Reads `host:port` or `unix:/path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no address; write \"127.0.0.1:9000\" or \"unix:/run/php/php-fpm.sock\"");
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() { Ok(Self::Unix(path.into())) } else { Err(bad()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() && !host.contains('/') => Ok(Self::Tcp(text.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl FastCgiOptions {
    /// With what is usual for ASP.NET on Mono, where the file does not say otherwise.
    #[must_use]
    pub fn for_aspnet(mut self) -> Self {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        if self.address.is_none() && self.command.is_empty() {
            self.command = words(&["fastcgi-mono-server4", "/socket=pipe", "/applications={context}:{root}"]);
        }
        self.processes.get_or_insert(1);
        self.extensions.get_or_insert_with(|| words(&["aspx", "asmx", "ashx", "svc", "cshtml"]));
        self.virtual_extensions.get_or_insert_with(|| words(&["axd"]));
        self.index.get_or_insert_with(|| words(&["default.aspx", "Default.aspx", "index.aspx"]));
        self.deny.extend(words(&["bin", "App_Code", "App_Data", "App_GlobalResources", "App_LocalResources"]));
        self
    }

    /// Processes of the command.
    pub fn processes(&self) -> usize {
        self.processes.unwrap_or(4)
    }

    /// Processes of the command that there are always.
    pub fn min_processes(&self) -> usize {
        self.min_processes.unwrap_or_else(|| self.processes())
    }

    /// Requests at once.
    pub fn max_connections(&self) -> usize {
        let usual = if self.command.is_empty() || self.processes() == 1 { 32 } else { self.processes() };
        self.max_connections.unwrap_or(usual)
    }

    /// Connections that are kept.
    pub fn keep_connections(&self) -> usize {
        self.keep_connections.unwrap_or(if self.command.is_empty() { 0 } else { self.processes() })
    }

    /// Rules that a type can't hold.
    ///
    /// # Errors
    /// The key at fault and what to do.
    pub fn check(&self) -> Result<(), String> {
        match (&self.address, self.command.first()) {
            (None, None) => {
                return Err("needs address = \"unix:/run/php/php-fpm.sock\" or command = [\"php-cgi\"]".into());
            }
            (Some(_), Some(_)) => return Err("takes address or command, not both".into()),
            (Some(address), None) => FastCgiAddress::parse(address).map(drop).map_err(|e| format!("address: {e}"))?,
            (None, Some(program)) if program.is_empty() => return Err("command: the program has no name".into()),
            (None, Some(_)) => {}
        }
        if let Some(address) = &self.authorizer {
            FastCgiAddress::parse(address).map_err(|e| format!("authorizer: {e}"))?;
        }
        let of_command = self.processes.is_some() || self.min_processes.is_some() || self.max_requests.is_some();
        if self.command.is_empty() && (of_command || !self.env.is_empty()) {
            return Err("processes, min_processes, max_requests and env are those of a command".into());
        }
        if self.min_processes() > self.processes() {
            return Err(format!("min_processes is more than processes, which is {}", self.processes()));
        }
        let named = [("extensions", &self.extensions), ("virtual_extensions", &self.virtual_extensions)];
        for (key, extension) in named.iter().flat_map(|(k, list)| list.iter().flatten().map(move |e| (k, e))) {
            if extension.is_empty() || !extension.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                return Err(format!("{key}: '{extension}' is no extension; write \"php\" for .php"));
            }
        }
        if self.extensions.as_ref().is_some_and(Vec::is_empty) && !self.all_paths {
            return Err("extensions is empty: say all_paths = true for an application that answers every path".into());
        }
        if let Some(index) = self.index.iter().flatten().find(|i| i.is_empty() || i.contains('/')) {
            return Err(format!("index: '{index}' is no name of a file"));
        }
        for path in self.fallback.iter().chain(&self.status_paths) {
            if wharf_mapping::canonicalise(path).map_or(true, |c| *c.decoded != **path) {
                return Err(format!("fallback, status_paths: '{path}' is no plain path with a slash at its beginning"));
            }
        }
        if self.status_paths.is_empty() != self.status_from.is_empty() {
            return Err(
                "status_paths and status_from go together: say from which addresses the paths are reached".into()
            );
        }
        for (name, value) in self.env.iter().chain(&self.params) {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!(
                    "env, params: '{}' can't be the name of a variable, or its value one",
                    name.escape_debug()
                ));
            }
        }
        if let Some(prefix) = self.accel_redirects.keys().find(|p| !p.starts_with('/') || !p.ends_with('/')) {
            return Err(format!("accel_redirects: '{prefix}' must begin and end with '/'"));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
            ("process_idle_timeout", self.process_idle_timeout),
            ("total_timeout", self.total_timeout),
        ];
        if let Some((key, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(format!("{key} must be longer than nothing"));
        }
        let counts = [
            ("processes", self.processes()),
            ("min_processes", self.min_processes()),
            ("max_connections", self.max_connections()),
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
            ("address = \"127.0.0.1:9000\"", ""),
            ("address = \"unix:/run/x.sock\"\nauthorizer = \"[::1]:9\"", ""),
            ("command = [\"php-cgi\"]\nprocesses = 2\nfallback = \"/index.php\"", ""),
            ("", "needs address"),
            ("address = \"a:1\"\ncommand = [\"x\"]", "not both"),
            ("address = \"localhost\"", "address: 'localhost' is no address"),
            ("address = \"localhost:0\"", "is no address"),
            ("address = \"unix:x\"", "is no address"),
            ("address = \"a:1\"\nauthorizer = \"x\"", "authorizer"),
            ("address = \"a:1\"\nprocesses = 2", "of a command"),
            ("command = [\"\"]", "no name"),
            ("command = [\"x\"]\nprocesses = 0", "processes must"),
            ("command = [\"x\"]\nmin_processes = 0", "min_processes must"),
            ("command = [\"x\"]\nmin_processes = 5", "min_processes is more"),
            ("command = [\"x\"]\nmin_processes = 1\nmax_requests = 500", ""),
            ("address = \"a:1\"\nmax_requests = 2", "of a command"),
            ("address = \"a:1\"\nextensions = [\".php\"]", "write \"php\""),
            ("address = \"a:1\"\nextensions = []", "all_paths"),
            ("address = \"a:1\"\nindex = [\"a/b\"]", "no name of a file"),
            ("address = \"a:1\"\nfallback = \"index.php\"", "no plain path"),
            ("address = \"a:1\"\nfallback = \"/../x\"", "no plain path"),
            ("address = \"a:1\"\nstatus_paths = [\"/status\"]", "go together"),
            ("address = \"a:1\"\nparams = { \"a=b\" = \"c\" }", "name of a variable"),
            ("address = \"a:1\"\naccel_redirects = { \"/x\" = \"/srv\" }", "end with '/'"),
            ("address = \"a:1\"\nidle_timeout = \"0s\"", "idle_timeout must"),
        ] {
            let options: FastCgiOptions = toml::from_str(text).unwrap();
            match options.check() {
                Ok(()) => assert_eq!(word, "", "{text}"),
                Err(error) => assert!(!word.is_empty() && error.contains(word), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn aspnet_needs_no_options() {
        let options = FastCgiOptions::default().for_aspnet();
        options.check().unwrap();
        assert_eq!((options.processes(), options.max_connections(), options.keep_connections()), (1, 32, 1));
        let own = FastCgiOptions { address: Some("a:1".into()), ..FastCgiOptions::default() }.for_aspnet();
        assert!(own.command.is_empty());
    }
}
