//! The admin socket: made so that nobody but its owner can ever open it, and never taken from a living container.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Makes the socket, mode 0600. Its folder is made with mode 0700 when it is not there. A socket that nobody listens on
/// any more is replaced.
///
/// The socket is made in a private folder and renamed, so that there is no moment at which others could open it.
///
/// # Errors
/// `AddrInUse` when another process listens on it, `AlreadyExists` when the path is something else than a socket, and
/// those of the file system. The message names the path.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("admin socket {}: {e}", path.display()));
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(named)?;
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(named(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "is in the way and not a socket; remove it",
            )));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            let what = "another wharf listens on it; stop that one, or give this one another state_dir or admin.socket";
            return Err(named(io::Error::new(io::ErrorKind::AddrInUse, what)));
        }
        _ => {}
    }
    let private = tempfile::Builder::new()
        .prefix(".a")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(named)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made).map_err(named)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).map_err(named)?;
    fs::rename(&made, path).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_socket_is_not_taken_and_a_stale_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/admin.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
