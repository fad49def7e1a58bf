//! Programs from Debian's packages behind FastCGI: PHP in both of its forms, DokuWiki, and ASP.NET pages on Mono.

use std::fs;
use wharf_tests::{Answer, Browser, Fpm, Site, Wharf, copy, fpm_program, installed, is_alive, wait, within, workspace};

const PAGE: &str = r#"<?php
header("X-Method: " . $_SERVER["REQUEST_METHOD"]);
echo "script ", $_SERVER["SCRIPT_NAME"], " info ", $_SERVER["PATH_INFO"] ?? "-", " self ", $_SERVER["PHP_SELF"];
echo " q ", $_GET["q"] ?? "-", " pid ", getmypid();
"#;

const UPLOAD: &str = r#"<?php
$file = $_FILES["file"];
if ($file["error"] !== 0) { http_response_code(400); exit("error " . $file["error"]); }
move_uploaded_file($file["tmp_name"], __DIR__ . "/uploads/" . basename($file["name"]));
echo $_POST["note"], " ", $file["size"], " ", md5_file(__DIR__ . "/uploads/" . basename($file["name"]));
"#;

const SESSION: &str = "<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];";

/// A file of a sample application.
fn sample(path: &str) -> Vec<u8> {
    fs::read(workspace().join("sample-apps").join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A form with a file in it.
fn multipart(fields: &[(&str, &str)], file: (&str, &str, &[u8])) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!("--xYx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    let (field, name, content) = file;
    let head = format!(
        "--xYx\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--xYx--\r\n");
    body
}

const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=xYx");

#[test]
fn pages_of_php_fpm() {
    if !installed(&[&fpm_program()]) {
        return;
    }
    let site = Site::new();
    let fpm = Fpm::start(&site, "");
    for (name, text) in [("index.php", PAGE), ("a/page.php", PAGE), ("upload.php", UPLOAD), ("session.php", SESSION)] {
        site.put(&format!("deploy/app/{name}"), text);
    }
    site.put("deploy/app/bad.php", "<?php error_log(\"a line for the log\"); http_response_code(418); echo \"tea\";");
    site.put("deploy/app/die.php", "<?php throw new Exception('thrown');");
    site.put("deploy/app/style.css", "css");
    fs::create_dir(site.path("deploy/app/uploads")).unwrap();
    let options = "fallback = \"/index.php\"\nno_execute = [\"uploads\"]\nkeep_connections = 2\nmax_connections = 8\n\
                   status_paths = [\"/status\", \"/ping\"]\nstatus_from = [\"127.0.0.1\"]\n";
    let toml = fpm.toml(options);
    let wharf = site.with("deploy/app/app.toml", toml).start(&[]);
    for (path, what) in [
        ("/app/", "script /app/index.php info - self /app/index.php q - pid"),
        ("/app/a/page.php?q=1%202", "script /app/a/page.php info - self /app/a/page.php q 1 2 pid"),
        ("/app/a/page.php/x/y?q=z", "script /app/a/page.php info /x/y self /app/a/page.php/x/y q z pid"),
        ("/app/not/there?q=9", "script /app/index.php info - self /app/index.php q 9 pid"),
        ("/app/style.css", "css"),
        ("/app/ping", "pong"),
        ("/app/status", "accepted conn:"),
    ] {
        let answer = wharf.get(path);
        assert!(answer.status == 200 && answer.text().contains(what), "{path}: {answer:?} {}", answer.text());
    }
    // More at once than there are processes, over more connections than are kept: none starves.
    let many: Vec<_> = (0..8)
        .map(|_| {
            let addr = wharf.addr();
            std::thread::spawn(move || {
                let mut client = wharf_tests::Client::connect(addr).unwrap();
                (0..25).all(|_| client.get("/app/").is_ok_and(|a| a.status == 200))
            })
        })
        .collect();
    assert!(many.into_iter().all(|t| t.join().unwrap()));
    let head = wharf.send("HEAD", "/app/", &[], b"");
    assert_eq!((head.status, head.header("x-method")), (200, Some("HEAD")));
    let answer = wharf.get("/app/bad.php");
    assert_eq!((answer.status, answer.text()), (418, "tea".into()));
    wait("the line in the log", || wharf.log().contains("a line for the log").then_some(()));
    assert_eq!(wharf.get("/app/die.php").status, 500);

    let mut browser = Browser::new(&wharf);
    assert_eq!(browser.get("/app/session.php").text(), "1");
    assert_eq!(browser.get("/app/session.php").text(), "2");

    // An upload arrives whole, is there to be fetched, and is never run.
    let picture: Vec<u8> = (0..1_500_000_u32).map(|n| (n * 7).to_le_bytes()[0]).collect();
    let body = multipart(&[("note", "hello")], ("file", "picture.jpg", &picture));
    let answer = wharf.send("POST", "/app/upload.php", &[MULTIPART], &body);
    assert!(answer.text().starts_with("hello 1500000 "), "{answer:?}");
    assert!(wharf.get("/app/uploads/picture.jpg").body == picture);
    let evil = multipart(&[("note", "evil")], ("file", "evil.php", b"<?php echo 'run';"));
    assert_eq!(wharf.send("POST", "/app/upload.php", &[MULTIPART], &evil).status, 200);
    assert!(wharf.path("deploy/app/uploads/evil.php").exists());
    for path in ["/app/uploads/evil.php", "/app/uploads/evil.php/x"] {
        assert_ne!(wharf.get(path).text(), "run", "{path}");
    }
    assert!(!wharf.get("/app/uploads/picture.jpg/evil.php").text().contains("evil"));
}

#[test]
fn a_command_is_started_kept_running_and_ended() {
    let program = "/usr/bin/php-cgi";
    if !installed(&[program]) {
        return;
    }
    let toml = |processes: usize| {
        format!(
            "kind = \"fastcgi\"\n[fastcgi]\ncommand = [\"php-cgi\"]\nprocesses = {processes}\nenv = {{ PHP_FCGI_MAX_REQUESTS = \"20\", GREETING = \"ahoy\" }}\n"
        )
    };
    let site = Site::new().with("deploy/app/index.php", PAGE).with("deploy/app/app.toml", toml(2));
    site.put("deploy/app/env.php", "<?php echo getenv('GREETING'), '|', getenv('HOME'), '|', getenv('PATH');");
    site.put("deploy/app/kill.php", "<?php posix_kill(getmypid(), 9); sleep(5);");
    let burn = "<?php do { $t = getrusage(); } while ($t['ru_utime.tv_sec'] + $t['ru_utime.tv_usec'] / 1e6 < 0.3); echo 'burnt';";
    site.put("deploy/app/burn.php", burn);
    let wharf = site.start(&[]);
    assert_eq!(wharf.children().len(), 2);
    assert!(wharf.get("/app/env.php").text().starts_with("ahoy||/usr/local/bin:"));
    assert_eq!(wharf.get("/app/burn.php").text(), "burnt");
    let cpu = || wharf.app("app")["load"]["cpu_seconds"].as_f64();
    wait("the time of the processes", || (cpu() >= Some(0.2)).then_some(()));
    // Each ends after 20 requests, and another takes its place; no request is lost by that.
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answer = wharf.get("/app/");
        assert_eq!(answer.status, 200, "{answer:?}\n{}", wharf.log());
        pids.insert(answer.text().rsplit(' ').next().unwrap().to_owned());
    }
    assert!(pids.len() >= 4, "{pids:?}");
    // One that is killed is replaced.
    for pid in wharf.children() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    wait("the command to serve again", || (wharf.get("/app/").status == 200).then_some(()));
    // A redeploy has processes of its own, and ends the old ones.
    wait("two processes", || (wharf.children().len() == 2).then_some(()));
    let old = wharf.children();
    wharf.put("deploy/app/app.toml", toml(3));
    wait("the new generation", || {
        wharf.wait_alone("app");
        let new = wharf.children();
        (new.len() == 3 && old.iter().all(|pid| !is_alive(pid))).then_some(())
    });
    assert_eq!(wharf.get("/app/").status, 200);
    // A file that is no program is refused with its name, and the generation before goes on.
    wharf.put("deploy/app/app.toml", "kind = \"fastcgi\"\n[fastcgi]\ncommand = [\"/no/such/program\"]\n");
    wait("the refusal", || wharf.log().contains("/no/such/program").then_some(()));
    assert_eq!(wharf.get("/app/").status, 200);
    wharf.remove("deploy/app/app.toml");
    fs::remove_dir_all(wharf.path("deploy/app")).unwrap();
    wharf.wait_childless();
}

#[test]
fn processes_come_with_the_requests_and_go_without() {
    if !installed(&["/usr/bin/php-cgi"]) {
        return;
    }
    let toml = "kind = \"fastcgi\"\n[fastcgi]\ncommand = [\"php-cgi\"]\nmin_processes = 1\nprocesses = 3\nmax_requests = 7\n\
                process_idle_timeout = \"200ms\"\n";
    let slow = "<?php echo getenv('PHP_FCGI_MAX_REQUESTS'); usleep(700000);";
    let site = Site::new().with("deploy/app/slow.php", slow).with("deploy/app/quick.php", "<?php echo getmypid();");
    let wharf = site.with("deploy/app/app.toml", toml).start(&[]);
    assert_eq!(wharf.children().len(), 1);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..5).map(|_| scope.spawn(|| wharf.get("/app/slow.php").text())).collect();
            wait("three processes", || (wharf.children().len() == 3).then_some(()));
            asked.into_iter().for_each(|answer| assert_eq!(answer.join().unwrap(), "7"));
        });
        wait("one process", || (wharf.children().len() == 1).then_some(()));
    }
    // Requests meet no process that is about to go.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while std::time::Instant::now() < end {
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| wharf.get("/app/quick.php").status)).collect();
            asked.into_iter().for_each(|status| assert_eq!(status.join().unwrap(), 200, "{}", wharf.log()));
        });
        std::thread::sleep(std::time::Duration::from_millis(230));
    }
    fs::remove_dir_all(wharf.path("deploy/app")).unwrap();
    wharf.wait_childless();
}

