//! Laws about what stands in the sources.

use crate::code::{bare, grouped_std, has_word};
use crate::finding::Finding;
use crate::tree::Text;
use crate::workspace::Crate;

/// Crates whose `unsafe` is argued block by block; all others forbid it.
const UNSAFE_HOMES: &[&str] = &["sdk/abi", "sdk", "container/module", "container/isolate"];
/// Modules made to misbehave.
const FIXTURES: &str = "tests/fixtures";
/// Lines after which a file is worth a look, and too long.
const LONG: usize = 400;
const TOO_LONG: usize = 600;

/// Paths of the standard library that do I/O. Addresses (`std::net::IpAddr`) and traits (`std::io::Read`) do none.
const IO: &[&str] = &[
    "std::fs",
    "std::process",
    "std::env",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os::unix::net",
    "std::os::unix::fs",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
];

/// Checks all Rust files of the members.
pub(crate) fn check(crates: &[Crate], files: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".rs")) {
        // The crate whose folder is the longest that holds the file.
        let Some(owner) = crates.iter().filter(|c| holds(c, file)).max_by_key(|c| c.folder.len()) else { continue };
        // Inputs of tests of compile errors are what an author might write, not code of the project.
        if file.path.contains("/tests/ui/") {
            continue;
        }
        findings.extend(heading(file));
        findings.extend(length(file));
        if UNSAFE_HOMES.contains(&owner.folder.as_str()) {
            findings.extend(undocumented_unsafe(file));
        }
        if ["container/kernel", "sdk/mapping"].contains(&owner.folder.as_str()) && is_product(file) {
            findings.extend(io(file));
        }
        if owner.folder == "container" {
            findings.extend(crowd(file, crates));
        }
    }
    for one in crates {
        findings.extend(unsafe_allowed(one, files));
        findings.extend(lints(one, files));
    }
    findings
}

