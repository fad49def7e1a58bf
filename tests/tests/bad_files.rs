//! Bad files, each over a version that serves: every one gets its own clear error, and that version answers every request.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use object::read::elf::{FileHeader, SectionHeader};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use wharf_tests::{Load, Site, Wharf, chameleon, library, marked, replaced, replaced_name, wait, within};

/// What is put in place of the good version.
enum Bad {
    /// A file with this content.
    Content(Vec<u8>),
    /// Whatever this makes at the path.
    Made(fn(&Path)),
    /// The good file, and this beside it.
    SideCar(&'static str),
}

struct Case {
    name: &'static str,
    bad: Bad,
    code: &'static str,
    /// What the message must have in it.
    words: &'static [&'static str],
}

fn case(name: &'static str, bad: Bad, code: &'static str, words: &'static [&'static str]) -> Case {
    Case { name, bad, code, words }
}

fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn cut(len: usize) -> Vec<u8> {
    let mut bytes = good();
    bytes.truncate(len);
    bytes
}

fn good() -> Vec<u8> {
    chameleon("one")
}

fn constructor(does: &str) -> Vec<u8> {
    marked(good(), "MARK:none", &format!("MARK:{does}"))
}

fn system_library(name: &str) -> Vec<u8> {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib", "/lib"];
    let path = folders.iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists());
    fs::read(path.unwrap_or_else(|| panic!("no {name} on this machine"))).unwrap()
}

/// The needed C library version that this file names last, with a major version of the far future.
fn future_glibc() -> Vec<u8> {
    let bytes = good();
    let begin = b"\0GLIBC_2.";
    let at = bytes.windows(begin.len()).position(|w| w == begin).expect("it needs a C library");
    let mut bytes = bytes;
    bytes[at + 7] = b'9';
    bytes
}

#[cfg(target_arch = "aarch64")]
const OTHER_MACHINE: [u8; 2] = [62, 0];
#[cfg(not(target_arch = "aarch64"))]
const OTHER_MACHINE: [u8; 2] = [183, 0];

