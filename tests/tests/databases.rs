//! Data sources on the real program: the same application over SQLite, PostgreSQL and MariaDB.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_tests::{Database, Engine, Load, Site, Wharf, library, wait, within};

/// An application with a database.
struct Bed {
    wharf: Wharf,
    database: Database,
    engine: Engine,
}

/// `[resource.db]` of a database, and more lines for it.
fn configuration(database: &Database, more: &str) -> String {
    format!("[resource.db]\nkind = \"sql\"\nurl = \"{}\"\n{more}\n", database.url())
}

impl Bed {
    fn start(engine: Engine, more: &str) -> Option<Self> {
        let database = Database::start(engine)?;
        let site = Site::new().with("wharf.toml", configuration(&database, more));
        let wharf = site.with("deploy/db.so", library("databases")).start(&[]);
        Some(Self { wharf, database, engine })
    }

    fn text(&self, target: &str) -> String {
        let answer = self.wharf.get(&format!("/db{target}"));
        assert_eq!(answer.status, 200, "{:?} {target}: {}\n{}", self.engine, answer.text(), self.wharf.log());
        answer.text()
    }

    fn json(&self, target: &str) -> Value {
        serde_json::from_str(&self.text(target)).unwrap()
    }

    /// The state of the resource, as the admin API shows it.
    fn state(&self) -> Value {
        let answer = self.wharf.admin("GET", "/v1/resources");
        let all: Vec<Value> = serde_json::from_str(&answer.text()).unwrap();
        all[0].clone()
    }
}

fn on_every_engine(more: &str, check: impl Fn(&Bed)) {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::MariaDb] {
        if let Some(bed) = Bed::start(engine, more) {
            check(&bed);
        }
    }
}

#[test]
fn every_type_goes_both_ways() {
    on_every_engine("", |bed| {
        let types = bed.json("/types");
        assert_eq!((&types["same"], &types["rows"]), (&json!(true), &json!(1)), "{:?}: {types}", bed.engine);
        let nulls = bed.json("/nulls");
        for (key, want) in
            [("nulls", json!(true)), ("values", json!(true)), ("counted", json!(1)), ("empty", json!(null))]
        {
            assert_eq!(nulls[key], want, "{:?}: {nulls}", bed.engine);
        }
        assert_eq!(bed.json("/blob"), json!({ "bytes": 10_000_000, "same": true }));
        assert_eq!(bed.json("/marks"), json!({ "text": "? and '?'", "number": 7 }));
    });
}

#[test]
fn errors_say_what_an_application_can_do_about_them() {
    on_every_engine("", |bed| {
        let errors = bed.json("/errors");
        for (name, kind, sqlstate) in [
            ("unique", "UniqueViolation", "23"),
            ("unique-name", "UniqueViolation", "23"),
            ("foreign-key", "ForeignKeyViolation", "23"),
            ("not-null", "NotNullViolation", "23"),
            ("check", "CheckViolation", "23"),
            ("syntax", "Syntax", "42"),
            ("no-table", "Syntax", "42"),
        ] {
            let (found, state) = (&errors[name][0], errors[name][1].as_str().unwrap_or_default());
            assert_eq!(found, kind, "{:?} {name}: {errors}", bed.engine);
            assert!(state.starts_with(sqlstate), "{:?} {name}: {errors}", bed.engine);
        }
        let misfit = errors["misfit"][0].as_str().unwrap();
        assert!(misfit.starts_with("Data") && misfit.contains('x'), "{errors}");
        assert_eq!((&errors["no-row"][0], &errors["left"]), (&json!("Other"), &json!(1)), "{:?}", bed.engine);
        assert!(bed.text("/unknown").contains("not in the application's descriptor"));
    });
}

#[test]
fn batches_and_savepoints_are_whole_or_nothing() {
    on_every_engine("", |bed| {
        assert_eq!(
            bed.json("/batch"),
            json!({ "good": 1000, "bad": "UniqueViolation", "left": 1000 }),
            "{:?}",
            bed.engine
        );
        let want = json!({ "again": "UniqueViolation", "ids": [1, 3], "inside": 3, "after": 2 });
        assert_eq!(bed.json("/savepoint"), want, "{:?}", bed.engine);
    });
}

#[test]
fn a_million_rows_take_no_memory() {
    on_every_engine("", |bed| {
        // MariaDB bounds recursion by a setting, 1,000 by default elsewhere; a smaller run warms up.
        bed.json("/stream?rows=20000");
        let before = bed.wharf.resident_kib();
        let rows = bed.json("/stream?rows=1000000");
        assert_eq!(rows, json!({ "rows": 1_000_000, "sum": 500_000_500_000_i64 }), "{:?}", bed.engine);
        let grown = bed.wharf.resident_kib().saturating_sub(before);
        // The rows themselves are some 50 MiB. What SQLite itself keeps of the recursion is in this process.
        assert!(grown < 24 * 1024, "{:?}: {grown} KiB", bed.engine);
    });
}

