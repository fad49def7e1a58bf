//! Sign-ins at an OpenID provider (OpenID Connect Core 1.0: authorisation code with PKCE), and everything that must not be one.

use std::collections::BTreeMap;

use jsonwebtoken::Algorithm;
use serde_json::json;
use wharf_tests::{Answer, Browser, CGI_TOML, CLIENT, Client, Provider, Site, Wharf, cgi_program, library, wait};

const LOGIN: &str = "[login]\nmethod = \"OIDC\"\nrealm = \"sso\"\ncallback = \"/back\"\nlogout = \"/logout\"\n";
const GUARD: &str = "[[constraints]]\npatterns = [\"/private/*\"]\nroles = [\"admin\"]\n";
const SAY: &str =
    "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho \"$REQUEST_METHOD $REMOTE_USER $AUTH_TYPE\"\ncat\n";

fn start(provider: &Provider, realm: &str) -> Wharf {
    let issuer = provider.issuer();
    let settings = format!(
        "[realm.sso]\nkind = \"oidc\"\nissuer = \"{issuer}\"\nclient_id = \"{}\"\nclient_secret = \"${{file:secret}}\"\n\
         user_claim = \"preferred_username\"\nroles_claim = \"realm_access.roles\"\n{realm}",
        CLIENT.0
    );
    let site = Site::new()
        .with("wharf.toml", settings)
        .with("secret", format!("{}\n", CLIENT.1))
        .with("deploy/app.so", library("signing"))
        .with("deploy/app.toml", LOGIN)
        .with("deploy/cgi/app.toml", format!("{CGI_TOML}{LOGIN}{GUARD}"));
    cgi_program(&site, "deploy/cgi/private/say", SAY);
    site.start(&[])
}

/// Asks the provider what the browser would, and gives the target that it sends the user back to.
fn at_provider(provider: &Provider, answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text());
    let url = answer.header("location").unwrap();
    let target = url.strip_prefix(provider.issuer()).unwrap_or_else(|| panic!("not at the provider: {url}"));
    let agreed = Client::connect(provider.addr()).unwrap().get(target).unwrap();
    assert_eq!(agreed.status, 303, "{}", agreed.text());
    let back = agreed.header("location").unwrap().split_once("://").unwrap().1;
    back[back.find('/').unwrap()..].to_owned()
}

/// One whole sign-in that begins with this request: the last answer.
fn sign_in(browser: &mut Browser<'_>, provider: &Provider, method: &str, target: &str, body: &[u8]) -> Answer {
    let asked = browser.send(method, target, &[], body);
    let back = at_provider(provider, &asked);
    browser.get(&back)
}

#[test]
fn the_interrupted_request_goes_on_after_the_sign_in() {
    let provider = Provider::start();
    let wharf = start(&provider, "");
    let mut browser = Browser::new(&wharf);
    let ann = "Some(\"ann\") Some(\"OIDC\") true";
    let answer = sign_in(&mut browser, &provider, "GET", "/app/private/x?a=1", b"");
    assert_eq!((answer.status, answer.text()), (200, format!("/private {ann}")));
    assert_eq!(browser.get("/app/who").text(), format!("/who {ann}"));
    // Content goes on too; programs behind gateways are told who it is.
    let mut other = Browser::new(&wharf);
    assert_eq!(sign_in(&mut other, &provider, "POST", "/cgi/private/say", b"content").text(), "POST ann OIDC\ncontent");
    // The application asks by itself.
    let mut third = Browser::new(&wharf);
    assert_eq!(sign_in(&mut third, &provider, "GET", "/app/mine", b"").text(), format!("ann /mine {ann}"));
    assert_eq!(third.post("/app/out", &[]).text(), "/out None None false");
    // The provider was asked for itself once.
    assert_eq!(provider.asked().iter().filter(|asked| *asked == "discovery").count(), 1);
    // What a page loads by itself is not sent there, and the end of it is the session's.
    let mut fresh = Browser::new(&wharf);
    assert_eq!(fresh.send("GET", "/app/private/x", &[("Sec-Fetch-Mode", "cors")], b"").status, 401);
    browser.send("GET", "/app/logout", &[], b"");
    assert_eq!(browser.send("GET", "/app/private/x", &[], b"").status, 303);
    // There are no passwords.
    assert_eq!(fresh.post("/app/in", &[("user", "ann"), ("password", "x")]).status, 500);
}

