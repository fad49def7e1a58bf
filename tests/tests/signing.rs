//! Sign-ins that an application asks for itself, and the constraints that it declares (Servlet 6.1, sections 13.3 and 13.4.1).

use wharf_tests::{Browser, Site, Wharf, library};

const REALM: &str =
    "[realm.staff]\nkind = \"file\"\nfile = \"users.txt\"\nlockout = { failures = 3, time = \"60s\" }\n";
const FORM: &str = "[login]\nmethod = \"FORM\"\nrealm = \"staff\"\nlogin_page = \"/login\"\n";
const BASIC: &str = "[login]\nmethod = \"BASIC\"\nrealm = \"staff\"\n";

fn site(toml: &str) -> Site {
    let site = Site::new().with("wharf.toml", REALM).with("deploy/app.so", library("signing"));
    for (user, role) in [("ann", "admin"), ("bob", "clerk")] {
        assert!(site.passwd("users.txt", &[user, "--role", role], &format!("secret of {user}")));
    }
    site.with("deploy/app.toml", toml)
}

fn start(toml: &str) -> Wharf {
    site(toml).start(&[])
}

fn sign_in(browser: &mut Browser<'_>, user: &str, more: &[(&str, &str)]) -> (u16, String) {
    let password = format!("secret of {user}");
    let fields = [&[("user", user), ("password", &password)], more].concat();
    let answer = browser.post("/app/in", &fields);
    (answer.status, answer.text())
}

#[test]
fn a_session_keeps_whom_the_application_signed_in() {
    let wharf = start(FORM);
    let mut browser = Browser::new(&wharf);
    assert_eq!(browser.get("/app/who").text(), "/who None None false");
    assert_eq!(browser.get("/app/private/x").text(), "/login None None false", "the login page");
    let before = browser.cookies.clone();
    assert_eq!(sign_in(&mut browser, "ann", &[]), (200, "/in Some(\"ann\") Some(\"FORM\") true".into()));
    assert_ne!(browser.cookies, before, "another id");
    let ann = "Some(\"ann\") Some(\"FORM\") true";
    assert_eq!(browser.get("/app/private/x").text(), format!("/private {ann}"));
    assert_eq!(browser.get("/app/mine").text(), format!("ann /mine {ann}"));
    // Once is enough; and whoever knew the id before has nothing of it.
    assert_eq!(sign_in(&mut browser, "bob", &[]).0, 409);
    let mut thief = Browser::new(&wharf);
    thief.cookies = before;
    assert_eq!(thief.get("/app/private/x").text(), "/login None None false");
    // The end of it: the session goes on, the user does not.
    assert_eq!(browser.post("/app/out", &[]).text(), "/out None None false");
    assert_eq!(browser.get("/app/who").text(), "/who None None false");
    assert_eq!(browser.get("/app/private/x").text(), "/login None None false");
    // Without a session before one is begun; a user without the role stays outside.
    let mut browser = Browser::new(&wharf);
    assert_eq!(sign_in(&mut browser, "bob", &[]).1, "/in Some(\"bob\") Some(\"FORM\") false");
    assert_eq!(browser.get("/app/private/x").status, 403);
    assert_eq!(sign_in(&mut Browser::new(&wharf), "ann", &[("twice", "")]).0, 409);
}

#[test]
fn the_application_asks_who_it_is() {
    let wharf = start(FORM);
    // The way to the login page and back.
    let mut browser = Browser::new(&wharf);
    assert_eq!(browser.get("/app/mine").text(), "/login None None false");
    let form = [("j_username", "bob"), ("j_password", "secret of bob")];
    assert_eq!(browser.post("/app/j_security_check", &form).text(), "bob /mine Some(\"bob\") Some(\"FORM\") false");
    // With passwords in each request it is the challenge.
    let wharf = start(BASIC);
    let answer = wharf.get("/app/mine");
    assert_eq!((answer.status, answer.header("www-authenticate").unwrap().split(' ').next()), (401, Some("Basic")));
    let field = [("Authorization", "Basic YW5uOnNlY3JldCBvZiBhbm4=")];
    let answer = wharf.send("GET", "/app/mine", &field, b"");
    assert_eq!((answer.status, answer.text()), (200, "ann /mine Some(\"ann\") Some(\"BASIC\") true".into()));
    // A sign-in by the application is that request's alone.
    let mut browser = Browser::new(&wharf);
    assert_eq!(sign_in(&mut browser, "ann", &[]), (200, "/in Some(\"ann\") Some(\"BASIC\") true".into()));
    assert_eq!(browser.get("/app/who").text(), "/who None None false");
}

