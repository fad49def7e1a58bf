//! Access control of the real program: BASIC, constraints, lock-out, on every kind of application and with a broken realm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf_tests::{CGI_ENV, CGI_TOML, Database, Engine, Responder, Site, Wharf, cgi_program, chameleon, library, wait};

const APP: &str = r#"kind = "static"
root = "public"
roles = ["dev"]

[login]
method = "BASIC"
realm = "staff"

[[constraints]]
patterns = ["/private/*"]
roles = ["admin"]

[[constraints]]
patterns = ["/members/*"]
methods = ["GET"]
roles = ["**"]

[[constraints]]
patterns = ["/never/*"]
roles = []

[[constraints]]
patterns = ["/tls/*"]
transport = "CONFIDENTIAL"
"#;

fn passwd(site: &Site, arguments: &[&str], password: &str) -> bool {
    site.passwd("users.txt", arguments, password)
}

fn site(settings: &str) -> Site {
    let mut site = Site::new().with("deploy/shop/app.toml", APP);
    for path in ["private", "members", "never", "tls", "open"] {
        site = site.with(&format!("deploy/shop/public/{path}/x.txt"), path);
    }
    let site = site.with("wharf.toml", format!("[realm.staff]\nkind = \"file\"\nfile = \"users.txt\"\n{settings}"));
    assert!(passwd(&site, &["ann", "--role", "admin"], "s\u{e9}cret"));
    assert!(passwd(&site, &["bob"], "hunter2"));
    site
}

/// Base64 of `user:password`.
fn basic(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize] as char;
            out.push(if at <= three.len() { letter } else { '=' });
        }
    }
    out
}

fn status(wharf: &Wharf, method: &str, path: &str, user: &str) -> u16 {
    let value = basic(user);
    let headers = [("Authorization", value.as_str())];
    wharf.send(method, path, if user.is_empty() { &[] } else { &headers }, b"").status
}

#[test]
fn constraints_hold_on_every_spelling_of_a_path_and_every_method() {
    let wharf = site("").start(&[]);
    let (ann, bob) = ("ann:s\u{e9}cret", "bob:hunter2");
    for (method, path, user, want) in [
        ("GET", "/shop/open/x.txt", "", 200),
        ("GET", "/shop/private/x.txt", "", 401),
        ("GET", "/shop/private/x.txt", ann, 200),
        ("GET", "/shop/private/x.txt", bob, 403),
        ("GET", "/shop/private/x.txt", "ann:wrong", 401),
        ("GET", "/shop/private/x.txt", "nobody:hunter2", 401),
        ("GET", "/shop/members/x.txt", bob, 200),
        // Not covered: refused, whoever asks.
        ("HEAD", "/shop/members/x.txt", bob, 403),
        ("POST", "/shop/members/x.txt", ann, 403),
        ("GET", "/shop/never/x.txt", ann, 403),
        ("GET", "/shop/tls/x.txt", "", 403),
        // The path that is matched is the one that is served.
        ("GET", "/shop/%70rivate/x.txt", "", 401),
        ("GET", "/shop//private//x.txt", "", 401),
        ("GET", "/shop/./private/x.txt", "", 401),
        ("GET", "/shop/open/../private/x.txt", "", 401),
        ("GET", "/shop/private;a=b/x.txt;jsessionid=1", "", 401),
        ("GET", "/shop/private", "", 401),
    ] {
        assert_eq!(status(&wharf, method, path, user), want, "{method} {path} {user}");
    }
    let challenge = wharf.get("/shop/private/x.txt");
    assert_eq!(challenge.header("www-authenticate"), Some("Basic realm=\"staff\", charset=\"UTF-8\""));
    wait("the user in the access log", || wharf.output().contains(" - ann [").then_some(()));
    assert!(!wharf.log().contains("hunter2") && !wharf.output().contains("hunter2"));
}

