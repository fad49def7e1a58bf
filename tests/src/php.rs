//! PHP from Debian's packages, behind FastCGI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Site, wait};

/// The PHP FastCGI process manager on a socket of its own.
pub struct Fpm {
    child: Child,
    socket: PathBuf,
}

impl Drop for Fpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The newest `php-fpm` there is; its name has its version in it.
pub fn fpm_program() -> String {
    let names = fs::read_dir("/usr/sbin").into_iter().flatten().flatten();
    let mut names: Vec<_> = names.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("php-fpm"));
    names.sort();
    format!("/usr/sbin/{}", names.last().map_or("php-fpm", String::as_str))
}

impl Fpm {
    /// Two processes, with the further lines in their pool.
    ///
    /// # Panics
    /// When it can't be run.
    pub fn start(site: &Site, pool: &str) -> Self {
        let (socket, conf) = (site.path("fpm.sock"), site.path("fpm.conf"));
        let root = rustix::process::geteuid().is_root();
        let user = if root { "user = root\ngroup = root\n" } else { "" };
        fs::create_dir_all(site.path("sessions")).unwrap();
        let text = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n[www]\nlisten = {socket}\n{user}pm = static\npm.max_children = 2\n\
             pm.status_path = /status\nping.path = /ping\nphp_admin_value[session.save_path] = {sessions}\n{pool}",
            log = site.path("fpm.log").display(),
            socket = socket.display(),
            sessions = site.path("sessions").display(),
        );
        site.put("fpm.conf", text);
        let mut command = Command::new(fpm_program());
        command.args(["-F", "-y"]).arg(&conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if root {
            command.arg("-R");
        }
        let child = command.spawn().expect("php-fpm runs");
        wait("php-fpm's socket", || socket.exists().then_some(()));
        Self { child, socket }
    }

    /// The TOML file of an application that it runs, with these options.
    pub fn toml(&self, options: &str) -> String {
        format!("kind = \"fastcgi\"\n[fastcgi]\naddress = \"unix:{}\"\n{options}", self.socket.display())
    }
}

/// Copies a folder, files behind links too.
///
/// # Panics
/// When it can't be.
pub fn copy(from: &str, to: &Path) {
    let status = Command::new("cp").args(["-rL", from]).arg(to).status().expect("cp runs");
    assert!(status.success(), "{from}");
}
