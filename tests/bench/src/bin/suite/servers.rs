//! The servers, each started on a free port of the loopback address.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use wharf_bench::{Result, Server, build, wait_for};

use crate::works::Work;

const TOMCAT: &str = "Tomcat 10";

/// How a server's paths begin.
enum Paths {
    /// All work but static files below this prefix.
    Below(&'static str),
    /// 'hello' alone, at this path.
    Hello(&'static str),
    /// These alone, at the paths of the work.
    These(&'static [&'static str]),
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) process: Rc<Server>,
    /// For files of the measurement.
    pub(crate) folder: PathBuf,
    paths: Paths,
    static_files: bool,
    /// Applications beside those under load.
    idle: usize,
}

impl Running {
    /// The path of a piece of work, where the server does it.
    pub(crate) fn path(&self, work: &Work) -> Option<String> {
        if work.idle_applications != self.idle {
            return None;
        }
        if work.rate > 0 && self.name == TOMCAT {
            // h2load can't read its status lines, which have no reason.
            return None;
        }
        if work.path.starts_with("/static") {
            return self.static_files.then(|| work.path.to_owned());
        }
        match self.paths {
            Paths::Hello(path) => (work.path == "/hello").then(|| path.to_owned()),
            Paths::These(names) => names.contains(&work.name).then(|| work.path.to_owned()),
            Paths::Below(prefix) => Some(format!("{prefix}{}", work.path)),
        }
    }

    /// Processor seconds of the server and its children.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.process.family()?.into_iter().map(wharf_bench::cpu_seconds).sum()
    }

    /// Resident memory of the server and its children, in KiB.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.process.family()?.into_iter().map(wharf_bench::resident_kib).sum()
    }
}

/// All of them.
pub(crate) struct Servers {
    pub(crate) list: Vec<Running>,
    /// What is not installed.
    pub(crate) skipped: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Servers {
    /// Builds and starts them.
    ///
    /// # Errors
    /// When one that is installed does not start.
    pub(crate) fn start(works: &[&Work], set: &[String]) -> Result<Self> {
        let release = build(&["wharf", "bench-app", "bench-axum", "wharf-bench"])?;
        let folder = tempfile::tempdir()?;
        let files = folder.path().join("files");
        fs::create_dir(&files)?;
        fs::write(files.join("file.bin"), [b'x'; 10 * 1024])?;
        let at = |name: &str| -> Result<PathBuf> {
            let path = folder.path().join(name);
            fs::create_dir(&path)?;
            Ok(path)
        };
        let running = |name, process: &Rc<Server>, folder: &Path, paths, static_files| Running {
            name,
            process: process.clone(),
            folder: folder.to_owned(),
            paths,
            static_files,
            idle: 0,
        };
        let mut list = Vec::new();

        let home = at("wharf")?;
        let servlets = Rc::new(wharf(&release, &home, ("app", "libbench_app.so"), &files, 0, set)?);
        list.push(running("wharf servlet", &servlets, &home, Paths::Below("/app"), true));
        let home = at("wharf-router")?;
        let router = Rc::new(wharf(&release, &home, ("mounted", "libbench_axum.so"), &files, 0, set)?);
        list.push(running("wharf axum Router", &router, &home, Paths::Below("/mounted"), false));
        list.push(running("wharf blocking servlet", &servlets, &home, Paths::Hello("/app/blocking"), false));
        if let Some(idle) = works.iter().map(|w| w.idle_applications).max().filter(|n| *n > 0) {
            let home = at("wharf-idle")?;
            let process = Rc::new(wharf(&release, &home, ("app", "libbench_app.so"), &files, idle, set)?);
            let beside = running("wharf servlet", &process, &home, Paths::Below("/app"), false);
            list.push(Running { idle, ..beside });
        }
        let home = at("axum")?;
        let axum = Rc::new(Server::start(Command::new(release.join("plain_axum")).arg(&files))?);
        list.push(running("plain axum", &axum, &home, Paths::Below(""), true));
        if works.iter().any(|w| w.idle_applications > 0) {
            let idle = works.iter().map(|w| w.idle_applications).max().unwrap_or(0);
            list.push(Running { idle, ..running("plain axum", &axum, &home, Paths::Below(""), false) });
        }
        let home = at("hyper")?;
        let hyper = Rc::new(Server::start(&mut Command::new(release.join("plain_hyper")))?);
        let these = Paths::These(&["hello", "hello-paced", "json", "idle-connections"]);
        list.push(running("bare hyper", &hyper, &home, these, false));
        let home = at("axum-per-core")?;
        let axum = Rc::new(Server::start(&mut Command::new(release.join("per_core_axum")))?);
        list.push(running("axum on bare hyper", &axum, &home, Paths::These(&["hello", "json", "form"]), false));

        let mut skipped = Vec::new();
        match nginx(&at("nginx")?, &files) {
            Ok(process) => {
                let home = folder.path().join("nginx");
                list.push(running("nginx", &Rc::new(process), &home, Paths::Hello("/hello"), true));
            }
            Err(error) => skipped.push(format!("nginx: {error}")),
        }
        match tomcat(&at("tomcat")?) {
            Ok(process) => {
                let home = folder.path().join("tomcat");
                list.push(running(TOMCAT, &Rc::new(process), &home, Paths::Below("/bench"), false));
            }
            Err(error) => skipped.push(format!("Tomcat: {error}")),
        }
        Ok(Self { list, skipped, _folder: folder })
    }
}

/// A container with one application and its static files, and as many idle copies of the application.
fn wharf(
    release: &Path,
    home: &Path,
    (name, module): (&str, &str),
    files: &Path,
    idle: usize,
    set: &[String],
) -> Result<Server> {
    let deploy = home.join("deploy");
    fs::create_dir(&deploy)?;
    fs::copy(release.join(module), deploy.join(format!("{name}.so")))?;
    fs::write(deploy.join("static.toml"), format!("kind = \"static\"\nroot = \"{}\"\n", files.display()))?;
    for i in 0..idle {
        fs::copy(release.join(module), deploy.join(format!("idle{i}.so")))?;
    }
    let mut command = wharf_bench::wharf(release, home);
    command.args(["--set", "server.limits.max_connections=15000"]);
    set.iter().for_each(|set| _ = command.args(["--set", set]));
    Server::start(&mut command)
}

/// A port that nobody had a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a server that says nothing, and waits until it takes connections.
fn silent(command: &mut Command, port: u16) -> Result<Server> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut server = Server::watch(child, format!("127.0.0.1:{port}"));
    wait_for(Duration::from_secs(60), || match server.ended() {
        Some(status) => Err(format!("it ended with {status}").into()),
        None => Ok(TcpStream::connect(&server.address).ok()),
    })?;
    Ok(server)
}