#[test]
fn conflicting_transactions_lose_nothing() {
    on_every_engine("max = 20\nwait = \"30s\"", |bed| {
        thread::scope(|scope| {
            for n in 0..200 {
                let (from, to) = (n % 4 + 1, (n + 1 + n % 3) % 4 + 1);
                scope.spawn(move || bed.json(&format!("/transfer?from={from}&to={to}")));
            }
        });
        let total = bed.json("/total");
        assert_eq!(total["total"], 400_000, "{:?}: {total}", bed.engine);
        wait("the connections to come back", || (bed.state()["figures"]["in_use"] == 0).then_some(()));
    });
}

/// Statements that the server is at work on.
fn sleepers(bed: &Bed) -> Option<String> {
    let sql = match bed.engine {
        Engine::Sqlite | Engine::Redis => return None,
        Engine::Postgres => {
            "select count(*) from pg_stat_activity where state = 'active' and query like '%sleeper%' and query not like '%pg_stat%'"
        }
        Engine::MariaDb => {
            "select count(*) from information_schema.processlist where info like '%sleeper%' and info not like '%processlist%'"
        }
    };
    Some(bed.database.sql(sql))
}

#[test]
fn a_statement_ends_with_its_time_or_its_client() {
    on_every_engine("max = 2\nstatement_timeout = \"60s\"", |bed| {
        let began = Instant::now();
        assert_eq!(bed.json("/slow?ms=300"), json!({ "error": "Timeout" }), "{:?}", bed.engine);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", bed.engine);
        // Clients that go away take their statements with them: on both connections, twice.
        for _ in 0..2 {
            let clients = [(); 2].map(|()| {
                let mut client = bed.wharf.connect();
                client.write("GET", "/db/slow", &[("Connection", "close")], b"").unwrap();
                client
            });
            wait("both to be in use", || (bed.state()["figures"]["in_use"] == 2).then_some(()));
            drop(clients);
            wait("both to be free", || (bed.state()["figures"]["in_use"] == 0).then_some(()));
        }
        within(Duration::from_secs(10), "the server to have stopped", || {
            sleepers(bed).is_none_or(|n| n == "0").then_some(())
        });
        assert_eq!(bed.text("/select?id=1"), "anchor");
        if bed.engine == Engine::Sqlite {
            // Its threads are in this process: none may go on computing.
            let busy = || bed.wharf.cpu_ticks();
            let mut last = busy();
            wait("the threads to be quiet", || {
                thread::sleep(Duration::from_millis(200));
                let now = busy();
                let quiet = now - last <= 2;
                last = now;
                quiet.then_some(())
            });
        }
    });
}

#[test]
fn what_is_left_open_is_undone_and_reported() {
    on_every_engine("leak_after = \"1s\"", |bed| {
        let left_open = || bed.state()["figures"]["left_open"].as_u64().unwrap();
        bed.text("/forgotten");
        let place = "tests/fixtures/databases/src/lib.rs:";
        wait("the report", || {
            let log = bed.wharf.log();
            let line = log.lines().find(|line| line.contains("dropped before its end"))?;
            (line.contains(place) && line.contains("/db")).then_some(())
        });
        assert_eq!(left_open(), 1);
        bed.text("/put-away");
        wait("the report", || {
            let log = bed.wharf.log();
            let line = log.lines().find(|line| line.contains("left open at the end of its request"))?;
            (line.contains(place) && line.contains("request=")).then_some(())
        });
        let after = bed.json("/use-put-away");
        assert_eq!(after, json!({ "query": "Ended", "commit": "Ended" }), "{:?}", bed.engine);
        assert_eq!(bed.json("/total")["total"], 400_000, "{:?}", bed.engine);
        // One that is open for long is said to be.
        assert_eq!(bed.text("/hold?ms=2500"), "held");
        assert!(bed.wharf.log().contains("is still open"), "{}", bed.wharf.log());
        assert_eq!(left_open(), 2);
    });
}