#[test]
fn a_command_that_crashes_at_once_is_not_started_without_pause() {
    let toml = "kind = \"fastcgi\"\n[fastcgi]\ncommand = [\"false\"]\nprocesses = 1\n";
    let wharf = Site::new().with("deploy/app/x.php", "").with("deploy/app/app.toml", toml).start(&[]);
    wait("unavailable", || (wharf.get("/app/x.php").status == 503).then_some(()));
    assert_eq!(wharf.get("/app/x.php").header("retry-after"), Some("5"));
    let lines = wharf.log().matches("a process of the command ended").count();
    assert!((1..20).contains(&lines), "{lines}");
}

#[test]
fn a_request_that_waits_for_a_command_which_crashes_is_answered() {
    let toml = "kind = \"fastcgi\"\n[fastcgi]\ncommand = [\"sh\", \"-c\", \"sleep 1; exit 1\"]\nprocesses = 1\n";
    let wharf = Site::new().with("deploy/app/x.php", "").with("deploy/app/app.toml", toml).start(&[]);
    // Connected while the process runs, which accepts nothing, and asked again in the pause.
    for _ in 0..2 {
        let answer = wharf.get("/app/x.php");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", wharf.log());
    }
}

#[test]
fn the_sample_greets_and_counts_visits() {
    if !installed(&["/usr/bin/php-cgi"]) {
        return;
    }
    let site = Site::new();
    for name in ["app.toml", "index.php", "style.css"] {
        site.put(&format!("deploy/php-hello/{name}"), sample(&format!("php-hello/{name}")));
    }
    // Where sessions are kept by default need not be there for everyone.
    let toml = String::from_utf8(sample("php-hello/app.toml")).unwrap();
    let command = format!("[\"php-cgi\", \"-d\", \"session.save_path={}\"]", site.path("").display());
    site.put("deploy/php-hello/app.toml", toml.replace("[\"php-cgi\"]", &command));
    let wharf = site.start(&[]);
    let mut browser = Browser::new(&wharf);
    assert!(browser.get("/php-hello/?name=%3Cb%3E").text().contains("Hello, &lt;b&gt;!"));
    let text = browser.post("/php-hello/any/page", &[("name", "Ann")]).text();
    assert!(
        text.contains("Hello, Ann!") && text.contains("<code>/php-hello/any/page</code>; this is visit 2"),
        "{text}"
    );
    assert!(browser.get("/php-hello/style.css").text().contains("font-family"));
}

