//! The work that a release is trained with (`.ci/dist`): a container that was built to count runs requests of every kind that
//! it is quick at, and ends as an operator would end it, so that it writes its counts.
//!
//! `train PROGRAM`; needs wrk, h2load and php-fpm.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use wharf_bench::{Result, Server, build, certify, exit_code, h2_rate_of, php_pool};

#[derive(Parser)]
struct Arguments {
    /// The container.
    program: PathBuf,
    /// Seconds for each kind of request.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
}

/// What wrk sends beside a bare GET.
const POSTED: &[(&str, &str)] = &[
    (
        "/app/form",
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\nwrk.body = 'name=Ada&text=' .. string.rep('x', 1000)\n",
    ),
    (
        "/app/echo",
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/octet-stream'\nwrk.body = string.rep('x', 65536)\n",
    ),
];

const ASKED: &[&str] = &[
    "/app/hello",
    "/app/blocking",
    "/app/json?name=Ada",
    "/app/download",
    "/mounted/hello",
    "/mounted/json?name=Ada",
    "/static/file.bin",
    "/proxy/",
    "/php/page.php",
];

fn run(arguments: &Arguments) -> Result<()> {
    let program = std::path::absolute(&arguments.program)?;
    let release = build(&["bench-app", "bench-axum", "wharf-bench"])?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["deploy/php", "files"] {
        fs::create_dir_all(at(name))?;
    }
    let backend = Server::start(&mut Command::new(release.join("plain_hyper")))?;
    let _pool = php_pool(folder.path(), 4)?;
    fs::copy(release.join("libbench_app.so"), at("deploy/app.so"))?;
    fs::copy(release.join("libbench_axum.so"), at("deploy/mounted.so"))?;
    fs::write(at("files/file.bin"), [b'x'; 10 * 1024])?;
    fs::write(at("deploy/static.toml"), format!("kind = \"static\"\nroot = \"{}\"\n", at("files").display()))?;
    let backends = format!("kind = \"proxy\"\n[proxy]\nbackends = [\"http://{}\"]\n", backend.address);
    fs::write(at("deploy/proxy.toml"), backends)?;
    fs::write(at("deploy/php/page.php"), "<?php echo str_repeat('x', 1000);\n")?;
    let php = format!("kind = \"fastcgi\"\n[fastcgi]\naddress = \"unix:{}\"\n", at("php.sock").display());
    fs::write(at("deploy/php/app.toml"), php)?;
    certify(folder.path())?;

    // Once as it is set up, with the access log, and once without, over TLS.
    for (listen, log) in [("http", "combined"), ("https", "off")] {
        let mut wharf = Command::new(&program);
        wharf.args(["run", "--set", &format!("server.listen={listen}://127.0.0.1:0"), "--set", "log.level=error"]);
        wharf.args(["--set", &format!("access_log.format={log}")]).current_dir(folder.path());
        let wharf = Server::start(&mut wharf)?;
        let base = format!("{listen}://{}", wharf.address);
        let script = at("work.lua");
        let works = POSTED.iter().copied().chain(ASKED.iter().map(|path| (*path, "")));
        for (path, lua) in works {
            fs::write(&script, lua)?;
            let mut wrk = Command::new("wrk");
            wrk.args(["-t", "1", "-c", "32", "-d", &format!("{}s", arguments.seconds), "-s"]).arg(&script);
            let output =
                wrk.arg(format!("{base}{path}")).output().map_err(|e| format!("wrk (Debian package wrk): {e}"))?;
            let report = String::from_utf8_lossy(&output.stdout);
            if !report.contains("requests in") || report.contains("Non-2xx") {
                return Err(format!("{path}: requests failed:\n{report}").into());
            }
        }
        if listen == "https" {
            for path in ["/app/hello", "/app/json?name=Ada", "/static/file.bin"] {
                h2_rate_of(&format!("{base}{path}"), || wharf.cpu_seconds(), 8, 16, 2 * arguments.seconds)?;
            }
        }
        wharf.end()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
