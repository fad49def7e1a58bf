//! The login page (FORM, Servlet 6.1, section 13.6.3), on every kind of application: the interrupted request goes on after the sign-in,
//! the session gets another id, and nobody is signed in by knowing the one before.

use rustix::process::Signal;
use wharf_tests::{Browser, CGI_TOML, Site, Wharf, cgi_program, chameleon, wait};

const LOGIN: &str = r#"
[login]
method = "FORM"
realm = "staff"
login_page = "/login"
logout = "/logout"

[[constraints]]
patterns = ["/private/*"]
roles = ["admin"]
"#;

const REALM: &str = r#"
[realm.staff]
kind = "combined"
realms = ["first", "second"]
[realm.first]
kind = "file"
file = "users.txt"
lockout = { failures = 3, time = "2s" }
[realm.second]
kind = "file"
file = "more.txt"
"#;

fn passwd(site: &Site, file: &str, user: &str, more: &[&str]) {
    assert!(site.passwd(file, &[&[user], more].concat(), &format!("secret of {user}")));
}

/// A module, a folder of programs and one of files, all with the same users.
fn start(settings: &str) -> Wharf {
    start_with(settings, "")
}

fn start_with(settings: &str, of_realm: &str) -> Wharf {
    let realm = REALM.replace("[realm.first]", &format!("{of_realm}[realm.first]"));
    let site = Site::new()
        .with("wharf.toml", format!("{settings}{realm}"))
        .with("deploy/mod.so", chameleon("one"))
        .with("deploy/mod.toml", LOGIN.replace("\"/login\"", "\"/who\""))
        .with("deploy/files/app.toml", format!("kind = \"static\"\nroot = \"public\"\n{LOGIN}"))
        .with("deploy/files/public/index.html", "root")
        .with("deploy/files/public/login", "the form")
        .with("deploy/files/public/private/x.txt", "private")
        .with("deploy/cgi/app.toml", format!("{CGI_TOML}{LOGIN}"));
    passwd(&site, "users.txt", "ann", &["--role", "admin"]);
    passwd(&site, "users.txt", "bob", &[]);
    passwd(&site, "more.txt", "eve", &["--role", "admin"]);
    let say = "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho \"$REQUEST_METHOD $REMOTE_USER $AUTH_TYPE $CONTENT_TYPE\"\ncat\n";
    for program in ["deploy/cgi/private/say", "deploy/cgi/login"] {
        cgi_program(&site, program, say);
    }
    site.start(&[])
}

fn sign_in(browser: &mut Browser<'_>, context: &str, user: &str) -> (u16, String) {
    let password = format!("secret of {user}");
    let answer =
        browser.post(&format!("{context}/j_security_check"), &[("j_username", user), ("j_password", &password)]);
    (answer.status, answer.text())
}

