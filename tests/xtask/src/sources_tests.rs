//! Each law about sources, held and broken on small made-up trees.

use super::*;

fn member(name: &str, folder: &str, root: &str) -> Crate {
    Crate { name: name.into(), folder: folder.into(), roots: vec![root.into()], ..Crate::default() }
}

fn crates() -> Vec<Crate> {
    vec![
        member("wharf", "container", "container/src/main.rs"),
        member("wharf-kernel", "container/kernel", "container/kernel/src/lib.rs"),
        member("wharf-http", "container/http", "container/http/src/lib.rs"),
        member("wharf-module", "container/module", "container/module/src/lib.rs"),
        member("hello", "sample-apps/hello", "sample-apps/hello/src/lib.rs"),
        member("bad", "tests/fixtures/bad", "tests/fixtures/bad/src/lib.rs"),
    ]
}

const HEAD: &str = "//! Says why it exists.\n";
const FORBID: &str = "#![forbid(unsafe_code)]\n";

/// What is found in one file with this text (after the heading).
fn found(path: &str, text: &str) -> Vec<Finding> {
    check(&crates(), &[Text { path: path.into(), text: format!("{HEAD}{text}") }])
}

#[test]
fn good_files_have_no_findings() {
    for (path, text) in [
        ("container/src/main.rs", FORBID.to_owned()),
        ("container/src/compose.rs", "use wharf_kernel::A; use wharf_http::B; use wharf_module::C;".into()),
        ("container/src/two.rs", "use wharf_kernel::A; use wharf_http::B; // and wharf_module".into()),
        ("container/kernel/src/net.rs", "use std::net::IpAddr; use std::io::Read; // not std::fs".into()),
        ("container/kernel/src/t.rs", "#[cfg(test)]\nmod tests {\n use std::fs;\n}".into()),
        ("container/kernel/src/x_tests.rs", "use std::fs;".into()),
        ("container/module/src/a.rs", "// SAFETY: a reason.\nunsafe { a() }\n".into()),
        ("container/module/src/b.rs", "// SAFETY: a reason,\n// and more.\nlet x =\n    unsafe { a() };\n".into()),
        ("container/module/src/c.rs", "let s = \"unsafe { }\"; // unsafe impl\n".into()),
        ("container/module/src/d.rs", "// SAFETY: yes.\n#[allow(x)]\nunsafe impl Send for A {}\n".into()),
        ("container/module/src/e.rs", "unsafe extern \"C\" fn f() {}\n".into()),
        ("sample-apps/hello/src/lib.rs", "#![deny(unsafe_code)]\n".into()),
        ("tests/fixtures/bad/src/lib.rs", "unsafe { crash() }\n".into()),
        ("elsewhere/a.rs", "unsafe { x() }".into()),
        ("container/http/src/long.rs", "\n".repeat(399)),
    ] {
        assert_eq!(found(path, &text), [], "{path}");
    }
}

#[test]
fn each_law_can_be_broken() {
    for (path, text, place, word) in [
        ("container/src/main.rs", "", "container/src/main.rs", "forbid(unsafe_code)"),
        ("container/src/main.rs", "// #![forbid(unsafe_code)]\n", "container/src/main.rs", "forbid(unsafe_code)"),
        ("container/http/src/lib.rs", "#![deny(unsafe_code)]\n", "container/http/src/lib.rs", "forbid(unsafe_code)"),
        ("sample-apps/hello/src/lib.rs", "", "sample-apps/hello/src/lib.rs", "deny(unsafe_code)"),
        (
            "container/src/all.rs",
            "use wharf_kernel::A; use wharf_http::B; use wharf_module::C;",
            "container/src/all.rs",
            "only compose.rs",
        ),
        ("container/kernel/src/a.rs", "use std::fs;", "container/kernel/src/a.rs:2", "'std::fs'"),
        ("container/kernel/src/a.rs", "use std::{fs, io};", "container/kernel/src/a.rs", "'std::fs'"),
        ("container/kernel/src/a.rs", "\nstd::process::exit(1)", "container/kernel/src/a.rs:3", "'std::process'"),
        ("container/kernel/src/a.rs", "std::net::TcpStream::connect(x)", "container/kernel/src/a.rs:2", "TcpStream"),
        ("container/kernel/src/a.rs", "println!(x)", "container/kernel/src/a.rs:2", "'println!'"),
        ("container/module/src/a.rs", "unsafe { a() }", "container/module/src/a.rs:2", "'unsafe {'"),
        ("container/module/src/a.rs", "// SAFETY: x\na();\nunsafe { b() }", "container/module/src/a.rs:4", "SAFETY"),
        ("container/module/src/a.rs", "unsafe impl Send for A {}", "container/module/src/a.rs:2", "'unsafe impl'"),
        ("container/module/src/a.rs", "unsafe extern \"C\" {\n}", "container/module/src/a.rs:2", "'unsafe extern {'"),
    ] {
        let findings = found(path, text);
        assert_eq!(findings.len(), 1, "{path} {text:?}: {findings:?}");
        assert!(findings[0].place == place && findings[0].what.contains(word), "{text:?}: {}", findings[0]);
        assert!(!findings[0].warning);
    }
}

#[test]
fn headings_and_lengths() {
    let file = |text: &str| check(&crates(), &[Text { path: "container/http/src/a.rs".into(), text: text.into() }]);
    for text in ["", "use a;\n", "//!\n", "// A comment.\n", "\n//! Late heading.\n"] {
        let findings = file(text);
        assert!(findings.len() == 1 && findings[0].what.contains("why the file exists"), "{text:?}: {findings:?}");
    }
    let included = |text: &str| check(&crates(), &[Text { path: "container/http/list.rs".into(), text: text.into() }]);
    assert_eq!(included("// A list for two build scripts.\n[1]\n"), []);
    assert_eq!(included("[1]\n").len(), 1);
    let long = file(&format!("{HEAD}{}", "\n".repeat(400)));
    assert!(long.len() == 1 && long[0].warning, "{long:?}");
    let too_long = file(&format!("{HEAD}{}", "\n".repeat(600)));
    assert!(too_long.len() == 1 && !too_long[0].warning && too_long[0].what.contains("split"), "{too_long:?}");
}

#[test]
fn members_take_the_lints_of_the_workspace() {
    let manifest =
        |text: &str| check(&crates(), &[Text { path: "container/http/Cargo.toml".into(), text: text.into() }]);
    assert_eq!(manifest("[package]\n\n[lints]\nworkspace = true\n"), []);
    for text in ["[package]\n", "[package]\nversion.workspace = true\n[lints]\n"] {
        let findings = manifest(text);
        assert!(findings.len() == 1 && findings[0].what.contains("[lints]"), "{text:?}: {findings:?}");
    }
}