#[test]
fn credentials_that_are_none_do_not_pass() {
    let wharf = site("").start(&[]);
    let long = basic(&format!("ann:{}", "x".repeat(20_000)));
    let nul = basic("ann:s\u{e9}cret\0");
    for value in ["Basic", "Basic ", "Basic %%%", "Basic YW5u", "Bearer abc", "basic", &long, &nul] {
        let answer = wharf.send("GET", "/shop/private/x.txt", &[("Authorization", value)], b"");
        assert_eq!(answer.status, 401, "{value:.40}");
    }
    let right = basic("ann:s\u{e9}cret");
    let twice = [("Authorization", right.as_str()), ("Authorization", "Basic YW5u")];
    assert_eq!(wharf.send("GET", "/shop/private/x.txt", &twice, b"").status, 400);
}

#[test]
fn guessing_ends_in_a_lock() {
    let wharf = site("lockout = { failures = 3 }\n").start(&[]);
    for _ in 0..3 {
        assert_eq!(status(&wharf, "GET", "/shop/private/x.txt", "ann:guess"), 401);
    }
    for user in ["ann:guess", "ann:s\u{e9}cret"] {
        assert_eq!(status(&wharf, "GET", "/shop/private/x.txt", user), 429);
    }
    assert_eq!(status(&wharf, "GET", "/shop/members/x.txt", "bob:hunter2"), 200);
}

#[test]
fn a_realm_that_is_broken_refuses_and_changes_take_effect() {
    let wharf = site("").start(&[]);
    let ask = || status(&wharf, "GET", "/shop/private/x.txt", "ann:s\u{e9}cret");
    assert_eq!(ask(), 200);
    let good = std::fs::read(wharf.path("users.txt")).unwrap();
    wharf.put("users.txt", "ann:no hash\n");
    wait("503 of a broken realm", || (ask() == 503).then_some(()));
    wharf.put("users.txt", good);
    wait("the realm to be good again", || (ask() == 200).then_some(()));
    assert!(passwd(&wharf, &["ann", "--delete"], ""));
    wait("a user that is gone to be refused", || (ask() == 401).then_some(()));
    assert_eq!(wharf.cli(&["passwd", "users.txt", "--list"]).out.trim(), "bob");
}

#[test]
fn constraints_that_can_not_be_held_keep_an_application_from_starting() {
    let wharf = site("").start(&[]);
    wharf.put("deploy/bad/public/open/x.txt", "x");
    for (text, word) in [
        (APP.replace("\"staff\"", "\"stuff\""), "stuff"),
        (APP.replace("BASIC", "BEARER"), "passwords"),
        (APP.replace("method = \"BASIC\"", "method = \"BASC\""), "BASIC"),
        (APP.replace("patterns = [\"/never/*\"]", "patterns = [\"never\"]"), "never"),
    ] {
        wharf.put("deploy/bad/app.toml", text);
        let error = wait(&format!("the refusal that says {word}"), || {
            let error = wharf.app("bad")["error"].to_string();
            error.contains(word).then_some(error)
        });
        assert!(!error.is_empty());
        assert_eq!(wharf.get("/bad/open/x.txt").status, 404);
    }
}

/// The table that guards an application of any kind.
const GUARD: &str = r#"
[login]
method = "BASIC"
realm = "staff"

[[constraints]]
patterns = ["/private/*"]
roles = ["admin"]
"#;

/// Servlet 6.1, section 13.3: the application sees who it is, and only where somebody was asked for.
#[test]
fn a_module_sees_the_user_and_its_roles() {
    let site = site("").with("deploy/mod.so", chameleon("one")).with("deploy/mod.toml", GUARD);
    let wharf = site.start(&[]);
    let ann = basic("ann:s\u{e9}cret");
    let who = |path: &str, value: &str| {
        let headers = [("Authorization", value)];
        let answer = wharf.send("GET", path, if value.is_empty() { &[] } else { &headers }, b"");
        (answer.status, answer.text())
    };
    assert_eq!(who("/mod/private/who", "").0, 401);
    assert_eq!(who("/mod/private/who", &basic("bob:hunter2")).0, 403);
    let known = "Some(\"ann\") Some(\"BASIC\") admin=true dev=false **=true *=false 1";
    assert_eq!(who("/mod/private/who", &ann), (200, known.into()));
    // Where nobody need log in nobody is asked, and a header alone makes no user.
    let nobody = "None None admin=false dev=false **=false *=false 0";
    assert_eq!(who("/mod/who", &ann), (200, nobody.into()));
    assert_eq!(who("/mod/who", ""), (200, nobody.into()));
}

