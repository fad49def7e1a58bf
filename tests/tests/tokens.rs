//! Tokens (RFC 7519) of every kind of key on the real program: what is taken, and what is not.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use wharf_tests::{Site, Wharf, chameleon, tool, wait};

const APP: &str = r#"[login]
method = "BEARER"
realm = "tokens"

[[constraints]]
patterns = ["/*"]
roles = ["admin"]
"#;

/// A key pair made by openssl, as PEM files.
fn key(site: &Site, name: &str, arguments: &[&str]) -> (Vec<u8>, String) {
    let (private, public) = (site.path(format!("{name}.key")), format!("{name}.pem"));
    let run = |command: &mut Command| assert!(command.output().unwrap().status.success(), "{command:?}");
    run(Command::new("openssl").arg("genpkey").args(arguments).arg("-out").arg(&private));
    run(Command::new("openssl")
        .arg("pkey")
        .arg("-in")
        .arg(&private)
        .arg("-pubout")
        .arg("-out")
        .arg(site.path(&public)));
    (std::fs::read(private).unwrap(), public)
}

fn start(site: Site, realm: &str) -> Wharf {
    let text =
        format!("[realm.tokens]\nkind = \"jwt\"\nissuer = \"me\"\naudience = \"shop\"\nleeway = \"1s\"\n{realm}\n");
    site.with("wharf.toml", text).with("deploy/shop.so", chameleon("one")).with("deploy/shop.toml", APP).start(&[])
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn good() -> Value {
    json!({ "iss": "me", "aud": "shop", "sub": "ann", "roles": ["admin"], "exp": now() + 60 })
}

fn token(algorithm: Algorithm, key: &EncodingKey, id: Option<&str>, claims: &Value) -> String {
    encode(&Header { kid: id.map(str::to_owned), ..Header::new(algorithm) }, claims, key).unwrap()
}

fn status(wharf: &Wharf, token: &str) -> u16 {
    wharf.send("GET", "/shop/", &[("Authorization", &format!("Bearer {token}"))], b"").status
}

/// What no realm may take, whatever its keys.
fn refuses_the_wrong_ones(wharf: &Wharf, algorithm: Algorithm, key: &EncodingKey, id: Option<&str>) {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good();
        change(&mut claims);
        status(wharf, &token(algorithm, key, id, &claims))
    };
    assert_eq!(with(&|_| {}), 200, "{algorithm:?} {}", wharf.log());
    assert_eq!(with(&|c| c["roles"] = json!(["dev"])), 403, "another role");
    for (rule, status) in [
        ("expired", with(&|c| c["exp"] = json!(now() - 60))),
        ("without an end", with(&|c| _ = c.as_object_mut().unwrap().remove("exp"))),
        ("of another issuer", with(&|c| c["iss"] = json!("you"))),
        ("for somebody else", with(&|c| c["aud"] = json!("other"))),
        ("not yet", with(&|c| c["nbf"] = json!(now() + 600))),
        ("for nobody", with(&|c| _ = c.as_object_mut().unwrap().remove("sub"))),
    ] {
        assert_eq!(status, 401, "{algorithm:?}: {rule}");
    }
    // RFC 8725, section 2.1: nothing by 'none', nor with the last character changed, nor without its signature.
    let whole = token(algorithm, key, id, &good());
    let parts: Vec<&str> = whole.split('.').collect();
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let flipped =
        if parts[2].starts_with('A') { format!("B{}", &parts[2][1..]) } else { format!("A{}", &parts[2][1..]) };
    for bad in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{flipped}", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        "x".repeat(20_000),
        String::new(),
    ] {
        let status = status(wharf, &bad);
        assert!(matches!(status, 400 | 401 | 431), "{status} {}", &bad[..bad.len().min(60)]);
    }
}

