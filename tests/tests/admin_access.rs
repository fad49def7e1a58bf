//! The admin API over TCP: who may do what, and what the audit log says of it.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;
use wharf_tests::{Answer, Client, Site, Wharf, chameleon, wait};

const REALM: &str = "[realm.operators]\nkind = \"file\"\nfile = \"users.txt\"\n";

/// A container with a token for each role and two users, and the address of its admin port.
struct Admin {
    wharf: Wharf,
    address: String,
    tokens: Vec<String>,
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn start() -> Admin {
    let site = Site::new();
    let address = free_port();
    let mut settings = format!("[admin]\nlisten = \"{address}\"\nrealm = \"operators\"\n");
    let mut tokens = Vec::new();
    for role in ["viewer", "deployer", "admin"] {
        let made = site.cli(&["token", "--name", &format!("the {role}"), "--role", role, "--json"]).json();
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        let (name, sha256) = (text("name"), text("sha256"));
        settings += &format!("[[admin.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n");
        tokens.push(text("token"));
    }
    assert!(site.passwd("users.txt", &["ann", "--role", "clerk", "--role", "deployer"], "secret"));
    assert!(site.passwd("users.txt", &["bob", "--role", "clerk"], "secret"));
    let wharf = site.with("wharf.toml", settings + REALM).with("deploy/shop.so", chameleon("one")).start(&[]);
    Admin { wharf, address, tokens }
}

impl Admin {
    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut client = Client::connect(self.address.parse().unwrap()).unwrap();
        client.send(method, target, headers, b"").unwrap()
    }

    fn with_token(&self, role: usize, method: &str, target: &str) -> Answer {
        self.send(method, target, &[("Authorization", &format!("Bearer {}", self.tokens[role]))])
    }

    /// The lines of the audit log, without times and ports.
    fn audit(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.wharf.path(".wharf/audit.log")).unwrap_or_default();
        let line = |line: &str| {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert!(entry["time"].as_str().unwrap().ends_with('Z'), "{line}");
            let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
            let from = text("from");
            let from = if from.starts_with("127.0.0.1:") { "tcp" } else { &from };
            format!(
                "{} {} {from} {} {} {}",
                text("user"),
                text("role"),
                text("method"),
                text("target"),
                entry["status"]
            )
        };
        text.lines().map(line).collect()
    }
}

#[test]
fn each_role_may_do_what_its_name_says() {
    let admin = start();
    let rows = [
        // Role by its place, method, target, status for viewer, deployer and admin.
        ("GET", "/v1/apps", [200, 200, 200]),
        ("GET", "/v1/metrics", [200, 200, 200]),
        ("POST", "/v1/apps/shop/reload", [403, 200, 200]),
        ("POST", "/v1/apps/none/stop", [403, 404, 404]),
        ("DELETE", "/v1/apps/none", [403, 404, 404]),
        ("POST", "/v1/shutdown", [403, 403, 202]),
    ];
    for (method, target, statuses) in rows {
        for (role, status) in statuses.into_iter().enumerate() {
            let answer = admin.with_token(role, method, target);
            assert_eq!(answer.status, status, "{method} {target} with role {role}: {}", answer.text());
        }
    }
    wait("the log of the end", || admin.wharf.log().contains("the admin API was told").then_some(()));
    // Looks are not written down, whatever changes is, and who tried to.
    let audit = admin.audit();
    let want = [
        "the viewer viewer tcp POST /v1/apps/shop/reload 403",
        "the deployer deployer tcp POST /v1/apps/shop/reload 200",
        "the admin admin tcp POST /v1/apps/shop/reload 200",
    ];
    assert_eq!(audit[..3], want);
    assert_eq!(audit.last().unwrap(), "the admin admin tcp POST /v1/shutdown 202");
    assert_eq!(audit.len(), 12);
}