/// Constraints guard programs and proxies like modules: what is behind them is not reached by a request that is refused.
#[test]
fn gateways_are_guarded_and_told_of_the_user() {
    let site = site("");
    site.put("deploy/cgi/app.toml", format!("{CGI_TOML}{GUARD}"));
    for program in ["deploy/cgi/private/env", "deploy/cgi/env"] {
        cgi_program(&site, program, CGI_ENV);
    }
    let socket = site.path("responder");
    let address = format!("address = \"unix:{}\"", socket.display());
    site.put("deploy/fast/app.toml", format!("kind = \"fastcgi\"\n[fastcgi]\n{address}\n{GUARD}"));
    site.put("deploy/fast/private/x.php", "<?php");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let _responder = Responder::start(&socket, move |asked, talk| {
        counter.fetch_add(1, Ordering::SeqCst);
        let user = asked.params.iter().find(|(name, _)| *name == "REMOTE_USER").map_or("none", |(_, value)| value);
        talk.answer(&format!("Content-Type: text/plain\n\nREMOTE_USER={user}\n"))
    });
    let backend = Site::new().with("deploy/back.so", chameleon("back")).start(&[]);
    let behind = format!("kind = \"proxy\"\n[proxy]\nbackends = [\"http://{}/back\"]\n", backend.addr());
    site.put("deploy/proxy/app.toml", format!("{behind}{GUARD}"));
    let wharf = site.start(&[]);
    for (path, seen) in [
        ("/cgi/private/env", "REMOTE_USER=ann"),
        ("/fast/private/x.php", "REMOTE_USER=ann"),
        ("/proxy/private/who", "None None"),
    ] {
        assert_eq!(status(&wharf, "GET", path, ""), 401, "{path}");
        assert_eq!(status(&wharf, "GET", path, "bob:hunter2"), 403, "{path}");
        assert_eq!(status(&wharf, "POST", path, "ann:wrong"), 401, "{path}");
        for spelt in [
            path.replace("/private", "//private"),
            path.replace("/private", "/%70rivate"),
            path.replace("/private", "/x/../private"),
        ] {
            assert!(matches!(status(&wharf, "GET", &spelt, ""), 400 | 401), "{spelt}");
        }
        let value = basic("ann:s\u{e9}cret");
        let answer = wharf.send("GET", path, &[("Authorization", &value)], b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.text().contains(seen), "{path}: {}", answer.text());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "refused requests went to the responder");
}

/// Containers that count together in this Redis.
fn counting(redis: &Database, settings: &str) -> [Wharf; 2] {
    let text = format!("[resource.redis]\nkind = \"cache\"\nurl = \"{}\"\nwait = \"500ms\"\n{settings}", redis.url());
    [(); 2].map(|()| {
        let realm = format!("{text}\n[realm.staff]\nkind = \"file\"\nfile = \"users.txt\"\n");
        let site = site("").with(
            "wharf.toml",
            format!("{realm}[realm.staff.lockout]\nfailures = 3\ntime = \"3s\"\nshared = \"redis\"\n"),
        );
        site.start(&[])
    })
}

#[test]
fn containers_lock_out_together() {
    let Some(mut redis) = Database::start(Engine::Redis) else { return };
    let [a, b] = counting(&redis, "");
    let bob = |wharf: &Wharf, password: &str| status(wharf, "GET", "/shop/members/x.txt", &format!("bob:{password}"));
    assert_eq!([bob(&a, "x"), bob(&b, "x"), bob(&a, "x")], [401; 3]);
    // Three in all, and at neither of them more than two.
    assert_eq!([bob(&b, "hunter2"), bob(&a, "hunter2")], [429; 2]);
    // Others are not concerned, and it ends.
    assert_eq!(status(&b, "GET", "/shop/private/x.txt", "ann:s\u{e9}cret"), 200);
    wait("the end of the lock", || (bob(&b, "hunter2") == 200).then_some(()));
    // Without Redis each counts for itself.
    redis.kill();
    assert_eq!([bob(&a, "y"), bob(&a, "y"), bob(&a, "y")], [401; 3]);
    assert_eq!(bob(&a, "hunter2"), 429);
    assert!(a.log().contains("lock-outs are not shared"), "{}", a.log());
}