#[test]
fn wrong_passwords_lock_an_account_here_too() {
    let wharf = start(FORM);
    let mut browser = Browser::new(&wharf);
    let mut wrong = || browser.post("/app/in", &[("user", "ann"), ("password", "x")]).status;
    assert_eq!([wrong(), wrong(), wrong(), wrong()], [401, 401, 401, 429]);
    assert_eq!(sign_in(&mut browser, "ann", &[]).0, 429);
    assert_eq!(sign_in(&mut browser, "bob", &[]).0, 200);
}

#[test]
fn constraints_of_the_builder_hold_and_the_file_wins() {
    let mine = "[[constraints]]\npatterns = [\"/both/*\"]\nroles = [\"clerk\"]\n";
    let wharf = start(&format!("{BASIC}{mine}"));
    let ask = |method: &str, path: &str, user: &str| {
        let field = match user {
            "ann" => "Basic YW5uOnNlY3JldCBvZiBhbm4=",
            "bob" => "Basic Ym9iOnNlY3JldCBvZiBib2I=",
            _ => "",
        };
        let fields = [("Authorization", field)];
        wharf.send(method, path, &fields[..usize::from(!field.is_empty())], b"").status
    };
    let rows = [
        ("GET", "/app/who", "", 200),
        ("GET", "/app/private/x", "", 401),
        ("GET", "/app/private/x", "ann", 200),
        ("GET", "/app/private/x", "bob", 403),
        ("GET", "/app/private/../private/x", "", 401),
        ("GET", "/app/%70rivate/x", "", 401),
        ("GET", "/app/closed/x", "ann", 403),
        ("PUT", "/app/written/x", "", 401),
        ("PUT", "/app/written/x", "bob", 200),
        ("GET", "/app/written/x", "ann", 403),
        ("GET", "/app/secret/x", "", 403),
        ("GET", "/app/both/x", "bob", 200),
        ("GET", "/app/both/x", "ann", 403),
    ];
    for (method, path, user, status) in rows {
        assert_eq!(ask(method, path, user), status, "{method} {path} as '{user}'");
    }
    let check = wharf.cli(&["check", "deploy/app.so", "--load"]).out;
    for line in
        ["login     BASIC by realm staff", "/both/*; roles clerk", "/private/*; roles admin", "/closed/*; nobody"]
    {
        assert!(check.contains(line), "{line}: {check}");
    }
    // What can't be held does not run.
    let wharf = site("").start(&[]);
    let error = wharf.app("app")["error"].clone();
    assert_eq!(error["code"], "W0604", "{error}");
    assert!(error.to_string().contains("there is no [login]"), "{error}");
    assert_eq!(wharf.get("/app/who").status, 404);
}

#[test]
fn a_token_is_the_sessions_and_ends_with_a_sign_in() {
    let wharf = start(FORM);
    let mut browser = Browser::new(&wharf);
    let token = browser.get("/app/guarded/x").text();
    let other = Browser::new(&wharf).get("/app/guarded/x").text();
    let with_field = |browser: &mut Browser<'_>, token: &str| {
        browser.send("POST", "/app/guarded/x", &[("X-CSRF-Token", token)], b"content").text()
    };
    assert_eq!(browser.post("/app/guarded/x", &[("a", "1"), ("_csrf", &token)]).text(), format!("a=1&_csrf={token}"));
    assert_eq!(with_field(&mut browser, &token), "content");
    for wrong in [&other, "", &token[1..]] {
        assert_eq!(browser.post("/app/guarded/x", &[("_csrf", wrong)]).status, 403, "{wrong}");
    }
    assert_eq!(browser.post("/app/guarded/x", &[]).status, 403);
    assert_eq!(Browser::new(&wharf).post("/app/guarded/x", &[("_csrf", &token)]).status, 403, "no session");
    // Whoever knew the session before the sign-in knows no token after it.
    assert_eq!(sign_in(&mut browser, "ann", &[]).0, 200);
    assert_eq!(browser.post("/app/guarded/x", &[("_csrf", &token)]).status, 403);
    let token = browser.get("/app/guarded/x").text();
    assert_eq!(with_field(&mut browser, &token), "content");
}
