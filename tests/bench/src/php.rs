//! A pool of php-fpm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Killed, Result, wait_for};

/// The newest php-fpm: its name has its version in it.
fn php_fpm() -> Result<PathBuf> {
    let found = fs::read_dir("/usr/sbin")?.flatten().map(|entry| entry.path());
    let named = found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm")));
    Ok(named.max().ok_or("php-fpm (Debian package php-fpm) is not installed")?)
}

/// Starts so many processes of it, which listen on `php.sock` in `folder`.
///
/// # Errors
/// When there is none, or it does not listen.
pub fn php_pool(folder: &Path, processes: usize) -> Result<Killed> {
    let (socket, config) = (folder.join("php.sock"), folder.join("php-fpm.conf"));
    let text = format!(
        "[global]\ndaemonize = no\nerror_log = {0}/php.log\n[www]\nlisten = {1}\npm = static\npm.max_children = {processes}\n",
        folder.display(),
        socket.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(php_fpm()?);
    let process = Killed(command.arg("-n").arg("-R").arg("-y").arg(&config).spawn()?);
    wait_for(Duration::from_secs(10), || Ok(socket.exists().then_some(())))?;
    Ok(process)
}