fn nginx(home: &Path, files: &Path) -> Result<Server> {
    let port = free_port()?;
    let (home_text, root) = (home.display(), files.display());
    let configuration = format!(
        "daemon off;\nworker_processes auto;\npid {home_text}/pid;\nerror_log stderr crit;\nuser root;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n access_log off;\n keepalive_requests 1000000000;\n client_body_temp_path {home_text}/body;\n\
         proxy_temp_path {home_text}/proxy;\n fastcgi_temp_path {home_text}/fastcgi;\n uwsgi_temp_path {home_text}/uwsgi;\n\
         scgi_temp_path {home_text}/scgi;\n sendfile on;\n\
         server {{\n  listen 127.0.0.1:{port};\n  location = /hello {{ default_type text/plain; return 200 \"Hello, world!\\n\"; }}\n\
         location /static/ {{ alias {root}/; }}\n }}\n}}\n"
    );
    let file = home.join("nginx.conf");
    fs::write(&file, configuration)?;
    silent(Command::new("nginx").arg("-c").arg(&file), port)
}

fn tomcat(home: &Path) -> Result<Server> {
    const HOME: &str = "/usr/share/tomcat10";
    if !Path::new(HOME).is_dir() {
        return Err("not installed (Debian package tomcat10)".into());
    }
    let classes = home.join("webapps/bench/WEB-INF/classes");
    fs::create_dir_all(&classes)?;
    for folder in ["conf", "logs", "temp", "work"] {
        fs::create_dir_all(home.join(folder))?;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tomcat/Bench.java");
    let compiled = Command::new("javac")
        .args(["-cp", "/usr/share/tomcat10/lib/servlet-api.jar", "-d"])
        .arg(&classes)
        .arg(source)
        .status()
        .map_err(|e| format!("javac (Debian package default-jdk-headless): {e}"))?;
    if !compiled.success() {
        return Err("the servlet could not be compiled".into());
    }
    let port = free_port()?;
    fs::write(
        home.join("conf/server.xml"),
        format!(
            "<Server port=\"-1\"><Service name=\"Catalina\"><Connector port=\"{port}\" address=\"127.0.0.1\" maxKeepAliveRequests=\"-1\" \
             maxConnections=\"20000\"/><Engine name=\"Catalina\" defaultHost=\"localhost\"><Host name=\"localhost\" \
             appBase=\"webapps\"/></Engine></Service></Server>\n"
        ),
    )?;
    fs::copy(Path::new("/etc/tomcat10/web.xml"), home.join("conf/web.xml"))?;
    let server = silent(
        Command::new(format!("{HOME}/bin/catalina.sh"))
            .arg("run")
            .env("CATALINA_HOME", HOME)
            .env("CATALINA_BASE", home),
        port,
    )?;
    let mut answers = || -> Result<Option<()>> {
        let hello = wharf_bench::Client::connect(&server.address).and_then(|mut c| c.get("/bench/hello"));
        Ok(hello.ok().filter(|(status, _)| *status == 200).map(|_| ()))
    };
    wait_for(Duration::from_secs(60), &mut answers)?;
    Ok(server)
}