#[test]
fn one_sign_in_for_all_applications_of_a_host_where_it_is_so_configured() {
    let provider = Provider::start();
    let wharf = start(&provider, "single_sign_on = \"1h\"\n");
    let mut browser = Browser::new(&wharf);
    assert_eq!(sign_in(&mut browser, &provider, "GET", "/app/private/x", b"").status, 200);
    assert_eq!(browser.get("/cgi/private/say").text(), "GET ann OIDC\n");
}

#[test]
fn another_browser_state_or_code_signs_nobody_in() {
    let provider = Provider::start();
    let wharf = start(&provider, "");
    let mut victim = Browser::new(&wharf);
    let before = victim.send("GET", "/app/private/x", &[], b"");
    let back = at_provider(&provider, &before);
    // Somebody else's answer in this browser, and this one's in another: nobody.
    let mut attacker = Browser::new(&wharf);
    let theirs = attacker.send("GET", "/app/private/x", &[], b"");
    let theirs = at_provider(&provider, &theirs);
    for (browser, target) in [(&mut victim, &theirs), (&mut attacker, &back), (&mut Browser::new(&wharf), &back)] {
        assert_eq!(browser.send("GET", target, &[], b"").status, 400, "{target}");
    }
    let state = back.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    for (target, status) in [
        ("/app/back".to_owned(), 400),
        ("/app/back?code=x".to_owned(), 400),
        (format!("/app/back?code=x&state={}x", state), 400),
        (format!("/app/back?code=x&state={state}&iss=http://evil.example"), 400),
    ] {
        assert_eq!(victim.send("GET", &target, &[], b"").status, status, "{target}");
    }
    // Its own is good, once; and whoever knew the session's id before has nothing of it.
    let old = victim.cookies.clone();
    assert_eq!(victim.send("GET", &back, &[], b"").status, 303);
    assert_ne!(victim.cookies, old);
    assert_eq!(victim.get("/app/private/x").status, 200);
    assert_eq!(victim.send("GET", &back, &[], b"").status, 400);
    let mut thief = Browser::new(&wharf);
    thief.cookies = old;
    assert_eq!(thief.send("GET", "/app/private/x", &[], b"").status, 303);
    // A state is good once, too, when the code is not.
    let mut browser = Browser::new(&wharf);
    let asked = browser.send("GET", "/app/private/x", &[], b"");
    let back = at_provider(&provider, &asked);
    let (path, rest) = back.split_once("code=").unwrap();
    let wrong = format!("{path}code=x{}", &rest[rest.find('&').unwrap()..]);
    assert_eq!(browser.send("GET", &wrong, &[], b"").status, 403);
    assert_eq!(browser.send("GET", &back, &[], b"").status, 400);
    // Several sign-ins in one browser do not end each other.
    let mut browser = Browser::new(&wharf);
    let tabs: Vec<_> = (0..3).map(|_| browser.send("GET", "/app/private/x", &[], b"")).collect();
    let back = at_provider(&provider, &tabs[0]);
    assert_eq!(browser.send("GET", &back, &[], b"").status, 303);
    assert_eq!(browser.get("/app/private/x").status, 200);
}

#[test]
fn only_a_good_token_signs_in() {
    let provider = Provider::start();
    let wharf = start(&provider, "leeway = \"1s\"\n");
    let try_it = |what: &str, status: u16| {
        let mut browser = Browser::new(&wharf);
        assert_eq!(sign_in(&mut browser, &provider, "GET", "/app/private/x", b"").status, status, "{what}");
    };
    try_it("as it should be", 200);
    let changes = [
        ("another nonce", json!({ "nonce": "x" })),
        ("no nonce", json!({ "nonce": null })),
        ("another audience", json!({ "aud": "other" })),
        ("several audiences and no party", json!({ "aud": [CLIENT.0, "other"] })),
        ("another party", json!({ "azp": "other" })),
        ("another issuer", json!({ "iss": "http://evil.example" })),
        ("expired", json!({ "exp": 1000 })),
        ("no expiry", json!({ "exp": null })),
        ("not yet", json!({ "nbf": 99_999_999_999_u64 })),
        ("no user", json!({ "preferred_username": null })),
        ("a user with a line feed", json!({ "preferred_username": "a\nb" })),
    ];
    for (what, change) in changes {
        provider.twist(move |claims, _| {
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
                if value.is_null() {
                    claims.as_object_mut().unwrap().remove(name);
                }
            }
        });
        try_it(what, 403);
    }
    // An algorithm that is not taken: with the client's secret as the key.
    provider.twist(|_, header| header.alg = Algorithm::HS256);
    try_it("HS256", 403);
    provider.twist(|_, header| header.kid = Some("none".into()));
    try_it("an unknown key", 403);
    provider.twist(|claims, _| claims["aud"] = json!([CLIENT.0]));
    try_it("one audience in a list", 200);
    // A user without the role is known, and stays outside.
    provider.twist(|claims, _| claims["realm_access"]["roles"] = json!(["user"]));
    try_it("another role", 403);
}