#[test]
fn the_pool_has_its_bounds() {
    on_every_engine("max = 2\nwait = \"400ms\"\nslow_statement = \"100ms\"\nshare_settings = true", |bed| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| bed.text("/hold?ms=1500"));
            }
            wait("both to be in use", || (bed.state()["figures"]["in_use"] == 2).then_some(()));
            let began = Instant::now();
            let refused = bed.wharf.get("/db/select?id=1");
            let took = began.elapsed();
            assert_eq!(refused.status, 503, "{:?}", bed.engine);
            assert!(took >= Duration::from_millis(350) && took < Duration::from_millis(1400), "{took:?}");
        });
        assert_eq!(bed.text("/select?id=2"), "rope");
        let state = bed.state();
        assert_eq!(state["figures"]["errors"]["wait_limit"], 1, "{state}");
        assert_eq!(bed.wharf.admin("GET", "/readyz").status, 200);
        let metrics = bed.wharf.admin("GET", "/v1/metrics").text();
        assert!(metrics.contains("wharf_resource_errors_total{resource=\"db\""), "{metrics}");
        assert!(metrics.contains("kind=\"wait_limit\""), "{metrics}");
        bed.json("/slow?ms=200");
        assert!(bed.wharf.log().contains("slow statement"), "{}", bed.wharf.log());
        assert!(bed.wharf.log().contains("sleeper"), "{}", bed.wharf.log());
        assert_eq!(bed.json("/settings")["url"], bed.database.url());
    });
}

#[test]
fn a_module_is_refused_without_what_it_needs() {
    let site = Site::new().with("deploy/db.so", library("databases"));
    let wharf = site.with("wharf.toml", "[resource.other]\nkind = \"sql\"\nurl = \"sqlite:other.db\"\n").start(&[]);
    let app = wharf.app("db");
    assert_eq!((&app["state"], &app["error"]["code"]), (&json!("failed"), &json!("W0215")), "{app}");
    let found = app["error"].to_string();
    for words in ["[resource.db]", "kind = \\\"sql\\\"", "[resources]", "db = \\\"other\\\""] {
        assert!(found.contains(words), "no {words:?} in {found}");
    }
    // Bound to the one that is there.
    wharf.put("deploy/db.toml", "[resources]\ndb = \"other\"\n");
    wharf.wait_for("/db/select?id=1", "anchor");
    assert!(wharf.path("other.db").exists());
    // Not shared unless the configuration says so.
    assert_eq!(wharf.get("/db/settings").status, 500);
    assert!(wharf.log().contains("share_settings"), "{}", wharf.log());
}

#[test]
fn secrets_are_not_shown() {
    let site = Site::new().with("secret", "hunter2\n").with("deploy/db.so", library("databases"));
    let file = format!("${{file:{}}}", site.path("secret").display());
    let text = format!(
        "[resource.db]\nkind = \"sql\"\nurl = \"postgres://me:hunter3@127.0.0.1:1/x\"\npassword = \"{file}\"\nstart = \"degraded\"\nwait = \"200ms\"\n"
    );
    let wharf = site.with("wharf.toml", text).start(&["--set", "log.level=trace"]);
    wait("the log to say that it is down", || wharf.log().contains("down:").then_some(()));
    let mut shown = vec![wharf.log(), wharf.output()];
    for command in
        [&["config"][..], &["config", "--json"], &["list", "--json"], &["resources"], &["resources", "--json"]]
    {
        shown.push(format!("{:?}", wharf.cli(command)));
    }
    shown.push(wharf.admin("GET", "/v1/resources").text());
    for text in shown {
        assert!(!text.contains("hunter2") && !text.contains("hunter3"), "{text}");
    }
}

#[test]
fn redeploys_cost_no_connection_and_no_request() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(bed) = Bed::start(engine, "max = 4") else { continue };
        let load = Load::start(bed.wharf.addr(), &["/db/select?id=1"], 4, Duration::from_millis(1));
        let count = match engine {
            Engine::Postgres => "select count(*) from pg_stat_activity where application_name = 'wharf'",
            _ => "select count(*) from information_schema.processlist where db = 'wharf' and info is null",
        };
        let redeploys = std::env::var("WHARF_REDEPLOYS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
        let mut most = 0;
        for n in 0..redeploys {
            let answer = bed.wharf.admin("POST", "/v1/apps/db/reload");
            assert_eq!(answer.status, 200, "redeploy {n}: {}", answer.text());
            most = most.max(bed.database.sql(count).parse::<u32>().unwrap());
        }
        bed.wharf.wait_alone("db");
        load.stop().assert_clean();
        assert!((1..=4).contains(&most), "{engine:?}: {most} connections");
    }
}

