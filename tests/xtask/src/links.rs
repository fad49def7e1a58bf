//! Links between the pages of the project lead somewhere: to a file that is there, and to a heading in it.

use std::path::{Component, Path, PathBuf};

use crate::finding::Finding;
use crate::tree::Text;

/// Looks at every relative link of every Markdown page.
pub(crate) fn check(files: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in files.iter().filter(|f| f.path.ends_with(".md")) {
        for (number, target) in links(&page.text) {
            if let Some(what) = broken(page, target, files) {
                findings.push(Finding::error(format!("{}:{number}", page.path), format!("the link '{target}' {what}")));
            }
        }
    }
    findings
}

/// The targets of the links, with their lines; those in code are no links.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let mut code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for (at, opening) in line.match_indices("](") {
            if let Some(end) = line[at..].find(')') {
                all.push((number, &line[at + opening.len()..at + end]));
            }
        }
    }
    all
}

fn broken(page: &Text, target: &str, files: &[Text]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = Path::new(&page.path).parent().unwrap_or(Path::new(""));
    let path = if path.is_empty() { page.path.clone() } else { plain(&folder.join(path)) };
    let is_folder = |f: &Text| f.path.strip_prefix(&path).is_some_and(|rest| path.is_empty() || rest.starts_with('/'));
    let Some(file) = files.iter().find(|f| f.path == path) else {
        return (!files.iter().any(is_folder)).then(|| format!("leads to no file: there is no {path}"));
    };
    let anchor = anchor.filter(|_| path.ends_with(".md"))?;
    (!headings(&file.text).any(|h| h == anchor)).then(|| format!("leads to no heading of {path}"))
}

/// The path without `.` and `..`, and without a slash at its end.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain.to_string_lossy().into_owned()
}

/// The headings as anchors: in lower case, with hyphens for spaces and without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_somewhere() {
        let file = |path: &str, text: &str| Text { path: path.into(), text: text.into() };
        let page = |link: &str| {
            let page = file("docs/a.md", &format!("# Head\n\nsee [it]({link}).\n"));
            check(&[page, file("README.md", "## What's new, then?\n"), file("src/x/y.rs", "")])
        };
        for good in [
            "../README.md",
            "../README.md#whats-new-then",
            "#head",
            "../src/x",
            "../src/x/",
            "../src/x/y.rs",
            "https://example.org/x#y",
            "a.md",
        ] {
            assert_eq!(page(good), [], "{good}");
        }
        for (bad, word) in [
            ("../NONE.md", "no file"),
            ("README.md", "no file"),
            ("../src/x/z.rs", "no file"),
            ("#tail", "no heading"),
            ("../README.md#head", "no heading"),
        ] {
            let findings = page(bad);
            assert!(findings.len() == 1 && findings[0].what.contains(word), "{bad}: {findings:?}");
            assert_eq!(findings[0].place, "docs/a.md:3");
        }
    }

    #[test]
    fn code_has_no_links() {
        let page = Text { path: "a.md".into(), text: "```rust\n#[a](b)\n```\n[c](d)\n".into() };
        let findings = check(&[page]);
        assert!(findings.len() == 1 && findings[0].place == "a.md:4", "{findings:?}");
    }
}
