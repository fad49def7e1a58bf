//! Bad files, each over a version that serves: every one gets its own clear error, and that version answers every request.

mod cases;

use std::fs;
use std::time::{Duration, Instant};

use object::read::elf::{FileHeader, SectionHeader};
use serde_json::Value;
use wharf_tests::{Load, Site, Wharf, chameleon, wait, within};

use crate::cases::{Bad, Case, case, files, good, side_cars};

/// Puts the bad thing in place and waits for the error that follows.
fn apply(wharf: &Wharf, case: &Case) -> Value {
    // Each refusal is a line in the log, also one with the same text as the one before.
    let refusals = || wharf.log().matches(" code=W").count();
    let before = refusals();
    match &case.bad {
        Bad::Content(bytes) => wharf.put("deploy/shop.so", bytes),
        Bad::Made(make) => {
            let temporary = wharf.temporary("deploy/shop.so");
            make(&temporary);
            wharf.rename(&temporary, "deploy/shop.so");
        }
        Bad::SideCar(text) => wharf.put("deploy/shop.toml", text),
    }
    wait(case.name, || {
        if refusals() == before {
            return None;
        }
        Some(wharf.app("shop")["error"].take()).filter(|error| !error.is_null())
    })
}

fn judge(wharf: &Wharf, case: &Case, error: &Value) {
    let name = case.name;
    assert_eq!(error["code"], case.code, "{name}: {error}");
    let app = wharf.app("shop");
    assert_eq!(app["state"], "serving", "{name}: {app}");
    assert_eq!(wharf.get("/shop/").text(), "one", "{name}");
    let list = wharf.cli(&["list"]);
    let (_, text) = list.out.split_once("  shop: ").unwrap_or_else(|| panic!("{name}: {list:?}"));
    assert!(text.starts_with(&format!("{} at ", case.code)) && text.contains("do this: "), "{name}: {text}");
    for word in case.words {
        assert!(text.contains(word), "{name}: no {word:?} in: {text}");
    }
    // What `wharf explain` says of it.
    assert_eq!(wharf.cli(&["explain", case.code]).code, 0, "{name}");
    let logged = wharf.log().matches(&format!("code={}", case.code)).count();
    assert!(logged > 0, "{name}: not in the log");
}

fn settle(wharf: &Wharf) {
    wharf.put("deploy/shop.so", good());
    wait("the good version without an error", || {
        let app = wharf.app("shop");
        (app["error"].is_null() && app["state"] == "serving").then_some(())
    });
    wharf.wait_alone("shop");
}

#[test]
fn whatever_is_put_in_its_place_the_version_that_serves_goes_on() {
    let site = Site::new().with("deploy/shop.so", good());
    let mut wharf = site.start(&["--set", "deploy.trial_timeout=2s", "--set", "access_log.format=off"]);
    let pid = wharf.admin("GET", "/v1/info").text();
    // A redeploy first: what is made once and kept is there, then.
    settle(&wharf);
    wharf.get("/shop/");
    let (descriptors, threads) = (wharf.descriptors(), wharf.threads());

    let load = Load::start(wharf.addr(), &["/shop/"], 3, Duration::from_millis(2));
    let (files, side_cars) = (files(), side_cars());
    assert!(files.len() + side_cars.len() >= 25);
    for case in &files {
        let error = apply(&wharf, case);
        judge(&wharf, case, &error);
    }
    settle(&wharf);
    for case in &side_cars {
        let error = apply(&wharf, case);
        judge(&wharf, case, &error);
    }
    wharf.remove("deploy/shop.toml");
    settle(&wharf);
    let tally = load.stop();
    tally.assert_clean();
    assert_eq!(tally.answers.keys().collect::<Vec<_>>(), ["one"]);

    assert!(wharf.ended().is_none());
    assert_eq!(wharf.admin("GET", "/v1/info").text(), pid, "another process");
    assert_eq!(wharf.mapped().len(), 1, "{:?}", wharf.mapped());
    wait("the private copies to be gone", || {
        (fs::read_dir(wharf.path(".wharf/generations")).unwrap().count() == 1).then_some(())
    });
    // Threads of connections and of launches end a moment later.
    wait("threads and descriptors as before", || {
        (wharf.threads() == threads && wharf.descriptors() <= descriptors).then_some(())
    });

    // And it still takes a good one.
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
}

#[test]
fn a_file_cut_at_any_section_is_refused_as_cut_off() {
    let whole = good();
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*whole).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, &*whole).unwrap();
    let mut ends: Vec<usize> = sections.iter().map(|s| s.sh_offset(endian) as usize).filter(|at| *at > 0).collect();
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 15, "{ends:?}");
    let site = Site::new().with("deploy/shop.so", &whole);
    for end in &ends {
        site.put(&format!("deploy/cut-{end}.so"), &whole[..*end]);
    }
    let wharf = site.start(&[]);
    for end in &ends {
        let error =
            wait("the refusal", || Some(wharf.app(&format!("cut-{end}"))["error"].take()).filter(|e| !e.is_null()));
        assert_eq!(error["code"], "W0203", "{end}: {error}");
        assert!(error["what"].as_str().unwrap().contains(&format!("{end} bytes")), "{error}");
    }
    assert_eq!(wharf.get("/shop/").text(), "one");
}

