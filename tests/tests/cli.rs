//! The command line: what it prints, and its exit codes: 0 ok, 1 failed, 2 usage, 3 no container, 4 refused.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use wharf_tests::{Site, chameleon, library, marked, wait, workspace};

#[test]
fn exit_codes() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("bad.so", "no library");
    site.put("other.so", chameleon("other"));
    for (arguments, code, text) in [
        (&["--version"][..], 0, env!("CARGO_PKG_VERSION")),
        (&["--help"], 0, "Exit codes"),
        (&[], 2, "Usage"),
        (&["nonsense"], 2, "nonsense"),
        (&["run", "--port", "1"], 2, "--port"),
        (&["run", "--set", "server.lisen=:0"], 2, "did you mean 'listen'?"),
        (&["run", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (&["list"], 3, "wharf run"),
        (&["deploy", "other.so"], 3, ".wharf/admin.sock"),
        (&["list", "--admin", "nowhere.sock"], 3, "nowhere.sock"),
        (&["check", "deploy/shop.so"], 0, "a Wharf module"),
        (&["check", "bad.so"], 4, "W0202"),
        (&["check", "nowhere.so"], 4, "W0107"),
        (&["explain", "W9999"], 2, "lists them all"),
        (&["deploy", "nowhere.so"], 1, "nowhere.so"),
    ] {
        let output = site.cli(arguments);
        assert_eq!(output.code, code, "{arguments:?}: {output:?}");
        assert!(output.out.contains(text) || output.err.contains(text), "{arguments:?}: no {text:?} in {output:?}");
        assert!(code == 0 || output.out.is_empty(), "{arguments:?}: {output:?}");
    }
    let wharf = site.start(&[]);
    for (arguments, code, text) in [
        (&["list"][..], 0, "/shop"),
        (&["deploy", "other.so"], 0, "other: serving"),
        (&["deploy", "bad.so"], 4, "W0202"),
        (&["deploy", "bad.so", "--name", "shop"], 4, "more: wharf explain W0202"),
        (&["deploy", "other.so", "--name", "a/b"], 1, "a/b"),
        (&["stop", "nothing"], 1, "there is no application 'nothing'"),
        (&["rollback", "other"], 1, "no earlier file"),
        (&["undeploy", "other"], 0, "other: removed"),
    ] {
        let output = wharf.cli(arguments);
        assert_eq!(output.code, code, "{arguments:?}: {output:?}");
        assert!(output.out.contains(text) || output.err.contains(text), "{arguments:?}: no {text:?} in {output:?}");
    }
    assert_eq!(wharf.get("/shop/").text(), "one");
}

#[test]
fn a_refused_upload_is_told_why_however_large_it_is() {
    let wharf = Site::new().with("large", vec![1; 20 << 20]).start(&[]);
    for _ in 0..5 {
        let output = wharf.cli(&["deploy", "large", "--name", "a/b"]);
        assert!(output.code == 1 && output.err.contains("a/b"), "{output:?}");
    }
    assert_eq!(wharf.list().len(), 0);
}

#[test]
fn errors_are_json_where_that_is_asked_for() {
    let site = Site::new().with("bad.so", "no library");
    let output = site.cli(&["check", "bad.so", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&output.err).unwrap();
    assert_eq!((&error["exit_code"], &error["refusal"]["code"]), (&4.into(), &"W0202".into()), "{error}");
}

#[test]
fn check_says_what_a_module_is_and_with_load_what_it_does() {
    let site = Site::new().with("shop.so", chameleon("one"));
    let output = site.cli(&["check", "shop.so"]);
    for line in ["  name      chameleon", "  version   1.2.3", "  abi       1.0", "it was not loaded"] {
        assert!(output.out.contains(line), "{output:?}");
    }
    let loaded = site.cli(&["check", "shop.so", "--load"]);
    assert!(loaded.code == 0 && loaded.out.contains("  servlet   slow /slow"), "{loaded:?}");
    let json = site.cli(&["check", "shop.so", "--load", "--json"]).json();
    let servlets = json["servlets"].as_array().unwrap();
    assert!(servlets.iter().any(|s| s["name"] == "slow" && s["patterns"][0] == "/slow"), "{json}");
    // A crash is the child's, not the command's.
    site.put("crash.so", marked(chameleon("one"), "MARK:none", "MARK:crash"));
    assert_eq!(site.cli(&["check", "crash.so"]).code, 0);
    let crashed = site.cli(&["check", "crash.so", "--load"]);
    assert!(crashed.code == 4 && crashed.err.contains("W0301"), "{crashed:?}");
}

#[test]
fn check_looks_at_folders_and_at_files_that_are_applications() {
    let guard = "[login]\nmethod = \"BASIC\"\nrealm = \"staff\"\n[[constraints]]\npatterns = [\"/a/*\"]\nmethods = [\"GET\"]\nroles = [\"dev\"]\n";
    let site = Site::new().with("mod/m.so", chameleon("one"));
    site.put("mod/app.toml", format!("kind = \"module\"\n{guard}[init]\ngreeting = \"Hi\"\n"));
    site.put("files/app.toml", format!("kind = \"static\"\n{guard}[[constraints]]\npatterns = [\"/b\"]\nroles = []\n"));
    site.put("back.toml", "kind = \"proxy\"\ncontext_path = \"/x\"\n[proxy]\nbackends = [\"http://127.0.0.1:1\"]\n");
    let check = |arguments: &[&str]| site.cli(&[&["check"], arguments].concat());
    let module = check(&["mod", "--load"]);
    for line in [
        "side-car  mod/app.toml",
        "servlet   slow /slow",
        "init      greeting = \"Hi\"",
        "login     BASIC by realm staff",
        "guard     /a/*; methods GET; roles dev",
    ] {
        assert!(module.code == 0 && module.out.contains(line), "{line}: {module:?}");
    }
    let files = check(&["files"]);
    assert!(files.out.contains("kind static") && files.out.contains("guard     /b; nobody"), "{files:?}");
    let back = check(&["back.toml", "--json"]).json();
    assert_eq!((&back["kind"], &back["context_path"]), (&"proxy".into(), &"/x".into()), "{back}");
    site.put("none/readme", "");
    assert_eq!(check(&["none"]).code, 1);
    site.put("bad/app.toml", "kind = \"statik\"\n");
    let bad = check(&["bad"]);
    assert!(bad.code == 2 && bad.err.contains("bad/app.toml"), "{bad:?}");
}

#[test]
fn list_shows_what_runs() {
    let site = Site::new().with("deploy/shop##2.so", chameleon("two")).with("deploy/ROOT.so", chameleon("root"));
    let wharf = site.start(&[]);
    let list = wharf.cli(&["list"]);
    let lines: Vec<Vec<&str>> = list.out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "URL", "PATH", "STATE", "GENERATION", "VERSION", "MEMORY", "CPU"], "{list:?}");
    assert_eq!(lines[1][..3], ["ROOT", "/", "serving"], "{list:?}");
    assert_eq!(lines[2][..3], ["shop##2", "/shop", "serving"], "{list:?}");
    assert_eq!(lines[2][4], "1.2.3", "{list:?}");
    let json = wharf.cli(&["list", "--json"]).json();
    let shop = &json[1];
    assert_eq!((&shop["version"], &shop["kind"]), (&"2".into(), &"module".into()), "{json}");
    assert_eq!(shop["generations"][0]["sha256"].as_str().unwrap().len(), 64);
    wharf.remove("deploy/ROOT.so");
    wharf.remove("deploy/shop##2.so");
    wait("nothing", || (wharf.cli(&["list"]).out == "no applications\n").then_some(()));
    assert_eq!(wharf.cli(&["list", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let wharf = site.start(&[]);
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["explain"],
        &["config"],
        &["completions", "bash"],
        &["man"],
        &["check", "deploy/shop.so"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        // Nobody reads from the first byte on.
        drop(reader);
        let output = wharf.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {} {said}", output.status);
    }
}

#[test]
fn explain_knows_every_code_it_lists() {
    let site = Site::new();
    let all = site.cli(&["explain"]);
    assert!(all.out.lines().count() > 25, "{all:?}");
    let json = site.cli(&["explain", "--json"]).json();
    assert_eq!(json.as_array().unwrap().len(), all.out.lines().count());
    let one = site.cli(&["explain", "w0207"]);
    assert!(one.out.starts_with("W0207 at probe: no Wharf descriptor\n") && one.out.contains("Do this: "), "{one:?}");
}

#[test]
fn config_shows_what_is_in_force_and_where_it_comes_from() {
    let site = Site::new()
        .with("wharf.toml", "[server]\nworkers = 3\ndrain_timeout = \"5s\"\n")
        .with("wharf.d/10-log.toml", "log.level = \"debug\"\n");
    let output =
        site.command(&["config", "--set", "deploy.dir=elsewhere"]).env("WHARF__SERVER__WORKERS", "4").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "workers = 4  # environment variable WHARF__SERVER__WORKERS",
        "drain_timeout = \"5s\"  # wharf.toml",
        "level = \"debug\"  # wharf.d/10-log.toml",
        "dir = \"elsewhere\"  # --set deploy.dir=elsewhere",
        "poll_interval = \"5s\"  # default",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in:\n{text}");
    }
    // What is printed is a configuration file.
    site.put("printed.toml", &text);
    let again = site.cli(&["config", "--config", "printed.toml", "--json"]).json();
    assert_eq!(
        (&again["settings"]["server"]["workers"], &again["origins"]["server.workers"]),
        (&4.into(), &"printed.toml".into())
    );

    for (file, words) in [
        ("[server]\nworkrs = 3\n", &["wharf.toml:2:1", "^^^^^^", "did you mean 'workers'?"][..]),
        ("[server]\nworkers = \"many\"\n", &["wharf.toml:2:11", "^"]),
        ("[server\n", &["wharf.toml:1:"]),
        ("[server]\nworkers = 0\n", &["server.workers (wharf.toml)", "at least 1"]),
    ] {
        site.put("wharf.toml", file);
        for command in ["config", "run"] {
            let output = site.cli(&[command]);
            assert_eq!(output.code, 2, "{output:?}");
            words.iter().for_each(|w| assert!(output.err.contains(w), "no {w:?} in {}", output.err));
        }
    }
}

#[test]
fn new_makes_a_crate_that_says_how_to_go_on() {
    let site = Site::new();
    let sdk = workspace().join("sdk");
    for (name, option) in [("my-shop", "--servlet"), ("todo", "--axum")] {
        let made = site.cli(&["new", name, option, "--sdk-path", sdk.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{made:?}");
        assert!(made.out.contains(&format!("cd {name} && wharf dev .")), "{made:?}");
        for file in ["Cargo.toml", "src/lib.rs", "tests/hello.rs", "README.md", ".gitignore"] {
            assert!(site.path(name).join(file).is_file(), "{name}/{file}");
        }
        let manifest = fs::read_to_string(site.path(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("cdylib") && manifest.contains("/sdk"), "{manifest}");
    }
    assert_eq!(site.cli(&["new", "todo"]).code, 1, "it is there already");
    assert_eq!(site.cli(&["new", "Not a name"]).code, 2);
}

#[test]
fn completions_and_manual_name_every_command() {
    let site = Site::new();
    let commands = [
        "run", "dev", "new", "check", "list", "deploy", "undeploy", "start", "stop", "reload", "rollback", "explain",
        "config",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let output = site.cli(&["completions", shell]);
        assert_eq!(output.code, 0);
        commands.iter().for_each(|c| assert!(output.out.contains(c), "{shell}: no {c}"));
        assert!(!output.out.contains("__trial"), "{shell}");
    }
    let man = site.cli(&["man"]);
    assert!(man.code == 0 && man.out.contains(".TH wharf 1"), "{man:?}");
    commands.iter().for_each(|c| assert!(man.out.contains(c), "no {c}"));
}

#[test]
fn the_trial_command_is_for_the_container_alone() {
    let output = Site::new().cli(&["__trial"]);
    assert!(output.code == 2 && output.err.contains("for the container itself"), "{output:?}");
}

#[test]
fn run_needs_no_configuration_and_says_where_it_listens_in_one_line() {
    let site = Site::new().with("deploy/hello.so", library("hello"));
    let mut child = site
        .command(&["run", "--set", "server.listen=127.0.0.1:0,unix:http.sock", "--set", "access_log.format=off"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let second = lines.next().unwrap().unwrap();
    let served = wharf_tests::Client::connect_unix(&site.path("http.sock")).unwrap().get("/hello/").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.starts_with("listening on http://127.0.0.1:") && !first.ends_with(":0"), "{first}");
    assert_eq!(second, "listening on unix:http.sock");
    assert_eq!(served.text(), "Hello, world!\n");
}
