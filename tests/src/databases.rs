//! Database servers from Debian's packages, private to a test: on a port of their own, with nothing but what the test puts in.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{is_required, wait};

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// In the container.
    Sqlite,
    /// `postgresql`.
    Postgres,
    /// `mariadb-server`.
    MariaDb,
    /// `redis-server`.
    Redis,
}

/// A database server.
pub struct Database {
    engine: Engine,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    /// What its data was copied from: making it anew for each takes seconds.
    template: Option<Arc<TempDir>>,
}

/// Where a program is, in the folders that Debian has them in.
fn program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    folders.into_iter().chain(versions).map(|folder| folder.join(name)).find(|path| path.exists())
}

/// User and group of this name.
fn user(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The data of a server that has never run, shared by all that are made of it.
fn template(engine: Engine) -> Arc<TempDir> {
    static MADE: Mutex<[Weak<TempDir>; 2]> = Mutex::new([Weak::new(), Weak::new()]);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = &mut made[usize::from(engine == Engine::MariaDb)];
    if let Some(template) = slot.upgrade() {
        return template;
    }
    let folder = tempfile::tempdir().unwrap();
    let this = Database { engine, folder, port: 0, child: None, template: None };
    this.hand_over(this.folder.path());
    let data = this.data().display().to_string();
    let mut init = if engine == Engine::Postgres {
        let mut init = this.command("initdb");
        init.args(["-D", &data, "-A", "trust", "-U", "wharf", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]);
        init
    } else {
        let mut init = this.command("mariadb-install-db");
        init.args(["--no-defaults", &format!("--datadir={data}"), "--auth-root-authentication-method=normal"]);
        init.args(["--skip-test-db", "--innodb-use-native-aio=0", "--innodb-log-file-size=8M"]);
        init
    };
    run(&mut init);
    let template = Arc::new(this.into_folder());
    *slot = Arc::downgrade(&template);
    template
}

impl Database {
    /// Starts one. `None` where the engine is not installed, and need not be.
    pub fn start(engine: Engine) -> Option<Self> {
        let needed: &[&str] = match engine {
            Engine::Sqlite => &[],
            Engine::Postgres => &["initdb", "postgres"],
            Engine::MariaDb => &["mariadb-install-db", "mariadbd"],
            Engine::Redis => &["redis-server", "redis-cli"],
        };
        if let Some(missing) = needed.iter().find(|name| program(name).is_none()) {
            assert!(!is_required(), "{missing} is not installed");
            eprintln!("skipped: {missing} is not installed");
            return None;
        }
        let mut this =
            Self { engine, folder: tempfile::tempdir().unwrap(), port: free_port(), child: None, template: None };
        this.hand_over(this.folder.path());
        if engine == Engine::Postgres || engine == Engine::MariaDb {
            let template = template(engine);
            let mut copy = this.command("cp");
            copy.arg("-a").arg(template.path().join("data")).arg(this.data());
            run(&mut copy);
            this.template = Some(template);
        }
        this.up();
        Some(this)
    }

    fn into_folder(mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The servers refuse to run as root: their user gets the folder.
    fn hand_over(&self, path: &Path) {
        if let Some((uid, gid)) = self.owner() {
            chown(path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn owner(&self) -> Option<(u32, u32)> {
        let name = match self.engine {
            Engine::Sqlite | Engine::Redis => return None,
            Engine::Postgres => "postgres",
            Engine::MariaDb => "mysql",
        };
        rustix::process::geteuid().is_root().then(|| user(name)).flatten()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name).unwrap());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = self.owner() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts the server again after [`Database::kill`].
    pub fn up(&mut self) {
        let folder = self.folder.path().display().to_string();
        let data = self.data().display().to_string();
        let port = self.port.to_string();
        let command = match self.engine {
            Engine::Sqlite => return,
            Engine::Postgres => {
                let mut command = self.command("postgres");
                command.args(["-D", &data, "-p", &port, "-k", &folder, "-c", "listen_addresses=127.0.0.1"]);
                // Half a thousand deadlocks would each take the default second to be found.
                command.args(["-c", "fsync=off", "-c", "max_connections=60", "-c", "deadlock_timeout=20ms"]);
                command
            }
            Engine::Redis => {
                let mut command = self.command("redis-server");
                command.args(["--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--save", ""]);
                // What was acknowledged is there after a kill.
                command.args(["--appendonly", "yes", "--appendfsync", "always"]);
                command
            }
            Engine::MariaDb => {
                let init = self.folder.path().join("init.sql");
                fs::write(&init, "create database if not exists wharf character set utf8mb4;\n").unwrap();
                let mut command = self.command("mariadbd");
                let (data, socket) = (format!("--datadir={data}"), format!("--socket={folder}/socket"));
                let (port, init) = (format!("--port={port}"), format!("--init-file={}", init.display()));
                command.args(["--no-defaults", &data, &socket, &port, &init, "--bind-address=127.0.0.1"]);
                command.args(["--skip-grant-tables", "--skip-networking=0", "--skip-name-resolve"]);
                command.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"]);
                command.args(["--max-allowed-packet=64M", "--max-recursive-iterations=2000000"]);
                // Many at once would want more of the system's asynchronous requests than there are.
                command.args(["--innodb-use-native-aio=0", "--innodb-log-file-size=8M"]);
                command
            }
        };
        let mut command = command;
        command.process_group(0);
        let hello = if self.engine == Engine::Redis { "ping" } else { "select 1" };
        wait("the database server to answer", || {
            // It refuses to start as long as a process of one that was killed is there.
            if self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|end| end.is_some())) {
                self.child = Some(command.spawn().unwrap());
            }
            self.ask(hello).ok()
        });
    }

    /// The `url` of a resource.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.engine {
            Engine::Sqlite => format!("sqlite:{}", self.folder.path().join("test.db").display()),
            Engine::Postgres => format!("postgres://wharf@127.0.0.1:{port}/postgres"),
            Engine::MariaDb => format!("mysql://root@127.0.0.1:{port}/wharf"),
            Engine::Redis => format!("redis://127.0.0.1:{port}/1"),
        }
    }

    /// Runs SQL, or a command of Redis, by the engine's own client, and gives what it prints.
    pub fn sql(&self, sql: &str) -> String {
        self.ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn ask(&self, sql: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let mut command = match self.engine {
            Engine::Sqlite => unreachable!("SQLite has no server"),
            Engine::Redis => {
                let mut command = self.command("redis-cli");
                command.args(["-p", &port, "-n", "1"]).args(sql.split(' '));
                command
            }
            Engine::Postgres => {
                let mut command = self.command("psql");
                command.args(["-h", "127.0.0.1", "-p", &port, "-U", "wharf", "-d", "postgres", "-tAc", sql]);
                command
            }
            Engine::MariaDb => {
                let mut command = self.command("mariadb");
                command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", "root", "-N", "-e", sql, "wharf"]);
                command
            }
        };
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn group(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32))
    }

    /// Kills the server and all its processes.
    pub fn kill(&mut self) {
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = kill_process(group, Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Stops all its processes where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let main = self.group().unwrap();
        // The first one first: then there are no more of the others, which have groups of their own with PostgreSQL.
        send(main, signal, frozen);
        for pid in children(main.as_raw_nonzero().get()).into_iter().filter_map(Pid::from_raw) {
            send(pid, signal, frozen);
        }
    }
}

/// The signal; where it stops the process, each of its threads has stopped when this returns. One that runs goes on
/// for a moment after the signal was sent, long enough for an answer.
fn send(pid: Pid, signal: Signal, stops: bool) {
    if kill_process(pid, signal).is_ok() && stops {
        let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
        wait(&format!("process {} to stop", pid.as_raw_nonzero()), || {
            let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
            tasks
                .into_iter()
                .all(|task| matches!(stat(&task.path()).first(), Some(s) if s == "T" || s == "Z"))
                .then_some(())
        });
    }
}

/// What the kernel says of a process or thread, from its state on: state, parent, …
fn stat(of: &Path) -> Vec<String> {
    let text = fs::read_to_string(of.join("stat")).unwrap_or_default();
    // pid (name) state parent
    text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(str::to_owned).collect()
}

/// The processes that this one has started.
fn children(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let parent = parent.to_string();
    let of = |pid: &i32| stat(Path::new(&format!("/proc/{pid}"))).get(1) == Some(&parent);
    pids.filter(of).collect()
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).stdout(Stdio::piped()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.freeze(false);
        }
        self.kill();
    }
}
