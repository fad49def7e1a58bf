//! New versions under load: no request fails, none is answered by a version that was retired before it began, and the old
//! ones are truly gone.

use std::fs;
use std::time::Duration;

use wharf_tests::{Load, Site, Wharf, chameleon, library, wait, within};

/// Puts each version over the one before, under load, and waits for its first answer.
fn redeploy(
    wharf: &Wharf,
    load: &Load,
    path: &str,
    versions: impl IntoIterator<Item = (String, Vec<u8>)>,
    first: &str,
) {
    let mut old = first.to_owned();
    for (version, bytes) in versions {
        load.retired(None);
        wharf.put("deploy/shop.so", bytes);
        wharf.wait_for(path, &version);
        // From here on the old one may not answer a request that begins.
        load.retired(Some(&old));
        old = version;
    }
}

#[test]
fn alternating_builds_under_load_lose_nothing_and_leave_nothing() {
    let builds = [("version a", library("redeploy-a")), ("version b", library("redeploy-b"))];
    let site = Site::new().with("deploy/shop.so", &builds[0].1);
    // No connection ends for another reason, however long this takes.
    let wharf =
        site.start(&["--set", "access_log.format=off", "--set", "server.limits.keep_alive_requests=1000000000"]);
    let load = Load::start(wharf.addr(), &["/shop/", "/shop/sleep", "/shop/spawn"], 4, Duration::ZERO);
    let answer = |round: usize| format!("{} generation {}\n", builds[round % 2].0, round + 1);
    let rounds = (1..=20).map(|round| (answer(round), builds[round % 2].1.clone()));
    redeploy(&wharf, &load, "/shop/", rounds, &answer(0));
    let tally = load.stop();
    tally.assert_clean();
    assert!(tally.answers.keys().all(|a| (0..=20).any(|round| answer(round) == *a)), "{:?}", tally.answers);
    assert!(tally.answers.len() > 15, "{:?}", tally.answers);
    // Connections outlive the versions.
    assert_eq!(tally.reconnects, 0);
    wharf.wait_alone("shop");
    let mapped = wharf.mapped();
    assert!(mapped.len() == 1 && mapped.iter().all(|m| m.starts_with("shop.21.")), "{mapped:?}");
    assert_eq!(fs::read_dir(wharf.path(".wharf/generations")).unwrap().count(), 1);
    let metrics = wharf.admin("GET", "/v1/metrics").text();
    assert!(metrics.contains("shop"), "{metrics}");
}

#[test]
fn versions_come_in_their_order_and_never_go_back() {
    let versions = (1..=12).map(|n| (format!("v{n:03}"), chameleon(&format!("v{n:03}"))));
    let site = Site::new().with("deploy/shop.so", chameleon("v000"));
    let wharf = site.start(&["--set", "access_log.format=off"]);
    let load = Load::start(wharf.addr(), &["/shop/"], 3, Duration::ZERO);
    redeploy(&wharf, &load, "/shop/", versions, "v000");
    let tally = load.stop();
    tally.assert_clean();
    assert_eq!(tally.answers.len(), 13, "{:?}", tally.answers);
    wharf.wait_alone("shop");
    assert_eq!(wharf.mapped().len(), 1);
}

#[test]
fn a_request_in_flight_is_answered_by_the_version_it_began_with() {
    let site = Site::new().with("deploy/shop.so", chameleon("old"));
    let wharf = site.start(&[]);
    let mut slow = wharf.connect();
    // The request is there before the new version is.
    slow.write("GET", "/shop/slow", &[], b"").unwrap();
    wait("the request", || (wharf.app("shop")["generations"][0]["leases"] == 1).then_some(()));
    wharf.put("deploy/shop.so", chameleon("new"));
    wharf.wait_for("/shop/", "new");
    let answer = slow.read("GET").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
    // The same connection goes on with the new one.
    assert_eq!(slow.get("/shop/slow").unwrap().text(), "new");
    wharf.wait_alone("shop");
    assert_eq!(wharf.mapped().len(), 1);
}