#[test]
fn containers_limit_rates_together() {
    let Some(mut redis) = Database::start(Engine::Redis) else { return };
    let rate = "[protect.rate]\nrequests = 20\nper = \"1h\"\nshared = \"redis\"\n";
    let [a, b] = counting(&redis, rate);
    let asks = |wharf: &Wharf, times: usize| {
        let mut client = wharf.connect();
        (0..times).map(|_| client.get("/shop/open/x.txt").unwrap().status).collect::<Vec<_>>()
    };
    assert_eq!(asks(&a, 12), vec![200; 12]);
    assert_eq!(asks(&b, 8), vec![200; 8]);
    // Twenty in all: within a moment both know.
    wait("the first to refuse", || (asks(&a, 1) == [429]).then_some(()));
    wait("the second to refuse", || (asks(&b, 1) == [429]).then_some(()));
    // The bound of each, 20, was reached by neither: so much is left of it without Redis.
    redis.kill();
    assert_eq!(asks(&b, 1), [429], "until the window ends");
}

#[test]
fn users_are_in_a_database_too() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::MariaDb] {
        let Some(mut database) = Database::start(engine) else { continue };
        // The hashes are those that the program makes.
        let made = site("");
        let users = std::fs::read_to_string(made.path("users.txt")).unwrap();
        let hash = |name: &str| {
            let line = users.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split(':').nth(1).unwrap().to_owned()
        };
        let sql = format!(
            "create table users (name varchar(40) primary key, hash varchar(200)); create table roles (name varchar(40), role varchar(40));
             insert into users values ('ann', '{}'), ('bob', '{}'), ('eve', 'no hash');
             insert into roles values ('ann', 'admin'), ('ann', 'dev');",
            hash("ann"), hash("bob")
        );
        let realm = format!(
            "[resource.db]\nkind = \"sql\"\nurl = \"{}\"\nwait = \"500ms\"\n[realm.staff]\nkind = \"sql\"\nresource = \"db\"\n\
             user_query = \"select hash from users where name = ?\"\nrole_query = \"select role from roles where name = ?\"\ncache = \"0s\"\n",
            database.url()
        );
        // SQLite has no client here: an application makes the tables by its migrations.
        let site = site("").with("wharf.toml", realm).with("deploy/db/db.so", library("databases"));
        let site = site.with("deploy/db/app.toml", "kind = \"module\"\n[init]\nmigrations = \"sql\"\n");
        let wharf = site.with("deploy/db/sql/0020_users.sql", sql).start(&[]);
        let ask = |path: &str, user: &str| status(&wharf, "GET", path, user);
        assert_eq!(ask("/shop/private/x.txt", "ann:s\u{e9}cret"), 200, "{engine:?} {}", wharf.log());
        assert_eq!(ask("/shop/private/x.txt", "bob:hunter2"), 403, "{engine:?}");
        assert_eq!(ask("/shop/members/x.txt", "bob:hunter2"), 200, "{engine:?}");
        for wrong in ["bob:hunter3", "nobody:hunter2", "' or '1'='1:x", "ann:"] {
            assert_eq!(ask("/shop/members/x.txt", wrong), 401, "{engine:?} {wrong}");
        }
        // What can't be told lets nobody pass, and is said.
        assert_eq!(ask("/shop/members/x.txt", "eve:x"), 503, "{engine:?}");
        assert!(wharf.log().contains("user 'eve'"), "{}", wharf.log());
        if engine != Engine::Sqlite {
            database.kill();
            assert_eq!(ask("/shop/members/x.txt", "bob:hunter2"), 503, "{engine:?}");
        }
    }
}
