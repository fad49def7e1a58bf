//! Wharf beside nginx in front of the same pool of php-fpm, in one run and in turns.
//!
//! `cargo run --release -p wharf-bench --bin fastcgi`; needs wrk, nginx and php-fpm. Prints medians and the ratios of each round; the
//! processor seconds are those of the web server alone.
#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use wharf_bench::{Nginx, Result, Rounds, Server, build, exit_code, in_turns, php_pool, rate_of, wharf};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// Keep-alive connections of the client.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Bytes of the page.
    #[arg(long, default_value_t = 1000)]
    bytes: usize,
    /// Processes of PHP.
    #[arg(long, default_value_t = 8)]
    processes: usize,
}

fn run(arguments: &Arguments) -> Result<()> {
    let release = build(&["wharf", "wharf-bench"])?;
    let folder = tempfile::tempdir()?;
    let site = folder.path().join("deploy/ROOT");
    fs::create_dir_all(&site)?;
    let _pool = php_pool(folder.path(), arguments.processes)?;
    let socket = folder.path().join("php.sock");
    fs::write(site.join("page.php"), format!("<?php echo str_repeat('x', {});\n", arguments.bytes))?;
    let toml = format!(
        "kind = \"fastcgi\"\nroot = \".\"\n[fastcgi]\naddress = \"unix:{}\"\nmax_connections = {}\n",
        socket.display(),
        arguments.processes
    );
    fs::write(site.join("app.toml"), toml)?;
    let wharf = Server::start(&mut wharf(&release, folder.path()))?;
    let nginx = Nginx::start(
        folder.path(),
        "",
        &format!(
            "root {}; location ~ \\.php$ {{ try_files $uri =404; include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_pass unix:{}; }}",
            site.display(),
            socket.display()
        ),
    )?;
    let (own, other) = (format!("http://{}/page.php", wharf.address), format!("{}/page.php", nginx.url));
    let connections = arguments.connections;
    println!(
        "a page of {} bytes, {} processes of PHP, {connections} connections",
        arguments.bytes, arguments.processes
    );
    in_turns(
        &arguments.rounds,
        &[
            ("wharf", Box::new(|s| rate_of(&own, || wharf.cpu_seconds(), connections, s, false))),
            ("nginx", Box::new(|s| rate_of(&other, || nginx.cpu_seconds(), connections, s, false))),
        ],
    )
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}
