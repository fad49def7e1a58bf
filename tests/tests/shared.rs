//! Caches, and sessions that several containers share, on the real program.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use wharf_tests::{Answer, Database, Engine, Site, Wharf, chameleon, library, wait, within};

/// Caches of every kind: the server behind it, if there is one, and the configuration.
fn caches() -> Vec<(Option<Database>, String)> {
    let redis = Database::start(Engine::Redis);
    let mut all =
        vec![(None, "[resource.cache]\nkind = \"cache\"\nurl = \"memory:\"\nmax_bytes = 2000000\n".to_owned())];
    if let Some(redis) = redis {
        let text = format!("[resource.cache]\nkind = \"cache\"\nurl = \"{}\"\nwait = \"1s\"\n", redis.url());
        all.push((Some(redis), text));
    }
    all
}

#[test]
fn a_cache_keeps_its_rules() {
    for (redis, text) in caches() {
        let wharf = Site::new().with("wharf.toml", text).with("deploy/c.so", library("caches")).start(&[]);
        let rules = wharf.get("/c/rules");
        assert_eq!(rules.status, 200, "{}", wharf.log());
        let rules: Value = serde_json::from_str(&rules.text()).unwrap();
        let want = json!({
            "nothing": null, "bytes": [0, 255], "added": [false, true], "swapped": [false, false, true, false],
            "sums": [5, -2, 2], "no_number": true, "expired": [null, null, null], "again": true, "removed": [true, false],
        });
        assert_eq!(rules, want);
        // No increment is lost.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = wharf.connect();
                    (0..50).for_each(|_| assert_eq!(client.get("/c/count").unwrap().status, 200));
                });
            }
        });
        assert_eq!(wharf.get("/c/count").text(), "401");
        // Messages reach whoever hears them; values and messages outlive a generation.
        wait("the subscription", || (wharf.get("/c/publish?text=one").text() != "0").then_some(()));
        wait("the message", || wharf.get("/c/heard").text().contains("one").then_some(()));
        assert_eq!(wharf.cli(&["reload", "c"]).code, 0);
        wharf.wait_alone("c");
        assert_eq!(wharf.get("/c/count").text(), "402");
        wait("the subscription of the new one", || (wharf.get("/c/publish?text=two").text() == "1").then_some(()));
        if redis.is_none() {
            // There is an end to what it takes: 2,000 values of 4 KiB do not fit in 2 MB.
            let before = wharf.resident_kib();
            assert_eq!(wharf.get("/c/fill").text(), "full");
            let grown = wharf.resident_kib().saturating_sub(before);
            assert!(grown < 7000, "{grown} KiB");
        }
        assert_eq!(wharf.admin("GET", "/readyz").status, 200);
    }
}

#[test]
fn a_redis_that_goes_away_is_lived_with() {
    let Some((Some(mut redis), text)) = caches().pop() else { return };
    let wharf = Site::new().with("wharf.toml", text).with("deploy/c.so", library("caches")).start(&[]);
    assert_eq!(wharf.get("/c/value?key=k&set=v").text(), "v");
    redis.kill();
    let began = Instant::now();
    assert_eq!(wharf.get("/c/value?key=k").status, 500);
    assert!(began.elapsed() < Duration::from_secs(3));
    wait("readiness to say so", || {
        let answer = wharf.admin("GET", "/readyz");
        (answer.status == 503 && answer.text().contains("resource 'cache' is down")).then_some(())
    });
    redis.up();
    within(Duration::from_secs(5), "the cache to heal", || (wharf.get("/c/value?key=k").text() == "v").then_some(()));
    redis.freeze(true);
    let began = Instant::now();
    assert_eq!(wharf.get("/c/value?key=k").status, 500);
    assert!(began.elapsed() < Duration::from_secs(3));
    redis.freeze(false);
    within(Duration::from_secs(5), "the cache to heal", || (wharf.get("/c/value?key=k").text() == "v").then_some(()));
    within(Duration::from_secs(5), "messages to come again", || {
        wharf.get("/c/publish?text=again");
        wharf.get("/c/heard").text().contains("again").then_some(())
    });
}

fn id(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    cookie.split(['=', ';']).nth(1).unwrap().to_owned()
}