#[test]
fn the_interrupted_request_goes_on_after_the_sign_in() {
    let wharf = start("");
    for user in ["ann", "eve"] {
        let mut browser = Browser::new(&wharf);
        assert_eq!(browser.get("/files/private/x.txt").text(), "the form");
        // What a page loads by itself meanwhile is not where the sign-in leads.
        let icon = browser.send("GET", "/files/private/icon", &[("Sec-Fetch-Mode", "no-cors")], b"");
        assert_eq!((icon.status, icon.header("location")), (303, Some("/files/login")));
        assert_eq!(sign_in(&mut browser, "/files", user), (200, "private".into()));
        assert_eq!(browser.get("/files/private/x.txt").text(), "private");
        // The end of it.
        assert_eq!(browser.get("/files/logout").text(), "root");
        assert_eq!(browser.get("/files/private/x.txt").text(), "the form");
    }
    // Not to another host, whatever was asked for.
    let mut browser = Browser::new(&wharf);
    assert_eq!(browser.send("GET", "//files//private/x.txt?a=//b", &[], b"").status, 303);
    let form = b"j_username=ann&j_password=secret+of+ann";
    let form_type = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = browser.send("POST", "/files/j_security_check", &form_type, form);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/files//private/x.txt?a=//b")));
    // Content goes on too, once.
    let mut browser = Browser::new(&wharf);
    let form = [("a", "1 & 2"), ("b", "\u{e9}")];
    assert!(browser.post("/cgi/private/say?q=1", &form).text().starts_with("GET "), "the login page");
    let (status, said) = sign_in(&mut browser, "/cgi", "ann");
    let want = "POST ann FORM application/x-www-form-urlencoded\na=1%20%26%202&b=%C3%A9";
    assert_eq!((status, said.as_str()), (200, want));
    assert_eq!(browser.get("/cgi/private/say?q=1").text(), "GET ann FORM \n");
    // Too much of it does not: what is asked again is a GET.
    let mut browser = Browser::new(&wharf);
    browser.post("/cgi/private/say", &[("a", &"x".repeat(5000))]);
    assert_eq!(sign_in(&mut browser, "/cgi", "ann").1, "GET ann FORM \n");
    // Without any interrupted request it leads to the root.
    let mut browser = Browser::new(&wharf);
    assert_eq!(sign_in(&mut browser, "/files", "ann").1, "root");
}

#[test]
fn a_module_keeps_its_session_under_another_id() {
    let wharf = start("");
    let mut browser = Browser::new(&wharf);
    assert_eq!(browser.get("/mod/s/count").text(), "1");
    let before = browser.cookies.clone();
    let nobody = "None None admin=false dev=false **=false *=false 0";
    assert_eq!(browser.get("/mod/private/who").text(), nobody, "the login page");
    let ann = "Some(\"ann\") Some(\"FORM\") admin=true dev=false **=true *=false 1";
    assert_eq!(sign_in(&mut browser, "/mod", "ann"), (200, ann.into()));
    assert_ne!(browser.cookies, before);
    // Its values are there, what the container keeps is not, and the user is known on every path.
    assert_eq!(browser.get("/mod/s/peek").text(), "Some(1) n");
    assert_eq!(browser.get("/mod/who").text(), ann);
    // Whoever knew the id before has nothing of it; another application knows nobody, not even by the very cookie.
    let mut thief = Browser::new(&wharf);
    thief.cookies = before;
    assert_eq!(thief.get("/mod/private/who").text(), nobody);
    thief.cookies = browser.cookies.clone();
    assert_eq!(thief.get("/files/private/x.txt").text(), "the form");
    // A redeploy signs nobody out; the end of the session does.
    wharf.put("deploy/mod.so", chameleon("two"));
    wharf.wait_for("/mod/", "two");
    assert_eq!(browser.get("/mod/private/who").text(), ann);
    browser.get("/mod/s/end");
    assert_eq!(browser.get("/mod/private/who").text(), nobody);
}

#[test]
fn nobody_passes_who_should_not() {
    let wharf = start("");
    let mut browser = Browser::new(&wharf);
    browser.get("/files/private/x.txt");
    let post = |browser: &mut Browser<'_>, user: &str, password: &str| {
        let body = format!("j_username={user}&j_password={password}");
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = browser.send("POST", "/files/j_security_check", &form, body.as_bytes());
        (answer.status, answer.header("location").unwrap_or_default().to_owned())
    };
    for password in ["wrong", "", "secret%20of%20bob"] {
        assert_eq!(post(&mut browser, "ann", password), (303, "/files/login?error".into()), "{password}");
    }
    assert_eq!(browser.get("/files/private/x.txt").text(), "the form");
    // Three were too many, and the right one is not tried either.
    assert_eq!(post(&mut browser, "ann", "secret%20of%20ann").0, 429);
    // Known, but without the role.
    assert_eq!(post(&mut browser, "bob", "secret%20of%20bob"), (303, "/files/private/x.txt".into()));
    assert_eq!(browser.get("/files/private/x.txt").status, 403);
    // What is no form is refused; BASIC is not taken.
    for (kind, body, status) in [
        ("application/json", "{}".to_owned(), 415),
        ("application/x-www-form-urlencoded", "j_username=ann".into(), 400),
        ("application/x-www-form-urlencoded", "j_username=ann&j_username=bob&j_password=x".into(), 400),
        ("application/x-www-form-urlencoded", format!("j_username=ann&j_password={}", "x".repeat(5000)), 413),
    ] {
        let answer =
            Browser::new(&wharf).send("POST", "/files/j_security_check", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, status, "{body:.60}");
    }
    let basic = [("Authorization", "Basic YW5uOnNlY3JldCBvZiBhbm4=")];
    assert_eq!(wharf.send("GET", "/files/private/x.txt", &basic, b"").status, 303);
    // A session id that nobody gave out is none.
    let forged = format!("WHARFSESSION={}", "0".repeat(40));
    assert_eq!(wharf.send("GET", "/files/private/x.txt", &[("Cookie", forged.as_str())], b"").status, 303);
}