fn files() -> Vec<Case> {
    let whole = good().len();
    vec![
        case("text", Bad::Content(b"not a library\n".to_vec()), "W0202", &["starts with"]),
        case("empty", Bad::Content(Vec::new()), "W0201", &["0 bytes", "copy it again"]),
        case("the first bytes of ELF alone", Bad::Content(b"\x7fEL".to_vec()), "W0203", &["3 bytes"]),
        case("cut in the ELF header", Bad::Content(cut(40)), "W0203", &["40 bytes", "ELF header"]),
        case("cut in the program headers", Bad::Content(cut(100)), "W0203", &["program header table"]),
        case("cut in the middle", Bad::Content(cut(whole / 2)), "W0203", &["section header table", "copy it again"]),
        case("cut in the section table", Bad::Content(cut(whole - 10)), "W0203", &["section header table"]),
        case(
            "for another machine",
            Bad::Content(patched(18, &OTHER_MACHINE)),
            "W0205",
            &["built for", "this machine is"],
        ),
        case("32-bit", Bad::Content(patched(4, &[1])), "W0204", &["32-bit"]),
        case("big-endian", Bad::Content(patched(5, &[2])), "W0204", &["big-endian"]),
        case("an executable", Bad::Content(patched(16, &[2, 0])), "W0206", &["cdylib"]),
        case("an object file", Bad::Content(patched(16, &[1, 0])), "W0206", &["ELF type 1"]),
        case("a program", Bad::Content(fs::read("/bin/cat").unwrap()), "W0207", &["export!"]),
        case("a library of the system", Bad::Content(system_library("libm.so.6")), "W0207", &["wharf_sdk::export!"]),
        case(
            "ABI of the future",
            Bad::Content(replaced(good(), b"\nabi = \"1.0\"\n", b"\nabi = \"9.0\"\n")),
            "W0209",
            &["the module speaks ABI 9.0", "this container ABI 1."],
        ),
        case(
            "newer minor ABI",
            Bad::Content(replaced(good(), b"\nabi = \"1.0\"\n", b"\nabi = \"1.9\"\n")),
            "W0209",
            &["the module speaks ABI 1.9", "upgrade the container"],
        ),
        case(
            "panic = abort",
            Bad::Content(replaced(good(), b"\npanic = \"unwind\"\n", b"\npanic = \"abort\" \n")),
            "W0210",
            &["abort", "Cargo.toml"],
        ),
        case(
            "damaged descriptor",
            Bad::Content(replaced(good(), b"\npanic = \"unwind\"\n", b"\npanic = \"unwind \n")),
            "W0208",
            &["wharf-sdk"],
        ),
        case(
            "descriptor of another kind",
            Bad::Content(replaced(good(), b"# wharf module descriptor 1\n", b"# wharf module descriptor 7\n")),
            "W0208",
            &["does not start with"],
        ),
        case(
            "missing symbol",
            Bad::Content(replaced_name(good(), "epoll_wait", "epoll_wajt")),
            "W0212",
            &["'epoll_wajt' is in none of", "link the library"],
        ),
        case(
            "missing C library version",
            Bad::Content(future_glibc()),
            "W0211",
            &["it needs GLIBC_9.", "this machine has"],
        ),
        case(
            "missing library",
            Bad::Content(replaced_name(good(), "libgcc_s.so.1", "libnot_s.so.1")),
            "W0213",
            &["'libnot_s.so.1' was not found", "install"],
        ),
        case(
            "no root module",
            Bad::Content(replaced_name(good(), "wharf_module_root_v1", "wharf_module_root_v0")),
            "W0403",
            &["wharf-sdk"],
        ),
        case(
            "changed layout",
            Bad::Content(library("foreign-layout")),
            "W0501",
            &["expected is this container's, found is the module's", "u64", "create"],
        ),
        case("constructor crashes", Bad::Content(constructor("crash")), "W0301", &["SIGSEGV", "static constructors"]),
        case("constructor exits", Bad::Content(constructor("exit")), "W0302", &["exit status 0"]),
        case("constructor hangs", Bad::Content(constructor("hang")), "W0303", &["after 2s", "trial_timeout"]),
        case("symbolic link", Bad::Made(|path| symlink("/bin/cat", path).unwrap()), "W0104", &["symbolic link"]),
        case(
            "FIFO",
            Bad::Made(|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
            "W0104",
            &["FIFO", "copy the file itself"],
        ),
        case(
            "writable by everyone",
            Bad::Made(|path| {
                fs::write(path, good()).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            }),
            "W0106",
            &["mode 666", "chmod o-w"],
        ),
    ]
}

fn side_cars() -> Vec<Case> {
    let case = |name, text, code, words| case(name, Bad::SideCar(text), code, words);
    vec![
        case("not TOML", "order = = 1\n", "W0103", &["shop.toml:1:9", "^"]),
        case("wrong type", "order = 1\nhealth = 5\n", "W0103", &["shop.toml:2:10", "^"]),
        case("unknown key", "helth = \"/health\"\n", "W0103", &["shop.toml:1:1", "^^^^^", "did you mean 'health'?"]),
        case("unknown host", "host = \"elsewhere\"\n", "W0103", &["host 'elsewhere' is not configured", "[[host]]"]),
        case("bad context path", "context_path = \"/a/../b\"\n", "W0101", &["correct context_path"]),
        case("start fails", "[init]\nstart = \"error\"\n", "W0601", &["the database is not there"]),
        case("start panics", "[init]\nstart = \"panic\"\n", "W0602", &["see the panic message"]),
        case("start crashes", "[init]\nstart = \"crash\"\n", "W0301", &["SIGSEGV"]),
        case("start exits", "[init]\nstart = \"exit\"\n", "W0302", &["exit status 3", "must not call exit"]),
        case("start hangs", "[init]\nstart = \"hang\"\n", "W0303", &["after 2s"]),
        case(
            "start fails in the container alone",
            "[init]\nstart = \"error\"\nonly = \"container\"\n",
            "W0601",
            &["the database is not there"],
        ),
        case("start panics in the container alone", "[init]\nstart = \"panic\"\nonly = \"container\"\n", "W0602", &[]),
        case("unhealthy", "health = \"/health\"\n[init]\nhealth = \"bad\"\n", "W0701", &["GET /health: status 503"]),
        case("health path panics", "health = \"/panic\"\n", "W0701", &["GET /panic: status 500"]),
    ]
}

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