#[test]
fn keys_of_every_kind() {
    if tool("openssl", &[]).is_none() {
        return;
    }
    let rows: [(&str, Algorithm, &[&str]); 4] = [
        ("RS256", Algorithm::RS256, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("PS384", Algorithm::PS384, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("ES256", Algorithm::ES256, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("ES384", Algorithm::ES384, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ];
    for (name, algorithm, arguments) in rows {
        let site = Site::new();
        let (private, public) = key(&site, "own", arguments);
        let (other, _) = key(&site, "other", arguments);
        let load = |pem: &[u8]| match name.starts_with('E') {
            true => EncodingKey::from_ec_pem(pem).unwrap(),
            false => EncodingKey::from_rsa_pem(pem).unwrap(),
        };
        let public_text = std::fs::read(site.path(&public)).unwrap();
        let wharf = start(site, &format!("algorithms = [\"{name}\"]\nkey = \"{public}\""));
        refuses_the_wrong_ones(&wharf, algorithm, &load(&private), None);
        assert_eq!(status(&wharf, &token(algorithm, &load(&other), None, &good())), 401, "{name}: another key");
        // RFC 8725, section 2.1: the public key is no secret of HS256.
        let confused = EncodingKey::from_secret(&public_text);
        assert_eq!(status(&wharf, &token(Algorithm::HS256, &confused, None, &good())), 401, "{name}: confused");
    }
}

#[test]
fn a_secret_that_both_know() {
    let secret = "a secret of thirty-two characters";
    let site = Site::new().with("secret", format!("{secret}\n"));
    let wharf = start(site, "algorithms = [\"HS256\"]\nkey = \"secret\"");
    refuses_the_wrong_ones(&wharf, Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()), None);
}

/// A public RSA key as a JSON Web Key (RFC 7518, section 6.3.1).
fn jwk(private: &Path, id: &str) -> Value {
    let output = Command::new("openssl").args(["rsa", "-noout", "-modulus", "-in"]).arg(private).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let hex = text.trim().strip_prefix("Modulus=").unwrap().to_owned();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": BASE64_URL_SAFE_NO_PAD.encode(bytes), "e": "AQAB" })
}

#[test]
fn a_set_of_keys_that_changes() {
    if tool("openssl", &[]).is_none() {
        return;
    }
    let site = Site::new();
    let arguments = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let pairs = ["one", "two"].map(|name| key(&site, name, &arguments).0);
    let [one, two] = pairs.map(|pem| EncodingKey::from_rsa_pem(&pem).unwrap());
    let set = |site: &Site, names: &[&str]| {
        let keys: Vec<Value> = names.iter().map(|name| jwk(&site.path(format!("{name}.key")), name)).collect();
        json!({ "keys": keys }).to_string()
    };
    let first = set(&site, &["one"]);
    let wharf = start(site.with("keys.json", first), "algorithms = [\"RS256\"]\njwks = \"keys.json\"");
    refuses_the_wrong_ones(&wharf, Algorithm::RS256, &one, Some("one"));
    assert_eq!(status(&wharf, &token(Algorithm::RS256, &two, Some("two"), &good())), 401);
    assert_eq!(status(&wharf, &token(Algorithm::RS256, &two, Some("one"), &good())), 401, "the id of another key");
    // Keys are changed under way: the new one is taken, then the old one no more.
    wharf.put("keys.json", set(&wharf, &["one", "two"]));
    wait("the new key", || (status(&wharf, &token(Algorithm::RS256, &two, Some("two"), &good())) == 200).then_some(()));
    assert_eq!(status(&wharf, &token(Algorithm::RS256, &one, Some("one"), &good())), 200);
    wharf.put("keys.json", set(&wharf, &["two"]));
    wait("the old one to go", || {
        (status(&wharf, &token(Algorithm::RS256, &one, Some("one"), &good())) == 401).then_some(())
    });
    // A file that can't be read lets nobody pass.
    wharf.put("keys.json", "{");
    wait("nobody to pass", || {
        (status(&wharf, &token(Algorithm::RS256, &two, Some("two"), &good())) == 503).then_some(())
    });
}