#[test]
fn a_database_that_goes_away_is_lived_with() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let Some(mut bed) = Bed::start(engine, "max = 4\nwait = \"1s\"\nstatement_timeout = \"2s\"") else { continue };
        let select = |bed: &Bed| {
            let began = Instant::now();
            let status = bed.wharf.get("/db/select?id=1").status;
            (status, began.elapsed())
        };
        assert_eq!(select(&bed).0, 200);
        // Killed: errors come within the wait limit, and readiness says why.
        bed.database.kill();
        for _ in 0..5 {
            let (status, took) = select(&bed);
            assert!(status == 503 || status == 500, "{engine:?}: {status}");
            assert!(took < Duration::from_millis(1900), "{engine:?}: {took:?}");
        }
        wait("readiness to say so", || {
            let answer = bed.wharf.admin("GET", "/readyz");
            (answer.status == 503 && answer.text().contains("resource 'db' is down")).then_some(())
        });
        assert_eq!(bed.wharf.admin("GET", "/livez").status, 200);
        bed.database.up();
        within(Duration::from_secs(5), "the pool to heal", || (select(&bed).0 == 200).then_some(()));
        within(Duration::from_secs(5), "readiness", || (bed.wharf.admin("GET", "/readyz").status == 200).then_some(()));
        // Hung, under load: nobody waits for longer than the limits, and it goes on as if nothing had been.
        let hung = Duration::from_secs(std::env::var("WHARF_HUNG").ok().and_then(|n| n.parse().ok()).unwrap_or(3));
        bed.database.freeze(true);
        let until = Instant::now() + hung;
        let longest = thread::scope(|scope| {
            let ask = || {
                let mut longest = Duration::ZERO;
                while Instant::now() < until {
                    let (status, took) = select(&bed);
                    assert_ne!(status, 200);
                    longest = longest.max(took);
                }
                longest
            };
            let threads = [(); 8].map(|()| scope.spawn(ask));
            threads.into_iter().map(|t| t.join().unwrap()).max().unwrap()
        });
        // Waiting for a connection, and for the statement on it.
        assert!(longest < Duration::from_millis(3500), "{engine:?}: {longest:?}");
        bed.database.freeze(false);
        within(Duration::from_secs(5), "the pool to heal", || (select(&bed).0 == 200).then_some(()));
    }
}

#[test]
fn an_application_waits_for_its_database() {
    let Some(mut database) = Database::start(Engine::Postgres) else { return };
    database.kill();
    let site = Site::new().with("wharf.toml", configuration(&database, "wait = \"300ms\""));
    let wharf = site.with("deploy/db.so", library("databases")).start(&[]);
    let app = wharf.app("db");
    assert_eq!(app["error"]["code"], "W0605", "{app}");
    assert_eq!(wharf.admin("GET", "/readyz").status, 503);
    database.up();
    wharf.wait_for("/db/select?id=1", "anchor");
    wait("readiness", || (wharf.admin("GET", "/readyz").status == 200).then_some(()));
    // Where it must be there at the start, the container says so and ends.
    database.kill();
    let site = Site::new().with("wharf.toml", configuration(&database, "start = \"fail\"\nwait = \"300ms\""));
    let output = site.cli(&["run", "--set", "server.listen=127.0.0.1:0"]);
    assert!(output.code != 0 && output.err.contains("resource.db:"), "{output:?}");
}

#[test]
fn migrations_beside_the_module_are_applied_once_and_never_changed() {
    let site = Site::new()
        .with("wharf.toml", "[resource.db]\nkind = \"sql\"\nurl = \"sqlite:test.db\"\n")
        .with("deploy/db/app.toml", "kind = \"module\"\n[init]\nmigrations = \"sql\"\n")
        .with("deploy/db/db.so", library("databases"))
        .with("deploy/db/sql/0010_more.sql", "create table more (text varchar(10)); insert into more values ('any');")
        .with("deploy/db/sql/0010_more.sqlite.sql", "create table more (text text); insert into more values ('lite');");
    let wharf = site.start(&[]);
    assert_eq!(wharf.get("/db/more").text(), "lite", "{}", wharf.log());
    // A second generation applies what is new, and only that.
    wharf.put("deploy/db/sql/0011_again.sql", "insert into more values ('more');");
    assert_eq!(wharf.cli(&["reload", "db"]).code, 0, "{}", wharf.log());
    assert_eq!(wharf.get("/db/more").text(), "lite more");
    assert_eq!(wharf.log().matches("1 migrations applied").count(), 2, "{}", wharf.log());
    // One that was applied is not to be changed; one that fails is undone. What served goes on.
    for (file, text, words) in [
        ("0011_again.sql", "insert into more values ('changed');", "migration 11 was changed after it was applied"),
        ("0012_bad.sql", "insert into more values ('half'); insert into nowhere values (1);", "nowhere"),
    ] {
        wharf.put(&format!("deploy/db/sql/{file}"), text);
        let refused = wharf.cli(&["reload", "db"]);
        assert!(refused.code != 0 && refused.err.contains(words), "{refused:?}");
        assert_eq!(wharf.get("/db/more").text(), "lite more");
        wharf.put("deploy/db/sql/0011_again.sql", "insert into more values ('more');");
    }
}