/// The value of a hidden field of a form.
fn hidden(answer: &Answer, name: &str) -> String {
    let text = answer.text();
    let field = format!("name=\"{name}\"");
    let tag = text.split('<').find(|tag| tag.starts_with("input") && tag.contains(&field));
    let tag = tag.unwrap_or_else(|| panic!("{name} is not in {} {text}", answer.status));
    let value = tag.split_once("value=\"").map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
    value.replace("&#43;", "+").replace("&amp;", "&")
}

fn wiki(site: &Site) {
    copy("/usr/share/dokuwiki", &site.path("deploy/wiki"));
    site.put(
        "deploy/wiki/inc/preload.php",
        "<?php define('DOKU_CONF', DOKU_INC . 'conf/'); error_reporting(E_ERROR | E_PARSE); define('DOKU_E_LEVEL', E_ERROR | E_PARSE);",
    );
    fs::create_dir(site.path("deploy/wiki/conf")).unwrap();
    for entry in fs::read_dir("/etc/dokuwiki").unwrap().flatten() {
        let name = entry.file_name();
        let kept = name.to_str().is_some_and(|n| !n.starts_with("local") && !n.contains("auth.php"));
        if kept && entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), site.path("deploy/wiki/conf").join(name)).unwrap();
        }
    }
    for name in
        ["attic", "cache", "index", "locks", "log", "media", "media_attic", "media_meta", "meta", "pages", "tmp"]
    {
        fs::create_dir_all(site.path("deploy/wiki/data").join(name)).unwrap();
    }
    let conf = "<?php $conf['title'] = 'Harbour'; $conf['useacl'] = 1; $conf['superuser'] = '@admin';\n\
                $conf['savedir'] = DOKU_INC . 'data'; $conf['authtype'] = 'authplain'; $conf['license'] = '';";
    site.put("deploy/wiki/conf/local.php", conf);
    // The password is "secret".
    let users = "ann:5ebe2294ecd0e0f08eab7690d2a6ee69:Ann:ann@example.org:admin,user\n";
    site.put("deploy/wiki/conf/users.auth.php", users);
    site.put("deploy/wiki/conf/acl.auth.php", "*\t@ALL\t1\n*\t@user\t8\n");
}

