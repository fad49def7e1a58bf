//! Copies of the good files of each application, for `wharf rollback`.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::scan::Print;

/// The kept files of one application: `NUMBER-SHA256.so`, the highest number the newest.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    dir: PathBuf,
}

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Its number.
    pub(crate) number: u64,
    /// Hexadecimal SHA-256 of its content.
    pub(crate) sha256: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Kept {
    /// The kept files of the application with this name.
    pub(crate) fn new(state_dir: &Path, name: &str) -> Self {
        Self { dir: state_dir.join("versions").join(name) }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Copy> {
        let mut all: Vec<Copy> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let (number, sha256) = path.file_name()?.to_str()?.strip_suffix(".so")?.split_once('-')?;
                Some(Copy { number: number.parse().ok()?, sha256: sha256.to_owned(), path: path.clone() })
            })
            .collect();
        all.sort_unstable_by_key(|c| c.number);
        all
    }

    /// Keeps a copy of `file`, whose content has this hash and whose print was `print` when it was hashed, and removes
    /// all but the newest `keep` and the current one. A content that is kept already is not copied again.
    ///
    /// Returns the number of the copy; `None` when the file has changed since.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn keep(&self, file: &Path, sha256: &str, print: &Print, keep: usize) -> io::Result<Option<u64>> {
        let all = self.list();
        let rolled_back = fs::read_to_string(self.rollback_mark()).is_ok_and(|mark| mark == sha256);
        if !rolled_back {
            let _ = fs::remove_file(self.rollback_mark());
        }
        let newest = all.last().map_or(0, |c| c.number);
        if let Some(copy) = all.iter().rev().find(|c| c.sha256 == sha256) {
            if rolled_back || copy.number == newest {
                return Ok(Some(copy.number));
            }
            // Deployed again after others: the newest of all from now on.
            fs::rename(&copy.path, self.path_of(newest + 1, sha256))?;
            return Ok(Some(newest + 1));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let number = newest + 1;
        let temporary = tempfile::NamedTempFile::new_in(&self.dir)?;
        fs::copy(file, temporary.path())?;
        if Print::of(file)? != *print {
            return Ok(None);
        }
        temporary.persist(self.path_of(number, sha256))?;
        for old in all.iter().rev().skip(keep) {
            fs::remove_file(&old.path)?;
        }
        Ok(Some(number))
    }

    fn path_of(&self, number: u64, sha256: &str) -> PathBuf {
        self.dir.join(format!("{number:06}-{sha256}.so"))
    }

    fn rollback_mark(&self) -> PathBuf {
        self.dir.join("rolled-back-to")
    }

    /// Remembers that the content with this hash comes back by a rollback: it keeps its place, so that the next rollback
    /// goes one further back.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn mark_rollback(&self, sha256: &str) -> io::Result<()> {
        fs::write(self.rollback_mark(), sha256)
    }

    /// The newest copy older than `number`.
    pub(crate) fn before(&self, number: u64) -> Option<Copy> {
        self.list().into_iter().rev().find(|c| c.number < number)
    }

    /// The copy with this number.
    pub(crate) fn get(&self, number: u64) -> Option<Copy> {
        self.list().into_iter().find(|c| c.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_equal_ones_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.so");
        let kept = Kept::new(dir.path(), "a");
        for n in 1..=5 {
            fs::write(&file, format!("{n}")).unwrap();
            let print = Print::of(&file).unwrap();
            assert_eq!(kept.keep(&file, &format!("h{n}"), &print, 2).unwrap(), Some(n));
            assert_eq!(kept.keep(&file, &format!("h{n}"), &print, 2).unwrap(), Some(n));
        }
        let numbers: Vec<_> = kept.list().iter().map(|c| c.number).collect();
        assert_eq!(numbers, [3, 4, 5]);
        assert_eq!(fs::read_to_string(kept.before(5).unwrap().path).unwrap(), "4");
        assert!(kept.before(3).is_none());
    }

    #[test]
    fn what_is_deployed_again_is_the_newest_and_what_is_rolled_back_to_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.so");
        let kept = Kept::new(dir.path(), "a");
        let deploy = |content: &str| {
            fs::write(&file, content).unwrap();
            kept.keep(&file, content, &Print::of(&file).unwrap(), 5).unwrap().unwrap()
        };
        assert_eq!([deploy("one"), deploy("two"), deploy("one")], [1, 2, 3]);
        assert_eq!(kept.before(3).unwrap().sha256, "two");
        kept.mark_rollback("two").unwrap();
        assert_eq!(deploy("two"), 2);
        assert!(kept.before(2).is_none(), "its first deployment has moved to 3");
        assert_eq!(deploy("three"), 4);
        assert_eq!(deploy("two"), 5);
    }

    #[test]
    fn a_file_that_changed_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.so");
        fs::write(&file, "1").unwrap();
        let print = Print::of(&file).unwrap();
        fs::write(&file, "22").unwrap();
        let kept = Kept::new(dir.path(), "a");
        assert_eq!(kept.keep(&file, "h", &print, 2).unwrap(), None);
        assert!(kept.list().is_empty());
    }
}
