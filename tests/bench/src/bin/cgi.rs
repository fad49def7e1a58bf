//! A CGI program behind Wharf beside the same program behind Apache's mod_cgid, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin cgi`; needs wrk, cc, apache2 (Debian packages) and the right to make a cgroup, in which
//! all processor time of a server and its programs is counted. Prints medians over the rounds and the ratios of each round.
#![forbid(unsafe_code)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use wharf_bench::{Client, Result, Server, build, exit_code, median_and_p99, program, rate_of, wait_for};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures both servers once.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// The program: `c`, a small compiled one, or `perl`.
    #[arg(long, default_value = "c")]
    program: String,
}

/// A cgroup that counts processor time. Removed on drop.
struct Counted(PathBuf);

impl Counted {
    fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut mounts = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|m| m.get(2) == Some(&"cgroup2")).ok_or("no cgroup2 is mounted")?;
        let path = Path::new(mount[1]).join(format!("wharf-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// A command that runs in it.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let text = format!("echo $$ > '{}/cgroup.procs' && exec \"$0\" \"$@\"", self.0.display());
        command.args(["-c", &text]).arg(program);
        command
    }

    fn seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let usage = stat.lines().find_map(|l| l.strip_prefix("usage_usec ")).ok_or("no usage")?;
        Ok(usage.parse::<f64>()? / 1e6)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Empty once the last process is gone.
        let _ = wait_for(Duration::from_secs(5), || Ok(fs::remove_dir(&self.0).ok()));
    }
}

/// Apache in the foreground. Stopped on drop.
struct Apache {
    child: Child,
    folder: PathBuf,
}

impl Drop for Apache {
    fn drop(&mut self) {
        let stop = Command::new("/usr/sbin/apache2")
            .arg("-f")
            .arg(self.folder.join("apache.conf"))
            .args(["-k", "stop"])
            .stderr(Stdio::null())
            .status();
        if !stop.is_ok_and(|s| s.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn apache(counted: &Counted, folder: &Path, programs: &Path, address: &str) -> Result<Apache> {
    let (dir, programs) = (folder.display(), programs.display());
    let modules: String = ["mpm_event", "authz_core", "alias", "cgid"]
        .iter()
        .map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n"))
        .collect();
    // Started by root, Apache gives its rights up; the folder is readable for all.
    let user = "User www-data\nGroup www-data\n";
    let text = format!(
        "{modules}{user}ServerRoot {dir}\nServerName localhost\nListen {address}\nPidFile {dir}/apache.pid\nErrorLog {dir}/apache.log\nScriptSock {dir}/cgid.sock\nLogLevel error\nKeepAlive On\nMaxKeepAliveRequests 0\nDocumentRoot {programs}\nScriptAlias /app/ {programs}/\n<Directory {programs}>\nRequire all granted\n</Directory>\n"
    );
    fs::write(folder.join("apache.conf"), text)?;
    let mut command = counted.command(Path::new("/usr/sbin/apache2"));
    let child = command.arg("-f").arg(folder.join("apache.conf")).arg("-DFOREGROUND").spawn()?;
    Ok(Apache { child, folder: folder.to_owned() })
}

fn make_program(folder: &Path, kind: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("hello.cgi");
    match kind {
        "c" => {
            let source = folder.join("hello.c");
            fs::write(
                &source,
                "#include <stdio.h>\nint main(void){puts(\"Content-Type: text/plain\\n\\nhello\");return 0;}\n",
            )?;
            if !Command::new("cc").args(["-O2", "-o"]).arg(&file).arg(&source).status()?.success() {
                return Err("cc failed".into());
            }
            fs::remove_file(source)?;
        }
        "perl" => {
            let text = "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\nhello\\n\";\n";
            fs::write(&file, text)?;
        }
        other => return Err(format!("no program '{other}': c or perl").into()),
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

struct Measured {
    per_second: f64,
    /// Processor seconds of server and programs for 1,000 requests.
    cpu: f64,
}

fn measure(counted: &Counted, address: &str, arguments: &Arguments, seconds: u32) -> Result<Measured> {
    let url = format!("http://{address}/app/hello.cgi");
    let rate = rate_of(&url, || counted.seconds(), arguments.connections, seconds, false)?;
    Ok(Measured { per_second: rate.per_second, cpu: rate.cpu / 100.0 })
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf"])?;
    let folder = tempfile::tempdir()?;
    // Apache's processes are another user's.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let app = folder.path().join("deploy/app");
    fs::create_dir_all(&app)?;
    make_program(&app, &arguments.program)?;
    fs::write(app.join("app.toml"), "kind = \"cgi\"\n[cgi]\nextensions = [\"cgi\"]\nmax_processes = 256\n")?;

    let counted = [Counted::new("wharf")?, Counted::new("apache")?];
    let mut wharf = counted[0].command(&program(&release));
    wharf
        .args([
            "run",
            "--set",
            "server.listen=127.0.0.1:0",
            "--set",
            "log.level=warn",
            "--set",
            "access_log.format=off",
        ])
        .current_dir(&folder);
    let wharf = Server::start(&mut wharf)?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let _apache = apache(&counted[1], folder.path(), &app, &free)?;
    let addresses = [wharf.address.clone(), free];
    for address in &addresses {
        let status = wait_for(Duration::from_secs(10), || {
            Ok(Client::connect(address).and_then(|mut c| c.get("/app/hello.cgi")).ok().map(|(status, _)| status))
        })?;
        if status != 200 {
            return Err(format!("{address} answers {status}").into());
        }
    }
    let mut rounds: Vec<[Measured; 2]> = Vec::new();
    for round in 0..=arguments.rounds {
        // The first warms up.
        let seconds = if round == 0 { 1 } else { arguments.seconds };
        let one = measure(&counted[0], &addresses[0], arguments, seconds)?;
        let other = measure(&counted[1], &addresses[1], arguments, seconds)?;
        if round > 0 {
            rounds.push([one, other]);
        }
    }
    let median = |of: &dyn Fn(&[Measured; 2]) -> f64| median_and_p99(rounds.iter().map(of).collect()).0;
    println!(
        "program {}, {} rounds of {} s, {} connections; medians",
        arguments.program, arguments.rounds, arguments.seconds, arguments.connections
    );
    for (i, name) in ["wharf", "mod_cgid"].iter().enumerate() {
        println!(
            "{name:9} {:6.0} requests/s, {:.3} CPU s per 1,000 requests",
            median(&|r| r[i].per_second),
            median(&|r| r[i].cpu)
        );
    }
    println!(
        "wharf / mod_cgid: {:.2} of its requests/s, {:.2} times its CPU per request",
        median(&|r| r[0].per_second / r[1].per_second),
        median(&|r| r[0].cpu / r[1].cpu)
    );
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
