//! `cargo run -p xtask -- check`: holds the laws of the workspace that no compiler knows. `ARCHITECTURE.md` says them.
#![forbid(unsafe_code)]

mod code;
mod finding;
mod imports;
mod links;
mod sources;
mod tree;
mod words;
mod workspace;

use std::process::ExitCode;

use finding::Finding;
use workspace::Workspace;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args != ["check"] {
        eprintln!("usage: cargo run -p xtask -- check");
        return ExitCode::from(2);
    }
    match check() {
        Ok(findings) => report(&findings),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Looks at the workspace that this program was started in.
fn check() -> Result<Vec<Finding>, String> {
    let workspace = Workspace::read()?;
    let files = tree::read(&workspace.root)?;
    let mut findings = imports::check(&workspace.crates);
    findings.extend(sources::check(&workspace.crates, &files));
    findings.extend(words::check(&files));
    findings.extend(links::check(&files));
    findings.sort_by(|a, b| (!a.warning, &a.place).cmp(&(!b.warning, &b.place)));
    Ok(findings)
}

fn report(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        eprintln!("{finding}");
    }
    let errors = findings.iter().filter(|f| !f.warning).count();
    let warnings = findings.len() - errors;
    if errors > 0 {
        eprintln!("{errors} errors, {warnings} warnings");
        return ExitCode::FAILURE;
    }
    println!("the laws hold ({warnings} warnings)");
    ExitCode::SUCCESS
}