fn holds(one: &Crate, file: &Text) -> bool {
    file.path.strip_prefix(&one.folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether the file is part of the library or the program, not of its tests.
fn is_product(file: &Text) -> bool {
    file.path.contains("/src/") && !file.path.ends_with("_tests.rs")
}

/// The text before the unit tests, which stand last.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end])
}

fn heading(file: &Text) -> Option<Finding> {
    // What is included into other files is no module, and can't have inner documentation.
    let folders = ["/src/", "/tests/", "/examples/", "/benches/"];
    let module = folders.iter().any(|f| file.path.contains(f)) || file.path.ends_with("build.rs");
    let marks: &[&str] = if module { &["//! "] } else { &["//! ", "// "] };
    let first = file.text.lines().next().unwrap_or_default();
    let good = first.len() > 8 && marks.iter().any(|mark| first.starts_with(mark));
    (!good).then(|| {
        Finding::error(format!("{}:1", file.path), "begin with a line '//! ...' that says why the file exists")
    })
}

fn length(file: &Text) -> Option<Finding> {
    let lines = file.text.lines().count();
    let what = format!("{lines} lines; a file holds one noun in at most {LONG}");
    match lines {
        0..=LONG => None,
        _ if lines <= TOO_LONG => Some(Finding::warning(&file.path, what)),
        _ => Some(Finding::error(&file.path, format!("{what}: split it"))),
    }
}

/// Blocks, implementations and foreign blocks without a `SAFETY:` above them. Clippy looks at blocks more closely; this also
/// sees foreign blocks, and code that is configured out.
fn undocumented_unsafe(file: &Text) -> Vec<Finding> {
    let raw: Vec<&str> = file.text.lines().collect();
    let bare = bare(&file.text);
    let mut findings = Vec::new();
    for (at, line) in bare.lines().enumerate() {
        let squeezed: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
        // The name of the ABI is blanked out of `unsafe extern "C" {`.
        let found = ["unsafe {", "unsafe impl", "unsafe extern {"].iter().find(|form| has_form(&squeezed, form));
        if let Some(form) = found
            && !argued(&raw, at)
        {
            findings.push(Finding::error(
                format!("{}:{}", file.path, at + 1),
                format!("'{form}' without '// SAFETY:' above it: say what makes it sound"),
            ));
        }
    }
    findings
}

fn has_form(line: &str, form: &str) -> bool {
    line.match_indices(form).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Whether the comment on the line, or above the statement the line belongs to, argues.
fn argued(raw: &[&str], at: usize) -> bool {
    if raw[at].contains("SAFETY:") {
        return true;
    }
    let mut above = raw[..at].iter().rev().map(|line| line.trim());
    let mut statement = 0;
    loop {
        match above.next() {
            Some(line) if line.starts_with("//") || line.starts_with("#[") => {
                if line.contains("SAFETY:") {
                    return true;
                }
            }
            // Lines of the same statement: it may be broken before the block. A finished one ends the search.
            Some(line) if statement < 4 && !line.is_empty() && !line.ends_with([';', '}']) => statement += 1,
            _ => return false,
        }
    }
}

fn io(file: &Text) -> Vec<Finding> {
    let bare = bare(without_tests(&file.text));
    let found = |place: String, word: &str| {
        Finding::error(place, format!("'{word}': this crate does no I/O; put it into the crate that needs it"))
    };
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(bare.lines()) {
        let words = IO.iter().filter(|word| has_word_or_macro(line, word));
        findings.extend(words.map(|word| found(format!("{}:{number}", file.path), word)));
    }
    for import in grouped_std(&bare) {
        let words = IO.iter().filter(|word| has_word(&import, word));
        findings.extend(words.map(|word| found(file.path.clone(), word)));
    }
    findings
}

fn has_word_or_macro(line: &str, word: &str) -> bool {
    match word.strip_suffix('!') {
        Some(name) => has_form(line, word) && has_word(line, name),
        None => has_word(line, word),
    }
}

/// One file of the binary sees all the crates; every other may name two.
fn crowd(file: &Text, crates: &[Crate]) -> Option<Finding> {
    if file.path == "container/src/compose.rs" || !is_product(file) {
        return None;
    }
    let bare = bare(without_tests(&file.text));
    let parts = crates.iter().filter(|c| c.folder.starts_with("container/"));
    let named: Vec<&str> =
        parts.filter(|c| has_word(&bare, &c.name.replace('-', "_"))).map(|c| c.name.as_str()).collect();
    let what = || format!("names {}: only compose.rs names more than two container crates", named.join(", "));
    (named.len() > 2).then(|| Finding::error(&file.path, what()))
}

/// Every root forbids `unsafe`. An application denies it, for what `export!` expands to holds its own allowance.
fn unsafe_allowed(one: &Crate, files: &[Text]) -> Vec<Finding> {
    if UNSAFE_HOMES.contains(&one.folder.as_str()) || one.is_in(FIXTURES) {
        return Vec::new();
    }
    let application = one.is_in("sample-apps");
    let mut findings = Vec::new();
    for root in &one.roots {
        let Some(file) = files.iter().find(|f| f.path == *root) else { continue };
        let bare = bare(&file.text);
        let has = |attribute: &str| bare.lines().any(|line| line.trim() == attribute);
        let safe = has("#![forbid(unsafe_code)]") || (application && has("#![deny(unsafe_code)]"));
        if !safe {
            let word = if application { "deny" } else { "forbid" };
            findings.push(Finding::error(root, format!("add #![{word}(unsafe_code)]")));
        }
    }
    findings
}

/// The lints of the workspace hold for every member.
fn lints(one: &Crate, files: &[Text]) -> Option<Finding> {
    let path = format!("{}/Cargo.toml", one.folder);
    let manifest = files.iter().find(|f| f.path == path)?;
    let mut lines = manifest.text.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    let taken = lines.any(|line| line.replace(' ', "") == "workspace=true");
    (!taken).then(|| Finding::error(path, "take over the lints of the workspace: [lints] workspace = true"))
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
