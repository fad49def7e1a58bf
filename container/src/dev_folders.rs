//! Applications that need no build, for `wharf dev`: folders with an `app.toml` that names another kind than `module`. They are
//! copied into the deploy folder, and copied again when they change.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::dev_build::source_folders;

/// The folder applications under the paths.
pub(crate) fn find(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = BTreeSet::new();
    for path in paths.iter().filter_map(|p| fs::canonicalize(p).ok()) {
        add(&path, 4, &mut all);
    }
    all.into_iter().collect()
}

fn add(dir: &Path, depth: usize, all: &mut BTreeSet<PathBuf>) {
    // The `app.toml` of a crate is for the module that is built of it.
    if let Ok(text) = fs::read_to_string(dir.join("app.toml"))
        && !dir.join("Cargo.toml").exists()
    {
        // A file that can't be read as TOML is deployed, and refused with its place.
        let kind = text.parse::<toml::Table>().ok().and_then(|t| Some(t.get("kind")?.as_str()? == "module"));
        if kind != Some(true) {
            all.insert(dir.to_owned());
        }
        return;
    }
    if depth > 0 {
        source_folders(dir).iter().for_each(|sub| add(sub, depth - 1, all));
    }
}

/// Makes the copy in `deploy` the same as the folder. `app.toml` comes last, since its change is what redeploys the
/// application. Says whether anything was copied or removed.
///
/// # Errors
/// As the file system says.
pub(crate) fn install(folder: &Path, deploy: &Path) -> io::Result<bool> {
    let target = deploy.join(folder.file_name().unwrap_or_default());
    let mut changed = copy_folder(folder, &target, true)?;
    changed |= copy_file(&folder.join("app.toml"), &target.join("app.toml"))?;
    Ok(changed)
}

fn is_source(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with('~') && name != "target"
}

fn copy_folder(from: &Path, to: &Path, top: bool) -> io::Result<bool> {
    fs::create_dir_all(to)?;
    let mut changed = false;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_source(&name.to_string_lossy()) || (top && name == "app.toml") {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            changed |= copy_folder(&entry.path(), &to.join(&name), false)?;
        } else if kind.is_file() {
            changed |= copy_file(&entry.path(), &to.join(&name))?;
        } else {
            continue;
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let name = entry.file_name();
        // What is hidden the application may have written itself.
        if is_source(&name.to_string_lossy()) && !names.contains(&name) && !(top && name == "app.toml") {
            let gone = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            gone?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Copies content and permissions, in one rename, where they differ.
fn copy_file(from: &Path, to: &Path) -> io::Result<bool> {
    let content = fs::read(from)?;
    let permissions = fs::metadata(from)?.permissions();
    if fs::read(to).is_ok_and(|old| old == content) && fs::metadata(to)?.permissions() == permissions {
        return Ok(false);
    }
    let folder = to.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".dev-").suffix(".part").tempfile_in(folder)?;
    fs::write(temporary.path(), content)?;
    fs::set_permissions(temporary.path(), permissions)?;
    temporary.persist(to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_and_kept_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("src/a/app.toml", "kind = \"cgi\"");
        put("src/a/index.cgi", "1");
        put("src/a/sub/x", "x");
        put("src/a/.git/x", "x");
        put("src/b/app.toml", "kind = \"module\"");
        put("src/c/app.toml", "kind = ");
        put("src/e/app.toml", "kind = \"cgi\"");
        put("src/e/Cargo.toml", "");
        put("src/target/d/app.toml", "kind = \"cgi\"");
        let found = find(&[dir.path().join("src")]);
        let names: Vec<_> = found.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a", "c"]);

        let deploy = dir.path().join("deploy");
        assert!(install(&found[0], &deploy).unwrap());
        assert!(!install(&found[0], &deploy).unwrap());
        assert!(deploy.join("a/sub/x").exists() && !deploy.join("a/.git").exists());
        fs::remove_dir_all(dir.path().join("src/a/sub")).unwrap();
        put("src/a/index.cgi", "2");
        assert!(install(&found[0], &deploy).unwrap());
        assert_eq!(fs::read_to_string(deploy.join("a/index.cgi")).unwrap(), "2");
        assert!(!deploy.join("a/sub").exists() && deploy.join("a/app.toml").exists());
    }
}
