//! A container under test: a child process that is killed with this.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Answer, Client, Site, wait};

/// A running container, and its folder.
#[derive(Debug)]
pub struct Wharf {
    child: Child,
    site: Site,
    addr: Option<SocketAddr>,
}

impl Deref for Wharf {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the container:\n{}", self.log());
        }
    }
}

impl Wharf {
    pub(crate) fn launch(site: Site, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let create = |name: &str| File::create(site.path(name)).expect("a file for the output");
        let mut command = site.command(&["run", "--set", "server.listen=127.0.0.1:0"]);
        command.args(arguments).stdout(create("run.out")).stderr(create("run.err"));
        prepare(&mut command);
        let child = command.spawn().expect("the program runs");
        Self { child, site, addr: None }
    }

    /// Waits for the line that says where it listens.
    ///
    /// # Panics
    /// When it ends, or takes too long.
    pub fn wait_ready(&mut self) {
        let addr = wait("'listening on'", || {
            if let Some(status) = self.ended() {
                panic!("the container has ended: {status}\n{}", self.log());
            }
            self.said_addr("http")
        });
        self.addr = Some(addr);
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When it was launched and not waited for.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("it listens")
    }

    /// Where it listens with TLS.
    ///
    /// # Panics
    /// When it does not say so in time: its line may come a moment after the one of the plain listener.
    pub fn secure_addr(&self) -> SocketAddr {
        wait("the line of the listener with TLS", || self.said_addr("https"))
    }

    /// Where it has said that it listens.
    fn said_addr(&self, scheme: &str) -> Option<SocketAddr> {
        let out = self.output();
        let (_, rest) = out.split_once(&format!("listening on {scheme}://"))?;
        rest.split_once('\n')?.0.parse().ok()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it did.
    ///
    /// # Panics
    /// When that can't be known.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Waits for its end.
    pub fn wait_end(&mut self) -> ExitStatus {
        wait("the end of the container", || self.ended())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Its standard output: the access log, as long as it is not set to be elsewhere.
    pub fn output(&self) -> String {
        fs::read_to_string(self.path("run.out")).unwrap_or_default()
    }

    /// Its standard error: the log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run.err")).unwrap_or_default()
    }

    /// A new connection.
    ///
    /// # Panics
    /// When it is refused.
    pub fn connect(&self) -> Client {
        Client::connect(self.addr()).expect("a connection")
    }

    /// GET over a new connection.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    /// A request over a new connection.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.connect().send(method, target, headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    /// Waits until a GET is answered with this text.
    pub fn wait_for(&self, target: &str, text: &str) {
        wait(&format!("GET {target} to answer {text:?}"), || {
            let answer = self.get(target);
            (answer.status == 200 && answer.text() == text).then_some(())
        });
    }

    /// Asks the admin API.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub fn admin(&self, method: &str, target: &str) -> Answer {
        let mut client = Client::connect_unix(&self.path(".wharf/admin.sock")).expect("the admin socket");
        client.send(method, target, &[], b"").unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    /// The applications, as `wharf list --json` shows them.
    ///
    /// # Panics
    /// When the answer is no list.
    pub fn list(&self) -> Vec<Value> {
        let answer = self.admin("GET", "/v1/apps");
        match serde_json::from_slice(&answer.body) {
            Ok(Value::Array(apps)) => apps,
            _ => panic!("no list: {}", answer.text()),
        }
    }

    /// One application of the list, or null.
    pub fn app(&self, name: &str) -> Value {
        self.list().into_iter().find(|a| a["name"] == name).unwrap_or_default()
    }

    /// Waits until nothing of the application is left but the generation that serves.
    pub fn wait_alone(&self, name: &str) {
        wait(&format!("'{name}' to be the only generation"), || {
            let app = self.app(name);
            let generations = app["generations"].as_array()?;
            (generations.len() == 1 && generations[0]["state"] == "serving").then_some(())
        });
    }

    /// The private copies that are mapped.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn mapped(&self) -> BTreeSet<String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("the process is there");
        let file = |line: &str| Some(line.split_once("/generations/")?.1.to_owned());
        maps.lines().filter_map(file).collect()
    }

    /// How many descriptors are open.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process is there").count()
    }

    /// The names of its threads, but for those of pools that come and go with the work, and the one that writes stack
    /// traces, which comes with the first panic and stays.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process is there");
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        let mut names: Vec<String> = tasks.flatten().filter_map(name).map(|n| n.trim_end().to_owned()).collect();
        names.retain(|n| n != "wharf-main" && n != "wharf-symbols" && !n.starts_with("wharf-files"));
        names.sort();
        names
    }

    /// Processor time that it has used, in ticks of the system's clock: a hundredth of a second.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process is there");
        let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
        // proc(5): utime and stime are fields 14 and 15; the first here is the third.
        rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is there");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}
