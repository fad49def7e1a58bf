//! A module that another compiler built, with other versions of its dependencies, is a module like any other.

use std::fs;
use std::process::Command;
use std::time::Duration;

use wharf_tests::{Load, Site, chameleon, is_required, target, wait, workspace};

/// The module, or why it can't be had.
fn build() -> Result<Vec<u8>, String> {
    let fixture = workspace().join("tests/fixtures/nightly");
    let folder = target().join("wharf-tests-nightly");
    let mut cargo = Command::new("cargo");
    // Of the cargo that runs this test nothing shall be left.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && text != "CARGO_HOME"
            || text.starts_with("RUSTUP_TOOLCHAIN")
            || text.starts_with("RUST") && text.ends_with("FLAGS")
        {
            cargo.env_remove(&name);
        }
    }
    let version = cargo.args(["+nightly", "--version"]).output().map_err(|e| e.to_string())?;
    if !version.status.success() {
        return Err(format!("no nightly toolchain: {}", String::from_utf8_lossy(&version.stderr).trim()));
    }
    let mut build = Command::new("cargo");
    for (name, value) in cargo.get_envs() {
        if value.is_none() {
            build.env_remove(name);
        }
    }
    let status = build
        .args(["+nightly", "build", "--quiet", "--locked", "--target-dir"])
        .arg(&folder)
        .current_dir(fixture)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the module does not build with the nightly toolchain");
    Ok(fs::read(folder.join("debug/libother_toolchain.so")).unwrap())
}

#[test]
fn a_module_of_another_compiler_loads_serves_and_unloads() {
    let module = match build() {
        Ok(module) => module,
        Err(why) => {
            assert!(!is_required(), "{why}");
            println!("skipped: {why}");
            return;
        }
    };
    let site = Site::new().with("deploy/shop.so", chameleon("ours"));
    site.put("other.so", &module);
    let check = site.cli(&["check", "other.so", "--load", "--json"]);
    assert_eq!(check.code, 0, "{check:?}");
    let (check, ours) = (check.json(), site.cli(&["check", "deploy/shop.so", "--json"]).json());
    assert_eq!(check["description"]["version"], "3.2.1", "{check}");
    let rustc = |json: &serde_json::Value| json["description"]["rustc"].as_str().unwrap().to_owned();
    assert!(rustc(&check).contains("nightly") && rustc(&check) != rustc(&ours), "{check} {ours}");

    let wharf = site.start(&[]);
    for _ in 0..4 {
        wharf.put("deploy/shop.so", &module);
        wharf.wait_for("/shop/", "another compiler");
        let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::ZERO);
        assert_eq!(wharf.get("/shop/users/ada").text(), "user ada");
        assert_eq!(wharf.get("/shop/sum?a=40&b=2").text(), r#"{"sum":42}"#);
        assert_eq!(wharf.get("/shop/sleep").text(), "slept");
        assert_eq!(wharf.send("POST", "/shop/echo", &[], &[b'x'; 100_000]).body, [b'x'; 100_000]);
        assert_eq!(wharf.get("/shop/panic").status, 500);
        wharf.put("deploy/shop.so", chameleon("ours"));
        wharf.wait_for("/shop/", "ours");
        load.stop().assert_clean();
        wait("it to be gone", || (wharf.mapped().len() == 1).then_some(()));
    }
    wharf.wait_alone("shop");
    let log = wharf.log();
    assert!(log.contains("said by another compiler") && log.contains("in another compiler"), "{log}");
}