#[test]
fn the_newest_of_several_versions_answers_and_leaves_its_place_without_a_gap() {
    let site = Site::new().with("deploy/shop##1.so", chameleon("one"));
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/shop/"], 3, Duration::ZERO);
    for _ in 0..3 {
        load.retired(None);
        wharf.put("deploy/shop##2.so", chameleon("two"));
        wharf.wait_for("/shop/", "two");
        load.retired(Some("one"));
        let states: Vec<_> = wharf.list().iter().map(|a| a["state"].clone()).collect();
        assert_eq!(states, ["serving", "serving"]);
        // Ten is newer than two, not older as in the order of text.
        load.retired(None);
        wharf.put("deploy/shop##10.so", chameleon("ten"));
        wharf.wait_for("/shop/", "ten");
        load.retired(Some("two"));
        load.retired(None);
        wharf.remove("deploy/shop##10.so");
        wharf.wait_for("/shop/", "two");
        wharf.remove("deploy/shop##2.so");
        wharf.wait_for("/shop/", "one");
        load.retired(Some("two"));
    }
    let tally = load.stop();
    tally.assert_clean();
    wharf.wait_alone("shop##1");
    wait("the first one alone in memory", || (wharf.mapped().len() == 1).then_some(()));
}

#[test]
fn old_versions_are_retired_where_the_configuration_says_so() {
    let site = Site::new().with("deploy/shop##1.so", chameleon("one"));
    let wharf = site.start(&["--set", "deploy.retire_old_versions=true"]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::ZERO);
    wharf.put("deploy/shop##2.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    wait("the old one to be superseded", || (wharf.app("shop##1")["state"] == "superseded").then_some(()));
    wait("one mapping", || (wharf.mapped().len() == 1).then_some(()));
    load.stop().assert_clean();
}

#[test]
fn removal_is_undeployment() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/ROOT.so", chameleon("root"));
    let wharf = site.start(&[]);
    assert_eq!((wharf.get("/shop/").text(), wharf.get("/").text()), ("one".into(), "root".into()));
    // What is below a context path that is gone falls to the root application.
    wharf.remove("deploy/shop.so");
    wharf.wait_for("/shop/", "root");
    wharf.remove("deploy/ROOT.so");
    wait("404", || (wharf.get("/shop/").status == 404).then_some(()));
    wait("404", || (wharf.get("/").status == 404).then_some(()));
    wait("nothing mapped", || wharf.mapped().is_empty().then_some(()));
    wait("nothing listed", || wharf.list().is_empty().then_some(()));
    // By the command, too; and it may come back.
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    let undeployed = wharf.cli(&["undeploy", "shop"]);
    assert_eq!((undeployed.code, undeployed.out.as_str()), (0, "shop: removed\n"), "{undeployed:?}");
    assert!(wharf.get("/shop/").status == 404 && !wharf.path("deploy/shop.so").exists());
}

#[test]
fn stop_start_reload_and_rollback() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let wharf = site.start(&[]);
    let run = |command: &str, text: &str| {
        let done = wharf.cli(&[command, "shop"]);
        assert_eq!((done.code, done.out.as_str()), (0, text), "{command}: {done:?}");
    };
    run("stop", "shop: stopped\n");
    let answer = wharf.get("/shop/");
    assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    let refused = wharf.cli(&["reload", "shop"]);
    assert!(refused.code == 1 && refused.err.contains("stopped"), "{refused:?}");
    run("start", "shop: serving\n");
    assert_eq!(wharf.get("/shop/").text(), "one");

    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::ZERO);
    let generation = || wharf.app("shop")["generations"][0]["generation"].as_u64().unwrap();
    let before = generation();
    run("reload", "shop: serving\n");
    assert!(generation() > before);
    let none = wharf.cli(&["rollback", "shop"]);
    assert!(none.code == 1 && none.err.contains("no earlier file of 'shop' is kept"), "{none:?}");
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    run("rollback", "shop: serving\n");
    assert_eq!(wharf.get("/shop/").text(), "one");
    assert_eq!(fs::read(wharf.path("deploy/shop.so")).unwrap(), chameleon("one"));
    // A refused file is put back by it, too, and the one that serves goes on.
    wharf.put("deploy/shop.so", "no library");
    wait("the refusal", || (wharf.app("shop")["error"]["code"] == "W0202").then_some(()));
    run("rollback", "shop: serving\n");
    assert!(wharf.app("shop")["error"].is_null());
    load.stop().assert_clean();
    let unknown = wharf.cli(&["stop", "nothing"]);
    assert!(unknown.code == 1 && unknown.err.contains("there is no application 'nothing'"), "{unknown:?}");
}