#[test]
fn what_can_only_stand_beside_a_good_version_is_refused_beside_it() {
    let site = Site::new().with("deploy/shop.so", good());
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(2));
    fs::create_dir(wharf.path("deploy/folder")).unwrap();
    fs::create_dir(wharf.path("deploy/named.so")).unwrap();
    wharf.put("deploy/nokind/app.toml", "order = 1\n");
    wharf.put("deploy/noroot/app.toml", "kind = \"static\"\nroot = \"public\"\n");
    wharf.put("deploy/nomodule/app.toml", "kind = \"module\"\n");
    wharf.put("deploy/guess/app.toml", "kind = \"statc\"\n");
    wharf.put("deploy/outside/app.toml", "kind = \"static\"\nroot = \"../shop\"\n");
    wharf.put("deploy/a##.so", good());
    wharf.put("deploy/a#..#b.so", good());
    wharf.put("deploy/other.toml", "context_path = \"/shop\"\n");
    wharf.put("deploy/other.so", good());
    for (name, code, words) in [
        ("folder", "W0102", &["app.toml", "kind = \"static\""][..]),
        ("named", "W0104", &["is a folder"]),
        ("nokind", "W0103", &["there is no 'kind'"]),
        ("noroot", "W0103", &["is not a folder"]),
        ("nomodule", "W0103", &["there is no .so in the folder"]),
        ("guess", "W0103", &["app.toml:1:8", "did you mean 'static'?"]),
        ("outside", "W0103", &["inside the folder"]),
        ("a##", "W0101", &["no version after '##'", "rename the file"]),
        ("a#..#b", "W0101", &["dot segment"]),
        ("other", "W0105", &["/shop", "which is 'shop'"]),
    ] {
        let app = wait(name, || Some(wharf.app(name)).filter(|a| !a["error"].is_null()));
        assert_eq!((&app["error"]["code"], &app["state"]), (&code.into(), &"failed".into()), "{app}");
        let list = wharf.cli(&["list"]).out;
        let (_, text) = list.split_once(&format!("  {name}: ")).unwrap();
        words.iter().for_each(|w| assert!(text.contains(w), "{name}: no {w:?} in {text}"));
    }
    let tally = load.stop();
    tally.assert_clean();
    assert_eq!(tally.answers.keys().collect::<Vec<_>>(), ["one"]);
}

#[test]
fn a_start_that_hangs_in_the_container_alone_is_given_up_and_reported() {
    let site = Site::new().with("deploy/shop.so", good());
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(2));
    let text = "start_timeout = \"1s\"\n[init]\nstart = \"hang\"\nonly = \"container\"\n";
    let case = case("hangs", Bad::SideCar(text), "W0603", &["raise start_timeout"]);
    let error = apply(&wharf, &case);
    judge(&wharf, &case, &error);
    // It can't be taken out of memory while its start is at work, and no more than it stays.
    assert_eq!(wharf.mapped().len(), 2);
    wharf.remove("deploy/shop.toml");
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    load.stop().assert_clean();
}

#[test]
fn a_stop_that_panics_or_fails_ends_the_generation_all_the_same() {
    let site = Site::new().with("deploy/shop.so", good()).with("deploy/shop.toml", "[init]\nstop = \"panic\"\n");
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(2));
    wharf.put("deploy/shop.toml", "[init]\nstop = \"error\"\n");
    wait("the panic in the log", || wharf.log().contains("stop panics as asked").then_some(()));
    wait("two generations", || (wharf.app("shop")["generations"][0]["generation"].as_u64() > Some(1)).then_some(()));
    wharf.wait_alone("shop");
    wharf.put("deploy/shop.toml", "order = 1\n");
    wait("the error in the log", || wharf.log().contains("stop fails as asked").then_some(()));
    wharf.wait_alone("shop");
    assert_eq!(wharf.mapped().len(), 1);
    load.stop().assert_clean();
}

/// Writes the second half of `bytes` to a file that has the first, in steps, at about 100 KB a second.
fn copy_slowly(wharf: &Wharf, path: &str, bytes: &[u8], mut meanwhile: impl FnMut()) {
    use std::io::Write;
    let mut file = fs::File::create(wharf.path(path)).unwrap();
    let slow = bytes.len() - 250_000;
    file.write_all(&bytes[..slow]).unwrap();
    let begin = Instant::now();
    for (step, piece) in bytes[slow..].chunks(10_000).enumerate() {
        file.write_all(piece).unwrap();
        meanwhile();
        std::thread::sleep((Duration::from_millis(100) * (step as u32 + 1)).saturating_sub(begin.elapsed()));
    }
}

#[test]
fn a_file_that_is_half_copied_is_waited_for_and_one_overwritten_in_place_changes_nothing_until_it_is_whole() {
    let site = Site::new().with("deploy/shop.so", good());
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(2));
    copy_slowly(&wharf, "deploy/slow.so", &chameleon("slow"), || {
        let app = wharf.app("slow");
        assert!(app["error"].is_null() && app["state"] != "failed", "{app}");
        assert_eq!(wharf.get("/slow/").status, 404);
    });
    within(Duration::from_secs(3), "the copied file", || (wharf.get("/slow/").text() == "slow").then_some(()));

    // Over the inode that the serving version came from.
    copy_slowly(&wharf, "deploy/shop.so", &chameleon("two"), || {
        let app = wharf.app("shop");
        assert!(app["error"].is_null(), "{app}");
        assert_eq!(wharf.get("/shop/").text(), "one");
    });
    within(Duration::from_secs(3), "the new content", || (wharf.get("/shop/").text() == "two").then_some(()));
    let tally = load.stop();
    tally.assert_clean();
    assert!(tally.answers.keys().all(|a| ["one", "two"].contains(&a.as_str())), "{:?}", tally.answers);
}