#[test]
fn one_sign_in_is_for_all_applications_of_the_host_where_the_realm_says_so() {
    let wharf = start_with("", "single_sign_on = \"1h\"\n");
    // A jar for each application: their session cookies have one name and different paths.
    let (mut files, mut cgi) = (Browser::new(&wharf), Browser::new(&wharf));
    files.get("/files/private/x.txt");
    assert_eq!(sign_in(&mut files, "/files", "ann").1, "private");
    let sign_on = files.cookies["WHARFSSO"].clone();
    cgi.cookies.insert("WHARFSSO".into(), sign_on.clone());
    assert_eq!(cgi.get("/cgi/private/say").text(), "GET ann FORM \n");
    // The end of it in one is the end in all, whoever still has a cookie.
    assert_eq!(cgi.get("/cgi/logout").status, 404, "the root of this one has no page");
    assert_eq!(files.get("/files/private/x.txt").text(), "the form");
    assert!(cgi.get("/cgi/private/say").text().starts_with("GET  "), "the login page");
    let mut forged = Browser::new(&wharf);
    forged.cookies.insert("WHARFSSO".into(), "x".repeat(43));
    assert_eq!(forged.get("/files/private/x.txt").text(), "the form");
}

#[test]
fn who_has_signed_in_stays_so_over_a_restart_with_sessions_in_files() {
    let state = tempfile::tempdir().unwrap();
    let settings = format!("state_dir = \"{}\"\n[session]\nstore = \"file\"\n", state.path().display());
    let mut wharf = start(&settings);
    let mut browser = Browser::new(&wharf);
    browser.get("/files/private/x.txt");
    assert_eq!(sign_in(&mut browser, "/files", "ann"), (200, "private".into()));
    let cookies = browser.cookies.clone();
    wharf.signal(Signal::KILL);
    wharf.wait_end();
    let wharf = start(&settings);
    let mut browser = Browser::new(&wharf);
    browser.cookies = cookies;
    wait("the application", || (browser.get("/files/private/x.txt").text() == "private").then_some(()));
}

#[test]
fn what_a_login_page_can_not_be_is_refused() {
    let wharf = start("");
    for (line, word) in [
        ("login_page = \"/login\"", "needs the page with the form"),
        ("login_page = \"login\"", "is no path in the application"),
        ("login_page = \"/a/../b\"", "is no path in the application"),
        ("realm = \"nobody\"\nlogin_page = \"/login\"", "has no [realm.nobody]"),
    ] {
        let text = match word.starts_with("needs") {
            true => LOGIN.replace(line, ""),
            false if line.starts_with("realm") => LOGIN.replace("realm = \"staff\"\nlogin_page = \"/login\"", line),
            false => LOGIN.replace("login_page = \"/login\"", line),
        };
        wharf.put("deploy/bad/app.toml", format!("kind = \"static\"\n{text}"));
        wait(word, || wharf.app("bad")["error"].to_string().contains(word).then_some(()));
    }
}