#[test]
fn dokuwiki_is_logged_in_to_written_in_and_given_a_picture() {
    if !installed(&[&fpm_program(), "/usr/share/dokuwiki/doku.php"]) {
        return;
    }
    let site = Site::new();
    wiki(&site);
    let fpm = Fpm::start(&site, "");
    let options = "index = [\"doku.php\", \"index.php\"]\ndeny = [\"data\", \"conf\", \"bin\", \"inc\", \"vendor\"]\n";
    let toml = fpm.toml(options);
    let wharf = site.with("deploy/wiki/app.toml", toml).start(&[]);
    let mut browser = Browser::new(&wharf);
    let front = browser.get("/wiki/");
    assert!(front.status == 200 && front.text().contains("Harbour"), "{} {}", front.status, front.text());
    // A stranger may not write.
    let edit = browser.get("/wiki/doku.php?id=ships&do=edit");
    assert!(!edit.text().contains("name=\"wikitext\" class=\"edit\">"), "{}", edit.text());

    let login = browser.get("/wiki/doku.php?id=start&do=login");
    let token = hidden(&login, "sectok");
    let fields = |password| [("sectok", &*token), ("id", "start"), ("do", "login"), ("u", "ann"), ("p", password)];
    let refused = browser.post("/wiki/doku.php?id=start", &fields("wrong"));
    assert!(!refused.text().contains("do=logout"), "{}", refused.text());
    let inside = browser.post("/wiki/doku.php?id=start", &fields("secret"));
    assert!(inside.status == 200 && inside.text().contains("do=logout"), "{} {}", inside.status, inside.text());

    let edit = browser.get("/wiki/doku.php?id=ships&do=edit");
    let kept = ["sectok", "id", "rev", "date", "prefix", "suffix", "changecheck", "target"];
    let values: Vec<_> = kept.iter().map(|name| (*name, hidden(&edit, name))).collect();
    let mut fields: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fields.extend([
        ("wikitext", "====== Ships ======\nThe **Cutty Sark** & others."),
        ("do[save]", "1"),
        ("summary", "new"),
    ]);
    let saved = browser.post("/wiki/doku.php?id=ships", &fields);
    assert!(saved.text().contains("<strong>Cutty Sark</strong> &amp; others"), "{} {}", saved.status, saved.text());
    let stranger = Browser::new(&wharf).get("/wiki/doku.php?id=ships");
    assert!(stranger.text().contains("<strong>Cutty Sark</strong>"), "{}", stranger.text());

    let manager = browser.get("/wiki/lib/exe/mediamanager.php?ns=");
    let token = hidden(&manager, "sectok");
    let picture = fs::read("/usr/share/dokuwiki/lib/images/license/badge/cc-by.png").unwrap();
    let body = multipart(
        &[("sectok", &token), ("ns", ""), ("mediaid", "ship.png"), ("do", "upload")],
        ("upload", "ship.png", &picture),
    );
    let sent = browser.send("POST", "/wiki/lib/exe/mediamanager.php", &[MULTIPART], &body);
    assert!(sent.status < 400, "{} {}", sent.status, sent.text());
    let fetched = browser.get("/wiki/lib/exe/fetch.php?media=ship.png");
    assert_eq!((fetched.status, fetched.header("content-type")), (200, Some("image/png")));
    assert!(fetched.body == picture);

    // Style sheets and scripts, made by PHP and as files; and what nobody may see.
    for (path, status) in [
        ("/wiki/lib/exe/css.php?t=dokuwiki", 200),
        ("/wiki/lib/exe/js.php?t=dokuwiki", 200),
        ("/wiki/lib/images/blank.gif", 200),
        ("/wiki/conf/users.auth.php", 404),
        ("/wiki/conf/acronyms.conf", 404),
        ("/wiki/data/pages/ships.txt", 404),
        ("/wiki/inc/preload.php", 404),
        ("/wiki/.htaccess", 404),
    ] {
        let answer = browser.get(path);
        assert_eq!(answer.status, status, "{path} {}", answer.text());
    }
}

