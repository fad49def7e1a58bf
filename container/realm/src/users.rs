//! The users file: one user a line, `name:hash:role,role`. The hash is argon2id in the PHC string format (RFC 9106).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// The longest password that is computed, in bytes: a longer one is wrong.
pub const MAX_PASSWORD: usize = 1024;
/// The most memory that a hash may cost, in KiB.
const MAX_MEMORY: u32 = 256 * 1024;
/// The most passes.
const MAX_PASSES: u32 = 16;
/// The most lanes.
const MAX_LANES: u32 = 8;

/// One user.
#[derive(Debug, Clone)]
pub struct User {
    hash: Arc<str>,
    /// Roles.
    pub roles: Vec<String>,
}

/// All users of a file.
#[derive(Debug, Clone, Default)]
pub struct Users {
    users: BTreeMap<String, User>,
    /// What is computed for a name that nobody has: as costly as the costliest of the file.
    decoy: Option<Arc<str>>,
}

impl Users {
    /// Reads the text of the file called `path`.
    ///
    /// # Errors
    /// File, line and what is wrong. Never the line itself: it has a hash.
    pub fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        let mut costliest: Option<(u64, Params)> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("{}:{}: {what}", path.display(), number + 1);
            let mut parts = line.splitn(3, ':');
            let (name, hash) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            check_name(name).map_err(|what| wrong(&what))?;
            let params = check_hash(hash).map_err(|what| wrong(&what))?;
            let roles: Vec<String> =
                parts.next().unwrap_or_default().split(',').filter(|r| !r.is_empty()).map(str::to_owned).collect();
            for role in &roles {
                check_role(role).map_err(|what| wrong(&what))?;
            }
            let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
            if costliest.as_ref().is_none_or(|(most, _)| cost > *most) {
                costliest = Some((cost, params));
            }
            if users.insert(name.to_owned(), User { hash: hash.into(), roles }).is_some() {
                return Err(wrong("this user is in the file twice"));
            }
        }
        let params = costliest.map_or_else(Params::default, |(_, params)| params);
        let decoy = hash_with(&params, b"nobody").ok().map(Into::into);
        Ok(Self { users, decoy })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As the file system says, and as [`Users::parse`].
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(path, &text)
    }

    /// The user with this name and password. Slow by design. As slow for a name that nobody has.
    pub fn verify(&self, name: &str, password: &[u8]) -> Option<&User> {
        let user = self.users.get(name);
        let hash = user.map_or(self.decoy.as_ref(), |user| Some(&user.hash))?;
        let right = is_right(hash, password);
        user.filter(|_| right)
    }

    /// Names and roles, in order.
    pub fn list(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.users.iter().map(|(name, user)| (name.as_str(), user.roles.as_slice()))
    }

    /// Gives a user another password, or takes a new one in. Roles stay as they are where none are given.
    ///
    /// # Errors
    /// A name, role or password that can't be.
    pub fn set(&mut self, name: &str, password: &[u8], roles: Option<Vec<String>>) -> Result<(), String> {
        check_name(name)?;
        roles.iter().flatten().try_for_each(|role| check_role(role))?;
        if password.is_empty() || password.len() > MAX_PASSWORD || password.iter().any(u8::is_ascii_control) {
            return Err(format!("the password must have 1 to {MAX_PASSWORD} bytes, and no control characters"));
        }
        let hash = hash_with(&Params::default(), password)?.into();
        let before = self.users.remove(name).map(|user| user.roles);
        self.users.insert(name.to_owned(), User { hash, roles: roles.or(before).unwrap_or_default() });
        Ok(())
    }

    /// Takes a user out; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.users.remove(name).is_some()
    }

    /// Writes the file in one rename, for its owner alone.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        writeln!(file, "# Users of Wharf: name:hash:role,role. Written by 'wharf passwd'.")?;
        for (name, user) in &self.users {
            writeln!(file, "{name}:{}:{}", user.hash, user.roles.join(","))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Whether a hash is that of a password. Slow by design.
pub(crate) fn is_right(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| argon().verify_password(password, &hash).is_ok())
}

/// A hash as costly as those of new passwords, and nobody's.
///
/// # Errors
/// When there are no random numbers.
pub(crate) fn decoy() -> Result<String, String> {
    hash_with(&Params::default(), b"nobody")
}

fn argon() -> Argon2<'static> {
    Argon2::default()
}

fn hash_with(params: &Params, password: &[u8]) -> Result<String, String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| format!("no random numbers: {e}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| e.to_string())?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon.hash_password(password, &salt).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

/// A name as RFC 7617 can carry it.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.starts_with('#') || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err(format!(
            "'{}' can't be a user name: no ':', no control characters, no '#' first",
            name.escape_debug()
        ));
    }
    Ok(())
}

pub(crate) fn check_role(role: &str) -> Result<(), String> {
    if role.is_empty() || role.starts_with('*') || role.contains(|c: char| c == ',' || c.is_control()) {
        return Err(format!("'{}' can't be a role: no ',', no control characters, no '*' first", role.escape_debug()));
    }
    Ok(())
}

/// Whether a hash is argon2id of a cost that the container is willing to pay.
pub(crate) fn check_hash(hash: &str) -> Result<Params, String> {
    let hash = PasswordHash::new(hash).map_err(|_| "no password hash; set the password with 'wharf passwd'")?;
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return Err("not an argon2id hash; set the password with 'wharf passwd'".into());
    }
    let params = Params::try_from(&hash).map_err(|_| "the parameters of the hash are not valid")?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err(format!("the hash costs more than m={MAX_MEMORY},t={MAX_PASSES},p={MAX_LANES}"));
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let mut users = Users::default();
        users.set("ann", "sécret".as_bytes(), Some(vec!["admin".into(), "dev".into()])).unwrap();
        users.set("bob", b"hunter2", None).unwrap();
        users.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = Users::read(&path).unwrap();
        assert_eq!(read.verify("ann", "sécret".as_bytes()).unwrap().roles, ["admin", "dev"]);
        for (name, password) in [("ann", &b"hunter2"[..]), ("bob", b""), ("bo", b"hunter2"), ("", b"nobody")] {
            assert!(read.verify(name, password).is_none(), "{name}");
        }
        read.set("ann", b"other", None).unwrap();
        assert_eq!(read.verify("ann", b"other").unwrap().roles, ["admin", "dev"]);
        assert!(read.remove("bob") && !read.remove("bob"));
    }

    #[test]
    fn what_can_not_be_right_is_refused_with_its_line() {
        let good = hash_with(&Params::default(), b"x").unwrap();
        for (line, word) in [
            ("ann".to_owned(), "wharf passwd"),
            ("ann:secret".into(), "wharf passwd"),
            (format!(":{good}"), "user name"),
            (format!("ann:{good}:*"), "role"),
            (format!("ann:{}", good.replace("argon2id", "argon2i")), "argon2id"),
            (format!("ann:{}", good.replace("m=19456", "m=4000000")), "costs more"),
            (format!("bob:{good}\nbob:{good}"), "twice"),
        ] {
            let error = Users::parse(Path::new("users"), &format!("# users\n{line}\n")).unwrap_err();
            assert!(error.starts_with("users:") && error.contains(word), "{error}");
            assert!(!error.contains("$argon"), "{error}");
        }
        let mut users = Users::default();
        for (name, password) in [("a:b", "x"), ("", "x"), ("ann", ""), ("ann", "a\nb"), ("ann", &"x".repeat(1025))] {
            assert!(users.set(name, password.as_bytes(), None).is_err(), "{name}");
        }
    }
}