#[test]
fn a_provider_that_denies_changes_keys_or_goes_away_is_lived_with() {
    let provider = Provider::start();
    let wharf = start(&provider, "scopes = [\"openid\", \"deny\"]\n");
    let mut browser = Browser::new(&wharf);
    assert_eq!(sign_in(&mut browser, &provider, "GET", "/app/private/x", b"").status, 403);
    // With new keys it is asked again, but not at once: a stranger must not make the container ask with each request.
    let wharf = start(&provider, "");
    let sign_in = |cookies: &mut BTreeMap<String, String>| {
        let mut browser = Browser::new(&wharf);
        let answer = sign_in(&mut browser, &provider, "GET", "/app/private/x", b"");
        *cookies = browser.cookies.clone();
        answer.status
    };
    let mut cookies = BTreeMap::new();
    assert_eq!(sign_in(&mut cookies), 200);
    provider.turn_keys_over("second");
    assert_eq!(sign_in(&mut BTreeMap::new()), 403);
    // Gone: nobody new, quickly, and everybody who has signed in.
    provider.stop();
    let wharf = {
        // Another container, which has never asked it.
        let provider = Provider::start();
        let wharf = start(&provider, "");
        provider.stop();
        wharf
    };
    wait("503", || (wharf.get("/app/private/x").status == 503).then_some(()));
    assert!(wharf.log().contains("the provider:"), "{}", wharf.log());
    assert_eq!(wharf.get("/app/who").status, 200);
}

#[test]
fn what_can_not_be_used_is_refused_by_name() {
    let rows = [
        ("issuer = \"http://idp.example\"\nclient_id = \"a\"", "realm.sso.issuer"),
        ("issuer = \"https://idp.example\"", "realm.sso.client_id"),
        ("issuer = \"https://idp.example\"\nclient_id = \"a\"\nalgorithms = [\"HS256\"]", "'HS256' is not known"),
        ("issuer = \"https://idp.example\"\nclient_id = \"a\"\nscopes = [\"profile\"]", "must have \"openid\""),
        (
            "issuer = \"https://idp.example\"\nclient_id = \"a\"\nclient_secret = \"${env:NOT_SET_AT_ALL}\"",
            "client_secret",
        ),
        ("issuer = \"https://idp.example\"\nclient_id = \"a\"\nfile = \"users.txt\"", "realm.sso.file"),
    ];
    for (settings, what) in rows {
        let site = Site::new().with("wharf.toml", format!("[realm.sso]\nkind = \"oidc\"\n{settings}\n"));
        let output = site.cli(&["run"]);
        assert!(output.code != 0 && output.err.contains(what), "{settings}: {}", output.err);
    }
    let good = "[realm.sso]\nkind = \"oidc\"\nissuer = \"https://idp.example\"\nclient_id = \"a\"\nclient_secret = \"quiet\"\n";
    let apps = [
        ("[login]\nmethod = \"BASIC\"\nrealm = \"sso\"\n", "write \\\"OIDC\\\""),
        ("[login]\nmethod = \"OIDC\"\nrealm = \"sso\"\nlogin_page = \"/x\"\n", "login_page is for"),
        ("[login]\nmethod = \"OIDC\"\nrealm = \"sso\"\ncallback = \"/x?y\"\n", "callback = "),
        ("[login]\nmethod = \"OIDC\"\nrealm = \"sso\"\n[session]\nsame_site = \"strict\"\n", "write \\\"lax\\\""),
    ];
    for (toml, what) in apps {
        let site = Site::new().with("wharf.toml", good).with("deploy/app.so", library("signing"));
        let wharf = site.with("deploy/app.toml", toml).start(&[]);
        let error = wharf.app("app")["error"].to_string();
        assert!(error.contains(what), "{toml}: {error}");
    }
}

#[test]
fn the_secret_is_not_shown() {
    let realm = "[realm.sso]\nkind = \"oidc\"\nissuer = \"https://idp.example\"\nclient_id = \"a\"\nclient_secret = \"hunter2\"\n";
    let site = Site::new().with("wharf.toml", realm);
    for command in [&["config"][..], &["config", "--json"]] {
        let shown = site.cli(command);
        assert!(shown.code == 0 && shown.out.contains("client_secret"), "{shown:?}");
        assert!(!shown.out.contains("hunter2"), "{shown:?}");
    }
}
