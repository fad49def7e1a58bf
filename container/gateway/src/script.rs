//! Which program answers a path: found by the longest prefix that exists, never by what the path merely looks like
//! (RFC 3875, section 3.2).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::beneath::{Beneath, Entry};
use wharf_mapping::is_private;

/// Which files are programs.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScriptRules {
    /// Extensions of programs, without the dot, in lower case. Empty: every file is one.
    pub(crate) extensions: BTreeSet<String>,
    /// Names that answer for a folder, in this order.
    pub(crate) index: Vec<String>,
    /// Folders below the root in which nothing is a program, as `uploads`.
    pub(crate) no_execute: Vec<String>,
}

impl ScriptRules {
    /// Whether a file of this path below the root may be run.
    fn may_run(&self, path: &str) -> bool {
        let below = |folder: &String| {
            let folder = folder.trim_matches('/');
            let mut own = path.split('/').filter(|s| !s.is_empty());
            // In any case of letters: what is harmless in `Uploads` must not be run in `uploads`.
            folder.split('/').filter(|s| !s.is_empty()).all(|s| own.next().is_some_and(|o| o.eq_ignore_ascii_case(s)))
        };
        if self.no_execute.iter().any(below) {
            return false;
        }
        let extension = Path::new(path).extension().and_then(|e| e.to_str());
        self.extensions.is_empty() || extension.is_some_and(|e| self.extensions.contains(&e.to_ascii_lowercase()))
    }
}

/// A program, and how the path is shared between it and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Its path below the context path, decoded: the end of `SCRIPT_NAME`.
    pub(crate) name: String,
    /// The file.
    pub(crate) file: PathBuf,
    /// The rest of the path, decoded; empty without one.
    pub(crate) path_info: String,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A program.
    Script(Script),
    /// A file that is no program, or a folder without an index program.
    File,
    /// A folder with an index program, asked for without the slash at its end.
    Folder,
    /// Nothing.
    Missing,
}

/// Finds what answers the decoded and canonical path `inner`, which begins with a slash. Blocks for as long as the file system does.
///
/// # Errors
/// Trouble of the machine, such as too many open files; a file that is not there or not to be had is [`Found::Missing`].
pub(crate) fn find(root: &Beneath, at: &Path, rules: &ScriptRules, inner: &str) -> io::Result<Found> {
    let segments: Vec<&str> = inner.split('/').filter(|s| !s.is_empty()).collect();
    // No path that was made canonical has these.
    let foreign = !inner.starts_with('/') || inner.contains("//") || inner.contains('\0');
    if foreign || segments.iter().any(|s| matches!(*s, "." | "..")) {
        return Ok(Found::Missing);
    }
    let mut prefix = String::with_capacity(inner.len());
    let mut is_folder = true;
    for segment in &segments {
        prefix.push('/');
        prefix.push_str(segment);
        if is_private(&prefix) {
            return Ok(Found::Missing);
        }
        match kind(root, &prefix)? {
            Some(Entry::Folder) => {}
            Some(Entry::File) => {
                is_folder = false;
                break;
            }
            None => return Ok(Found::Missing),
        }
    }
    if is_folder {
        return folder(root, at, rules, &prefix, inner.ends_with('/'));
    }
    // The path was canonical: its text begins with the prefix.
    let path_info = inner.get(prefix.len()..).unwrap_or_default();
    if rules.may_run(&prefix) {
        return Ok(Found::Script(script(at, prefix.clone(), path_info)));
    }
    Ok(if path_info.is_empty() { Found::File } else { Found::Missing })
}

fn folder(root: &Beneath, at: &Path, rules: &ScriptRules, prefix: &str, slash: bool) -> io::Result<Found> {
    for index in &rules.index {
        let name = format!("{prefix}/{index}");
        if !is_private(&name) && rules.may_run(&name) && kind(root, &name)? == Some(Entry::File) {
            return Ok(if slash { Found::Script(script(at, name, "")) } else { Found::Folder });
        }
    }
    Ok(Found::File)
}

fn script(at: &Path, name: String, path_info: &str) -> Script {
    Script { file: at.join(name.trim_start_matches('/')), path_info: path_info.to_owned(), name }
}

