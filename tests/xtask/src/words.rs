//! Committed text speaks of the project alone: no folder of a developer's machine in it.

use crate::finding::Finding;
use crate::tree::Text;

/// Beginnings of absolute paths that mean nothing to anybody else. Written in two parts, for this file is checked, too.
const FOREIGN: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Looks through all files but the lock file.
pub(crate) fn check(files: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path != "Cargo.lock") {
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in FOREIGN.iter().filter(|w| begins_path(line, w)) {
                findings.push(Finding::error(
                    format!("{}:{number}", file.path),
                    format!("'{word}' is a folder of one machine: write a path relative to the project"),
                ));
            }
        }
    }
    findings
}

/// Whether an absolute path in `line` begins with `word`; `a/b` inside a longer path is no such place.
fn begins_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | ')' | '*' | '~'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_folders_are_found_with_their_line() {
        let file = |path: &str, text: String| Text { path: path.into(), text };
        let (one, two) = (FOREIGN[0], FOREIGN[1]);
        let files = [
            file("a.md", format!("fine\nsee {one}x\n")),
            file("b.rs", format!("let p = \"{two}y\";\n")),
            file("c.md", format!("sample-apps{one}x and ~{two}y\n")),
            file("Cargo.lock", format!("{one}\n")),
        ];
        let places: Vec<String> = check(&files).into_iter().map(|f| f.place).collect();
        assert_eq!(places, ["a.md:2", "b.rs:1"]);
    }
}