fn aspx(wharf: &Wharf) {
    let mut browser = Browser::new(wharf);
    // Mono compiles a page when it is first asked for.
    let first = within(std::time::Duration::from_secs(90), "the first page", || {
        let answer = wharf.connect().get("/shop/default.aspx").ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert!(first.text().contains("visit 1 first"), "{}", first.text());
    let first = browser.get("/shop/");
    assert!(first.text().contains("visit 1 first"), "{} {}", first.status, first.text());
    let state: Vec<_> =
        ["__VIEWSTATE", "__EVENTVALIDATION"].into_iter().map(|name| (name, hidden(&first, name))).collect();
    let mut fields: Vec<_> = state.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fields.extend([("Name", "Ann & Bob"), ("Go", "Go")]);
    let second = browser.post("/shop/default.aspx", &fields);
    let text = second.text();
    assert!(text.contains("visit 2 postback") && text.contains("Hello, Ann &amp; Bob"), "{} {text}", second.status);
    assert!(Browser::new(wharf).get("/shop/default.aspx").text().contains("visit 1 first"));
}

#[test]
fn aspx_pages_with_postback_and_session() {
    if !installed(&["/usr/bin/fastcgi-mono-server4"]) {
        return;
    }
    let site = Site::new()
        .with("deploy/shop/default.aspx", sample("aspnet-hello/default.aspx"))
        .with("deploy/shop/style.css", "css");
    site.put("deploy/shop/web.config", "<configuration><system.web></system.web></configuration>");
    site.put("deploy/shop/App_Data/secret.txt", "secret");
    site.put("deploy/shop/code.cs", "class Secret {}");
    let wharf = site.with("deploy/shop/app.toml", "kind = \"aspnet\"\n").start(&[]);
    aspx(&wharf);
    assert_eq!(wharf.get("/shop/style.css").text(), "css");
    for path in ["web.config", "App_Data/secret.txt", "app_data/secret.txt", "code.cs", "bin/x.dll", "none.aspx"] {
        assert_eq!(wharf.get(&format!("/shop/{path}")).status, 404, "{path}");
    }
    assert_eq!(wharf.children().len(), 1);
    fs::remove_dir_all(wharf.path("deploy/shop")).unwrap();
    wharf.wait_childless();
}
