//! Laws about who imports whom, from the manifests.

use crate::finding::Finding;
use crate::workspace::Crate;

/// Folder of the border.
const ABI: &str = "sdk/abi";
/// Folder of the rules both sides share.
const MAPPING: &str = "sdk/mapping";
/// Folder of the rules of sessions, which both sides share, too.
const SESSION_STATE: &str = "sdk/session-state";
/// Folder of the words all container crates share.
const KERNEL: &str = "container/kernel";
/// Folder of what hangs on a worker, which siblings share.
const WORKER: &str = "container/worker";
/// Folder of the only crate that opens a library.
const MODULE: &str = "container/module";
/// Modules made to misbehave; they may import what a module may, by whatever version.
const FIXTURES: &str = "tests/fixtures";

/// Crates that do I/O, or bring a runtime that does: none for the kernel.
const IO: &[&str] = &[
    "async-std",
    "axum",
    "config",
    "hyper",
    "hyper-util",
    "inotify",
    "libc",
    "libloading",
    "mio",
    "nix",
    "notify",
    "notify-debouncer-full",
    "reqwest",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tokio-util",
    "tower-http",
    "tracing-subscriber",
];

/// Checks every member.
pub(crate) fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in crates {
        let mut broken = |what: String| findings.push(Finding::error(&one.name, what));
        for import in one.all_imports() {
            if let Some(what) = forbidden(one, import, crates) {
                broken(what);
            }
        }
        if one.folder == KERNEL {
            for import in one.imports.iter().filter(|i| IO.contains(&i.as_str())) {
                broken(format!(
                    "imports {import}, but the kernel does no I/O: put the work into the crate that needs it"
                ));
            }
        }
    }
    findings
}

/// Why this import breaks a law, if it does.
fn forbidden(one: &Crate, import: &str, crates: &[Crate]) -> Option<String> {
    let fixture = one.is_in(FIXTURES);
    if one.folder == ABI && import != "abi_stable" {
        return Some(format!("imports {import}, but the border is made of abi_stable's types and nothing else"));
    }
    if import == "libloading" && one.folder != MODULE && !fixture {
        return Some(format!("imports libloading, but only {MODULE} opens a library"));
    }
    if import == "abi_stable" && ![ABI, "sdk", MODULE].contains(&one.folder.as_str()) && !fixture {
        return Some(format!(
            "imports abi_stable, which stands in {ABI}, sdk and {MODULE} alone: its API is to stay there"
        ));
    }
    // From here on it is about members of the workspace.
    let other = crates.iter().find(|c| c.name == import)?;
    let container = |c: &Crate| c.is_in("container");
    let sdk = |c: &Crate| c.folder == "sdk";
    if one.folder == MAPPING || one.folder == SESSION_STATE {
        return Some(format!("imports {import}, but the rules that both sides share import neither"));
    }
    if container(one) && sdk(other) {
        return Some(format!("imports {import}: the container meets the SDK at {ABI} and {MAPPING} only"));
    }
    if one.is_in("sdk") && container(other) {
        return Some(format!("imports {import}: the SDK meets the container at {ABI} and {MAPPING} only"));
    }
    if one.is_in("sample-apps") && !sdk(other) {
        return Some(format!("imports {import}: an application imports the SDK alone"));
    }
    let sibling = container(one) && one.folder != "container";
    if sibling && container(other) && other.folder != KERNEL && (one.folder == KERNEL || other.folder != WORKER) {
        return Some(format!(
            "imports {import}: siblings import the kernel and the worker, never each other; let them meet in compose.rs"
        ));
    }
    if container(one) && one.folder != MODULE && other.folder == ABI {
        return Some(format!("imports {import}: only {MODULE} speaks to a module"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, folder: &str, imports: &str) -> Crate {
        let imports = imports.split_whitespace().map(str::to_owned).collect();
        Crate { name: name.into(), folder: folder.into(), imports, ..Crate::default() }
    }

    /// A small workspace in which every law holds.
    fn good() -> Vec<Crate> {
        vec![
            member("wharf", "container", "wharf-kernel wharf-http wharf-module wharf-mapping tokio"),
            member("wharf-kernel", "container/kernel", "wharf-mapping bytes"),
            member("wharf-worker", "container/worker", "wharf-kernel hyper tokio"),
            member("wharf-http", "container/http", "wharf-kernel wharf-mapping wharf-worker hyper tokio"),
            member("wharf-module", "container/module", "wharf-kernel wharf-abi abi_stable libloading"),
            member("wharf-sdk", "sdk", "wharf-abi wharf-mapping abi_stable tokio"),
            member("wharf-abi", "sdk/abi", "abi_stable"),
            member("wharf-mapping", "sdk/mapping", "percent-encoding"),
            member("hello", "sample-apps/hello", "wharf-sdk"),
            member("old", "tests/fixtures/old", "abi_stable wharf-sdk"),
            member("soak", "tests/soak", "tokio wharf-kernel"),
        ]
    }

    #[test]
    fn a_good_workspace_has_no_findings() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn each_law_can_be_broken() {
        for (name, import, word) in [
            ("wharf-abi", "serde", "nothing else"),
            ("wharf-abi", "wharf-mapping", "nothing else"),
            ("wharf-mapping", "wharf-abi", "import neither"),
            ("wharf-http", "wharf-sdk", "the container meets the SDK"),
            ("wharf", "wharf-sdk", "the container meets the SDK"),
            ("wharf-sdk", "wharf-kernel", "the SDK meets the container"),
            ("wharf-http", "libloading", "only container/module opens"),
            ("soak", "libloading", "only container/module opens"),
            ("wharf-http", "abi_stable", "alone"),
            ("hello", "abi_stable", "alone"),
            ("hello", "wharf-kernel", "the SDK alone"),
            ("wharf-kernel", "tokio", "does no I/O"),
            ("wharf-kernel", "notify", "does no I/O"),
            ("wharf-kernel", "wharf-http", "never each other"),
            ("wharf-kernel", "wharf-worker", "never each other"),
            ("wharf-worker", "wharf-http", "never each other"),
            ("wharf-http", "wharf-module", "never each other"),
            ("wharf-http", "wharf-abi", "only container/module speaks"),
            ("wharf", "wharf-abi", "only container/module speaks"),
        ] {
            for dev in [false, true] {
                let mut crates = good();
                let one = crates.iter_mut().find(|c| c.name == name).unwrap();
                let list = if dev { &mut one.dev_imports } else { &mut one.imports };
                list.push(import.into());
                let found = check(&crates);
                if dev && word == "does no I/O" {
                    assert_eq!(found, [], "tests of the kernel may do I/O");
                    continue;
                }
                assert_eq!(found.len(), 1, "{name} imports {import}: {found:?}");
                assert!(found[0].what.contains(word) && found[0].place == name, "{:?}", found[0]);
            }
        }
    }
}