fn kind(root: &Beneath, path: &str) -> io::Result<Option<Entry>> {
    root.kind(Path::new(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for folder in ["a/b", "uploads", ".git", "empty", "APP-PRIVATE"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            "index.cgi",
            "a/x.cgi",
            "a/b/index.pl",
            "x.jpg",
            "uploads/evil.cgi",
            ".git/x.cgi",
            "APP-PRIVATE/x.cgi",
            "style.css",
        ] {
            std::fs::write(root.join(file), "").unwrap();
        }
        std::fs::write(dir.path().join("out.cgi"), "").unwrap();
        std::os::unix::fs::symlink("../out.cgi", root.join("link.cgi")).unwrap();
        std::os::unix::fs::symlink("a/x.cgi", root.join("inner.cgi")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo.cgi"), rustix::fs::Mode::RWXU).unwrap();
        dir
    }

    type Row = (&'static str, Result<(&'static str, &'static str), Found>);

    #[test]
    fn paths_lead_to_programs_or_nowhere() {
        let dir = site();
        let at = dir.path().join("root");
        let root = Beneath::open_root(&at).unwrap();
        let rules = ScriptRules {
            extensions: ["cgi", "pl"].map(str::to_owned).into(),
            index: vec!["index.cgi".into(), "index.pl".into()],
            no_execute: vec!["/uploads".into()],
        };
        let rows: &[Row] = &[
            ("/", Ok(("/index.cgi", ""))),
            ("/a/x.cgi", Ok(("/a/x.cgi", ""))),
            ("/a/x.cgi/", Ok(("/a/x.cgi", "/"))),
            ("/a/x.cgi/p/q.cgi", Ok(("/a/x.cgi", "/p/q.cgi"))),
            // A dot file in the path info is the program's own business.
            ("/a/x.cgi/.git/config", Ok(("/a/x.cgi", "/.git/config"))),
            ("/a/b/", Ok(("/a/b/index.pl", ""))),
            ("/a/b", Err(Found::Folder)),
            ("/inner.cgi", Ok(("/inner.cgi", ""))),
            ("/a/none.cgi", Err(Found::Missing)),
            ("/x.jpg", Err(Found::File)),
            ("/x.jpg/a.cgi", Err(Found::Missing)),
            ("/style.css", Err(Found::File)),
            ("/uploads/evil.cgi", Err(Found::File)),
            ("/uploads/evil.cgi/x", Err(Found::Missing)),
            ("/.git/x.cgi", Err(Found::Missing)),
            ("/app-private/x.cgi", Err(Found::Missing)),
            ("/APP-PRIVATE/x.cgi", Err(Found::Missing)),
            ("/link.cgi", Err(Found::Missing)),
            ("/fifo.cgi", Err(Found::Missing)),
            ("/../out.cgi", Err(Found::Missing)),
            ("/a/../index.cgi", Err(Found::Missing)),
            ("/empty/", Err(Found::File)),
        ];
        for (path, expected) in rows {
            let found = find(&root, &at, &rules, path).unwrap();
            match (expected, found) {
                (Ok((name, info)), Found::Script(script)) => {
                    assert_eq!((script.name.as_str(), script.path_info.as_str()), (*name, *info), "{path}");
                    assert_eq!(script.file, at.join(&name[1..]), "{path}");
                }
                (Err(expected), found) => assert_eq!(*expected, found, "{path}"),
                (expected, found) => panic!("{path}: {found:?}, not {expected:?}"),
            }
        }
    }

    proptest! {
        /// Whatever is asked for: a program that is found is a file below the root, and name and path info are the path.
        #[test]
        fn nothing_outside_is_found(
            segments in proptest::collection::vec(
                prop_oneof![
                    Just(".."), Just("."), Just("a"), Just("b"), Just("x.cgi"), Just("uploads"), Just("evil.cgi"), Just(""),
                    Just("link.cgi"), Just("out.cgi"), Just(".git"), Just("x.jpg"), Just("index.cgi"), Just("é"),
                ],
                0..5,
            ),
        ) {
            let dir = site();
            let at = dir.path().join("root");
            let root = Beneath::open_root(&at).unwrap();
            let rules = ScriptRules {
                extensions: ["cgi".to_owned()].into(),
                no_execute: vec!["uploads".into()],
                ..ScriptRules::default()
            };
            let path = format!("/{}", segments.join("/"));
            if let Found::Script(script) = find(&root, &at, &rules, &path).unwrap() {
                prop_assert_eq!(format!("{}{}", script.name, script.path_info), path);
                let real = std::fs::canonicalize(&script.file).unwrap();
                prop_assert!(real.starts_with(std::fs::canonicalize(&at).unwrap()));
                prop_assert!(!script.name.contains("uploads") && !script.name.contains("/."));
            }
        }
    }

    #[test]
    fn without_extensions_every_file_is_a_program_but_not_among_uploads() {
        let rules = ScriptRules { no_execute: vec!["uploads".into(), "/a/b/".into()], ..ScriptRules::default() };
        for (path, may) in [
            ("/x", true),
            ("/uploads/x", false),
            ("/UPLOADS/x", false),
            ("/uploads2/x", true),
            ("/a/x", true),
            ("/a/b/c/x", false),
        ] {
            assert_eq!(rules.may_run(path), may, "{path}");
        }
    }
}
