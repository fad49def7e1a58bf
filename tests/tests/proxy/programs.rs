//! Programs that Wharf starts: watched, replaced, stopped with all that they started.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use wharf_tests::{Load, Site, Wharf, wait, within};

fn command(more: &str) -> String {
    format!("kind = \"proxy\"\n[proxy]\ncommand = [{:?}, \"{{port}}\"]\n{more}\n", env!("CARGO_BIN_EXE_backend"))
}

fn pid_of(wharf: &Wharf, n: usize) -> Option<u32> {
    let log = wharf.log();
    let line = log.lines().filter(|l| l.contains("the program runs")).nth(n)?;
    let rest = line.split("pid=").nth(1)?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[test]
fn a_program_is_started_watched_replaced_and_stopped() {
    let wharf = Site::new()
        .with("deploy/app.toml", command("copies = 3\nenv = { COLOUR = \"blue\" }\nslow_start = \"0s\""))
        .start(&[]);
    let copies: std::collections::BTreeSet<String> = (0..9).map(|_| wharf.get("/app/").text()).collect();
    assert_eq!(copies.len(), 3, "{copies:?}");
    let env = wharf.get("/app/env").text();
    assert!(env.contains("COLOUR=blue\n") && env.contains("ASPNETCORE_URLS=http://127.0.0.1:"), "{env}");
    assert!(!env.contains("CARGO"), "the container's own environment stays with it: {env}");
    assert_eq!(wharf.get("/app/burn").text(), "burnt");
    let cpu = || wharf.app("app")["load"]["cpu_seconds"].as_f64();
    wait("the time of the programs", || (cpu() >= Some(0.2)).then_some(()));
    // One ends: it is started again, and no request that may be repeated is lost.
    let load = Load::start(wharf.addr(), &["/app/"], 3, Duration::from_millis(2));
    let first = pid_of(&wharf, 0).expect("a process id");
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).expect("it is there");
    wait("a fourth start", || pid_of(&wharf, 3));
    wait("three to answer again", || {
        let answers: std::collections::BTreeSet<String> = (0..12).map(|_| wharf.get("/app/").text()).collect();
        (answers.len() == 3).then_some(())
    });
    // A new file: new processes take over, the old ones go.
    let old: Vec<u32> = (1..4).filter_map(|n| pid_of(&wharf, n)).collect();
    wharf.put("deploy/app.toml", command("env = { COLOUR = \"red\" }"));
    wait("the new one", || wharf.get("/app/env").text().contains("COLOUR=red").then_some(()));
    wait("the old ones to be gone", || (!old.iter().any(|pid| is_alive(*pid))).then_some(()));
    load.stop().assert_clean();
    // One that does not start is refused, with what it printed; what was before goes on.
    wharf
        .put("deploy/app.toml", "kind = \"proxy\"\n[proxy]\ncommand = [\"sh\", \"-c\", \"echo no licence; exit 4\"]\n");
    wait("the refusal", || wharf.app("app")["error"].is_object().then_some(()));
    let error = wharf.app("app")["error"].to_string();
    assert!(error.contains("exit status: 4") && error.contains("no licence"), "{error}");
    assert!(wharf.get("/app/env").text().contains("COLOUR=red"));
}

#[test]
fn a_program_takes_its_children_along_and_may_listen_on_a_socket() {
    let backend = env!("CARGO_BIN_EXE_backend");
    let script = format!("sleep 1000 & echo child $!; exec {backend}");
    let text = format!("kind = \"proxy\"\n[proxy]\ncommand = [\"sh\", \"-c\", {script:?}]\nlisten = \"unix\"\n");
    let mut wharf = Site::new().with("deploy/app.toml", text).start(&[]);
    assert!(wharf.get("/app/env").text().contains("ASPNETCORE_URLS=http://unix:/"));
    let log = wharf.log();
    let child = log.split("child ").nth(1).and_then(|r| r.split_whitespace().next()?.parse().ok()).expect("a pid");
    assert!(is_alive(child));
    wharf.signal(Signal::TERM);
    assert!(wharf.wait_end().success());
    within(Duration::from_secs(5), "the child to be gone", || {
        // A child whose parents are gone is a zombie until somebody waits for it.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn copies_of_a_container_with_our_own_application_are_balanced_too() {
    let inner = Site::new();
    inner.put("deploy/ROOT.so", wharf_tests::library("hello"));
    let deploy = inner.path("deploy").display().to_string();
    let state = inner.path("state-{port}").display().to_string();
    let words: Vec<String> = [
        wharf_tests::wharf().display().to_string(),
        "run".into(),
        "--set".into(),
        "server.listen=127.0.0.1:{port}".into(),
        "--set".into(),
        format!("deploy.dir={deploy}"),
        "--set".into(),
        format!("state_dir={state}"),
    ]
    .into();
    let text = format!("kind = \"proxy\"\n[proxy]\ncommand = {words:?}\ncopies = 2\nhealth.path = \"/\"\n");
    let wharf = Site::new().with("deploy/ROOT.toml", text).start(&[]);
    let load = Load::start(wharf.addr(), &["/"], 2, Duration::from_millis(2));
    let list = wharf.cli(&["backends", "ROOT", "--json"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    wait("both to be used", || {
        let list = wharf.cli(&["backends", "ROOT", "--json"]).json();
        list.as_array()?.iter().all(|b| b["requests"].as_u64() > Some(5)).then_some(())
    });
    load.stop().assert_clean();
}

#[test]
fn the_sample_is_a_balanced_pair() {
    if Command::new("python3").arg("-V").output().is_err() {
        assert!(!wharf_tests::is_required(), "python3 (Debian package python3) is missing");
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let site = Site::new();
    for file in ["server.py", "app.toml"] {
        let from = wharf_tests::workspace().join("sample-apps/balanced").join(file);
        site.put(&format!("deploy/balanced/{file}"), std::fs::read(from).expect("the sample"));
    }
    let wharf = site.start(&[]);
    let answers: std::collections::BTreeSet<String> = (0..4).map(|_| wharf.get("/balanced/").text()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().all(|a| a.ends_with("answers 127.0.0.1\n")), "{answers:?}");
}