#[test]
fn strangers_stay_outside_and_probes_do_not() {
    let admin = start();
    for probe in ["/livez", "/readyz"] {
        assert_eq!(admin.send("GET", probe, &[]).status, 200, "{probe}");
    }
    let token = format!("Bearer {}", admin.tokens[2]);
    let (ann, bob, wrong) = ("Basic YW5uOnNlY3JldA==", "Basic Ym9iOnNlY3JldA==", "Basic YW5uOndyb25n");
    let rows: [(&[(&str, &str)], u16); 10] = [
        (&[], 401),
        (&[("Authorization", "Bearer x")], 401),
        (&[("Authorization", &token[..token.len() - 1])], 401),
        (&[("Authorization", wrong)], 401),
        // A user without any of the roles.
        (&[("Authorization", bob)], 403),
        (&[("Authorization", ann)], 200),
        (&[("Authorization", &token)], 200),
        // What a page of another site makes a browser send.
        (&[("Authorization", ann), ("Origin", "https://evil.example")], 403),
        (&[("Authorization", ann), ("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Authorization", ann), ("Sec-Fetch-Site", "same-origin")], 200),
    ];
    for (headers, status) in rows {
        let answer = admin.send("POST", "/v1/apps/shop/reload", headers);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some(if status == 200 { "application/json" } else { "application/problem+json" })
        );
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{headers:?}");
    }
    let audit = admin.audit();
    assert_eq!(audit[0], "- - tcp POST /v1/apps/shop/reload 401");
    assert_eq!(audit[5], "ann deployer tcp POST /v1/apps/shop/reload 200");
    // The socket is its owner's, who is named.
    assert_eq!(admin.wharf.admin("POST", "/v1/apps/shop/reload").status, 200);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(admin.audit().last().unwrap(), &format!("uid {uid} admin socket POST /v1/apps/shop/reload 200"));
    // Neither a token nor a password is written down anywhere.
    let written = std::fs::read_to_string(admin.wharf.path(".wharf/audit.log")).unwrap() + &admin.wharf.log();
    assert!(!written.contains(&admin.tokens[2]) && !written.contains("YW5u"), "{written}");
}

#[test]
fn the_command_line_goes_by_the_port_too() {
    let admin = start();
    let url = format!("http://{}", admin.address);
    let run = |token: Option<&str>, arguments: &[&str]| {
        let mut command = admin.wharf.command(&[&["--admin", &url], arguments].concat());
        match token {
            Some(token) => command.env("WHARF_ADMIN_TOKEN", token),
            None => command.env_remove("WHARF_ADMIN_TOKEN"),
        };
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, text) = run(Some(&admin.tokens[0]), &["list"]);
    assert!(code == Some(0) && text.contains("/shop"), "{text}");
    let (code, text) = run(Some(&admin.tokens[0]), &["reload", "shop"]);
    assert!(code == Some(1) && text.contains("this needs the role 'deployer'"), "{text}");
    let (code, text) = run(Some(&admin.tokens[1]), &["reload", "shop"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(None, &["list"]);
    assert!(code == Some(2) && text.contains("WHARF_ADMIN_TOKEN"), "{text}");
    admin.wharf.put("other.so", chameleon("two"));
    let (code, text) = run(Some(&admin.tokens[1]), &["deploy", "other.so"]);
    assert_eq!(code, Some(0), "{text}");
    admin.wharf.wait_for("/other/", "two");
}

#[test]
fn what_would_let_everybody_in_does_not_start() {
    let rows = [
        ("listen = \"0.0.0.0:0\"\nrealm = \"operators\"", "loopback"),
        ("listen = \"127.0.0.1:0\"", "nobody could sign in"),
        ("listen = \"127.0.0.1:0\"\nrealm = \"none\"", "'none' is no realm with passwords"),
        ("realm = \"operators\"", "add listen"),
    ];
    for (settings, what) in rows {
        let site = Site::new().with("wharf.toml", format!("[admin]\n{settings}\n{REALM}")).with("users.txt", "");
        let output = site.cli(&["run"]);
        assert!(output.code != 0 && output.err.contains(what), "{settings}: {}", output.err);
    }
    // The log of changes must be there, too.
    let site = Site::new().with("wharf.toml", "[admin]\naudit_log = \"no/such/folder/audit.log\"");
    let output = site.cli(&["run"]);
    assert!(output.code != 0 && output.err.contains("audit log no/such/folder/audit.log"), "{}", output.err);
    // And it may be turned over at any time.
    let admin = start();
    std::fs::rename(admin.wharf.path(".wharf/audit.log"), admin.wharf.path("audit.1")).unwrap();
    admin.with_token(1, "POST", "/v1/apps/shop/reload");
    assert_eq!(admin.audit().len(), 1);
    admin.wharf.signal(Signal::TERM);
}