#[test]
fn operations_at_the_same_time_are_done_one_after_the_other() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/other.so", chameleon("other"));
    let wharf = site.start(&[]);
    let (pid, other) = (wharf.pid(), Load::start(wharf.addr(), &["/other/"], 1, Duration::from_millis(1)));
    std::thread::scope(|scope| {
        for operation in ["stop", "start", "reload"] {
            let wharf = &wharf;
            scope.spawn(move || {
                for _ in 0..15 {
                    let status = wharf.admin("POST", &format!("/v1/apps/shop/{operation}")).status;
                    assert!([200, 409].contains(&status), "{operation}: {status}");
                }
            });
        }
        scope.spawn(|| {
            for n in 0..8 {
                wharf.put("deploy/shop.so", chameleon(if n % 2 == 0 { "two" } else { "one" }));
                wharf.list();
            }
        });
    });
    assert_eq!(wharf.admin("POST", "/v1/apps/shop/start").status, 200);
    wharf.wait_for("/shop/", "one");
    wharf.wait_alone("shop");
    assert_eq!((wharf.mapped().len(), wharf.pid()), (2, pid));
    other.stop().assert_clean();
}

#[test]
fn a_thread_that_stays_is_named_and_holds_its_generation_until_it_ends() {
    let text = "[init]\nstart = \"thread\"\nonly = \"container\"\nmillis = 4000\n";
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/shop.toml", text);
    let wharf = site.start(&["--set", "deploy.stop_timeout=500ms"]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(1));
    wharf.put("deploy/shop.toml", "order = 1\n");
    let note = wait("the report", || {
        let list = wharf.cli(&["list"]).out;
        list.lines().find(|l| l.contains("held")).map(str::to_owned)
    });
    assert!(note.contains("shop generation 1: held, held by thread 'poller'"), "{note}");
    assert_eq!(wharf.mapped().len(), 2);
    within(Duration::from_secs(30), "the thread's end", || (wharf.mapped().len() == 1).then_some(()));
    wharf.wait_alone("shop");
    load.stop().assert_clean();
}

/// The same with the flag that forbids its unloading (`DF_1_NODELETE` in `DT_FLAGS_1`).
fn marked_nodelete(mut bytes: Vec<u8>) -> Vec<u8> {
    // The entry as it is, with DF_1_NOW alone.
    let entry = [0x6fff_fffb_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let at = bytes.windows(16).position(|w| w == entry).expect("an entry DT_FLAGS_1");
    bytes[at + 8] |= 8;
    bytes
}

#[test]
fn a_module_that_forbids_its_unloading_is_unloaded() {
    let site = Site::new().with("deploy/shop.so", marked_nodelete(chameleon("v0")));
    let wharf = site.start(&[]);
    for version in ["v1", "v2", "v3"] {
        wharf.put("deploy/shop.so", marked_nodelete(chameleon(version)));
        wharf.wait_for("/shop/", version);
    }
    wharf.wait_alone("shop");
    assert_eq!(wharf.mapped().len(), 1);
}

#[test]
fn a_file_that_was_refused_is_tried_again_when_it_changes() {
    let site = Site::new().with("deploy/shop.so", "no library");
    let wharf = site.start(&[]);
    assert_eq!(wharf.app("shop")["error"]["code"], "W0202");
    assert_eq!(wharf.get("/shop/").status, 404);
    wharf.put("deploy/shop.so", chameleon("one"));
    wharf.wait_for("/shop/", "one");
    assert!(wharf.app("shop")["error"].is_null());
}
