//! nginx as the other server of a comparison.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::{Result, cpu_seconds, family, wait_for};

/// A process that ends, with its children, when this is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGTERM, so that a master takes its workers along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A running nginx.
pub struct Nginx {
    process: Killed,
    /// Its root, as a URL.
    pub url: String,
}

impl Nginx {
    /// Starts it in `folder`, with this inside `http` and this inside its one `server`.
    ///
    /// # Errors
    /// When there is no nginx, or it does not listen.
    pub fn start(folder: &Path, http: &str, server: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Started by root its workers would be somebody who may not open what root has made here.
        let user = if std::fs::metadata("/proc/self")?.uid() == 0 { "user root; " } else { "" };
        let config = format!(
            "{user}daemon off; worker_processes auto; pid nginx.pid; error_log stderr crit; events {{ worker_connections 4096; }}
            http {{ access_log off; keepalive_requests 100000000; client_body_temp_path t1; proxy_temp_path t2;
            fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; {http}
            server {{ listen 127.0.0.1:{port}; {server} }} }}"
        );
        std::fs::write(folder.join("nginx.conf"), config)?;
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut nginx = Command::new(program);
        nginx.arg("-p").arg(folder).args(["-c", "nginx.conf"]);
        let process = Killed(nginx.spawn().map_err(|e| format!("nginx (Debian package nginx-core): {e}"))?);
        wait_for(Duration::from_secs(10), || Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop)))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}") })
    }

    /// Processor seconds of all its processes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn cpu_seconds(&self) -> Result<f64> {
        family(self.process.0.id())?.into_iter().map(cpu_seconds).sum()
    }
}
