//! An author's first minutes: a new crate, built, served, changed, broken and mended under `wharf dev`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wharf_tests::{Client, Site, printed, target, tool, wait, within, workspace};

/// Killed with this.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first build takes as long as the dependencies do.
const BUILD: Duration = Duration::from_secs(240);

/// A folder for what cargo builds, kept for the dependencies; what an earlier run built of the crate itself is removed, for
/// that was another crate, in another temporary folder.
fn target_folder() -> PathBuf {
    let folder = target().join("wharf-tests-dev");
    for part in ["deps", ".fingerprint", "incremental"] {
        for entry in fs::read_dir(folder.join("debug").join(part)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().trim_start_matches("lib").starts_with("shop") {
                let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
            }
        }
    }
    folder
}

#[test]
fn a_change_is_served_and_a_mistake_is_shown_while_the_old_one_serves() {
    let site = Site::new();
    let made = site.cli(&["new", "shop", "--sdk-path", workspace().join("sdk").to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    // The versions of the workspace, so that nothing is fetched that is not there.
    fs::copy(workspace().join("Cargo.lock"), site.path("shop/Cargo.lock")).unwrap();
    let out = || fs::read_to_string(site.path("dev.out")).unwrap_or_default();
    let err = || fs::read_to_string(site.path("dev.err")).unwrap_or_default();
    let mut command = site.command(&["dev", "shop", "--set", "server.listen=127.0.0.1:0"]);
    command.env("CARGO_TARGET_DIR", target_folder());
    command.stdout(File::create(site.path("dev.out")).unwrap()).stderr(File::create(site.path("dev.err")).unwrap());
    let mut dev = Dev(command.spawn().unwrap());
    let addr: SocketAddr = within(BUILD, "'listening on'", || {
        if let Some(status) = dev.0.try_wait().unwrap() {
            panic!("it has ended: {status}\n{}", err());
        }
        out().split_once("listening on http://")?.1.split_once('\n')?.0.parse().ok()
    });
    let get = || Client::connect(addr).unwrap().get("/shop/").unwrap().text();
    wait("the list of applications", || out().contains(&format!("shop: http://{addr}/shop/")).then_some(()));
    assert_eq!(get(), "Hello, world!\n");

    let source = fs::read_to_string(site.path("shop/src/lib.rs")).unwrap();
    site.put("shop/src/lib.rs", source.replace("Hello, {name}!", "Good day, {name}!"));
    within(BUILD, "the change", || (get() == "Good day, world!\n").then_some(()));

    site.put("shop/src/lib.rs", source.replace("struct Hello;", "struct Hello"));
    within(BUILD, "the compiler's error", || err().contains("what was built before goes on serving").then_some(()));
    assert!(err().contains("src/lib.rs"), "{}", err());
    assert_eq!(get(), "Good day, world!\n");

    site.put("shop/src/lib.rs", source.replace("Hello, {name}!", "Good night, {name}!"));
    within(BUILD, "the mended one", || (get() == "Good night, world!\n").then_some(()));

    kill_process(Pid::from_child(&dev.0), Signal::INT).unwrap();
    let status = wait("its end", || dev.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", err());

    // The same with TLS, by a certificate that it makes.
    let mut command = site.command(&["dev", "shop", "--tls", "--set", "server.listen=127.0.0.1:0"]);
    command.env("CARGO_TARGET_DIR", target_folder());
    command.stdout(File::create(site.path("dev.out")).unwrap()).stderr(File::create(site.path("dev.err")).unwrap());
    let _dev = Dev(command.spawn().unwrap());
    let port = within(BUILD, "'listening on'", || {
        let out = out();
        let addr: SocketAddr = out.split_once("listening on https://")?.1.split_once('\n')?.0.parse().ok()?;
        Some(addr.port())
    });
    let url = format!("https://localhost:{port}/shop/");
    let arguments = ["-sS", "--http2", "--cacert", ".wharf/tls/localhost.crt", "-w", "%{http_version}", &url];
    if let Some(mut curl) = tool("curl", &arguments) {
        assert_eq!(printed(&curl.current_dir(site.path("")).output().unwrap()), "Good night, world!\n2");
    }
}

#[test]
fn a_folder_that_needs_no_build_is_served_and_kept_up_to_date() {
    let site = Site::new();
    let sample = workspace().join("sample-apps/cgi-hello");
    fs::create_dir_all(site.path("apps/cgi-hello")).unwrap();
    for file in fs::read_dir(sample).unwrap().flatten() {
        fs::copy(file.path(), site.path("apps/cgi-hello").join(file.file_name())).unwrap();
    }
    let out = || fs::read_to_string(site.path("dev.out")).unwrap_or_default();
    let mut command = site.command(&["dev", "apps", "--set", "server.listen=127.0.0.1:0"]);
    command.stdout(File::create(site.path("dev.out")).unwrap()).stderr(File::create(site.path("dev.err")).unwrap());
    let dev = Dev(command.spawn().unwrap());
    let addr: SocketAddr =
        wait("'listening on'", || out().split_once("listening on http://")?.1.split_once('\n')?.0.parse().ok());
    let client = || Client::connect(addr).unwrap();
    let text = client().get("/cgi-hello/?name=Ada+L").unwrap().text();
    assert!(text.contains("Ahoy, Ada L!"), "{text}");
    let text = client().send("POST", "/cgi-hello/", &[], b"name=%3Cb%3E").unwrap().text();
    assert!(text.contains("Ahoy, 3Cb3E!"), "{text}");
    assert!(client().get("/cgi-hello/style.css").unwrap().text().contains("font-family"));
    assert_eq!(client().get("/cgi-hello/app.toml").unwrap().status, 404);

    let toml = fs::read_to_string(site.path("apps/cgi-hello/app.toml")).unwrap();
    site.put("apps/cgi-hello/app.toml", toml.replace("Ahoy", "Moin"));
    wait("the change", || client().get("/cgi-hello/").unwrap().text().contains("Moin, world!").then_some(()));
    wait("the report", || out().contains("cgi-hello: redeployed").then_some(()));
    drop(dev);
}