fn ask(wharf: &Wharf, path: &str, id: &str) -> Answer {
    wharf.send("GET", &format!("/shop/s/{path}"), &[("Cookie", &format!("WHARFSESSION={id}"))], b"")
}

/// A container whose sessions are in this database.
fn sharing(database: &Database, kind: &str) -> Wharf {
    let resource = format!("[resource.sessions]\nkind = \"{kind}\"\nurl = \"{}\"\nwait = \"1s\"\n", database.url());
    let text = format!("{resource}[session]\nstore = \"sessions\"\n");
    Site::new().with("wharf.toml", text).with("deploy/shop.so", chameleon("one")).start(&[])
}

#[test]
fn containers_share_their_sessions() {
    for (engine, kind) in [(Engine::Redis, "cache"), (Engine::Postgres, "sql"), (Engine::MariaDb, "sql")] {
        let Some(mut database) = Database::start(engine) else { continue };
        let (a, b) = (sharing(&database, kind), sharing(&database, kind));
        let sid = id(&a.get("/shop/s/count"));
        // In turns, each sees what the other has left.
        for n in [2, 4, 6] {
            assert_eq!(ask(&b, "count", &sid).text(), n.to_string(), "{engine:?} {}", b.log());
            assert_eq!(ask(&a, "count", &sid).text(), (n + 1).to_string(), "{engine:?}");
        }
        // A new id, and an end, hold everywhere.
        let changed = id(&ask(&b, "login", &sid));
        assert_eq!(ask(&a, "peek", &sid).text(), "none", "{engine:?}");
        assert_eq!(ask(&a, "peek", &changed).text(), "Some(7) n", "{engine:?}");
        assert_eq!(ask(&a, "end", &changed).status, 200);
        assert_eq!(ask(&b, "peek", &changed).text(), "none", "{engine:?}");
        // None is lost with a container, or with all of them.
        let sid = id(&a.get("/shop/s/count"));
        a.signal(Signal::KILL);
        assert_eq!(ask(&b, "count", &sid).text(), "2", "{engine:?}");
        drop((a, b));
        let c = sharing(&database, kind);
        assert_eq!(ask(&c, "count", &sid).text(), "3", "{engine:?}");
        // Nor with the database: it is refused for so long, and is there again.
        database.kill();
        let began = Instant::now();
        assert_eq!(ask(&c, "count", &sid).status, 503, "{engine:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{engine:?}");
        database.up();
        within(Duration::from_secs(8), "the sessions to be there again", || {
            (ask(&c, "peek", &sid).text() == "Some(3) n").then_some(())
        });
        assert_eq!(c.cli(&["reload", "shop"]).code, 0);
        assert_eq!(ask(&c, "count", &sid).text(), "4", "{engine:?}");
    }
}

#[test]
fn users_stay_logged_in_when_a_container_is_killed() {
    let Some(redis) = Database::start(Engine::Redis) else { return };
    let (a, b) = (sharing(&redis, "cache"), sharing(&redis, "cache"));
    let backends = [&a, &b].map(|w| format!("http://{}", w.addr()));
    let proxy = format!("kind = \"proxy\"\n[proxy]\nbackends = {backends:?}\n");
    let front = Site::new().with("deploy/ROOT.toml", proxy).start(&[]);
    let users: Vec<String> = (0..20).map(|_| id(&front.get("/shop/s/count"))).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = users
            .iter()
            .map(|sid| {
                let front = &front;
                scope.spawn(move || {
                    for _ in 0..60 {
                        let answer = ask(front, "peek", sid);
                        assert_eq!((answer.status, answer.text().as_str()), (200, "Some(1) n"));
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(150));
        a.signal(Signal::KILL);
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    for sid in &users {
        assert_eq!(ask(&front, "count", sid).text(), "2");
    }
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let site = Site::new().with("wharf.toml", "[session]\nstore = \"redis\"\n");
    let wharf = site.with("deploy/shop.so", chameleon("one")).start(&[]);
    let error = wharf.app("shop")["error"].to_string();
    for words in ["W0103", "neither memory nor file", "[resource.redis]", "kind = \\\"cache\\\""] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
}
