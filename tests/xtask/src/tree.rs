//! The files of the project, without what is built or deployed.

use std::fs;
use std::path::Path;

/// A text file.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// Path from the root of the workspace, with forward slashes.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
}

/// Names of what holds no committed text: build output, version control, state of a container that was run here.
const SKIPPED: &[&str] = &["target", ".git", ".wharf"];

/// Reads every text file under `root`. Files that are not UTF-8 are left out.
///
/// # Errors
/// Those of the file system, with the path.
pub(crate) fn read(root: &Path) -> Result<Vec<Text>, String> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<Text>) -> Result<(), String> {
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let entry = entry.map_err(|e| failed(folder, e))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|e| failed(folder, e))?);
        let name = entry.file_name();
        if SKIPPED.iter().any(|s| name == *s) {
            // `.git` is a file in a second working tree.
            continue;
        }
        if kind.is_dir() {
            let deployed = folder == root && name == "deploy";
            if !deployed {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() {
            // A file that goes while we look, or that is no text, is none of ours.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push(Text { path: relative, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_or_deployed_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.md", "x/b.rs", "x/target/c.rs", ".git/d", ".ci/run", "deploy/e.toml", "x/deploy/f.toml"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
        let paths: Vec<String> = read(dir.path()).unwrap().into_iter().map(|f| f.path).collect();
        assert_eq!(paths, [".ci/run", "a.md", "x/b.rs", "x/deploy/f.toml"]);
    }
}
