//! A small OpenID provider (OpenID Connect Core 1.0): one user, who always agrees.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the client is known as, and its secret.
pub const CLIENT: (&str, &str) = ("shop", "hush & more");

type Fields = HashMap<String, String>;

/// A running provider.
pub struct Provider {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
}

struct Shared {
    issuer: String,
    keys: Mutex<Keys>,
    /// Authorisations whose code was not redeemed yet.
    codes: Mutex<HashMap<String, Fields>>,
    /// Changes the claims of tokens, and the answers' header.
    twist: Mutex<Twist>,
    asked: Mutex<Vec<String>>,
}

type Twist = Box<dyn Fn(&mut Value, &mut Header) + Send>;

struct Keys {
    private: Vec<u8>,
    set: Value,
}

impl Keys {
    /// A key on the curve P-256, made by openssl.
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key.pem");
        let run = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).arg(&file).output().expect("openssl runs");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
        let public = run(&["pkey", "-pubout", "-outform", "DER", "-in"]);
        // The point stands last: 04, and both coordinates.
        let point = &public[public.len() - 64..];
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (number(&point[..32]), number(&point[32..]));
        let key = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": name, "x": x, "y": y });
        Self { private: read(&file), set: json!({ "keys": [key] }) }
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("openssl has written it")
}

fn random() -> String {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("code-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
}

impl Provider {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no openssl.
    pub fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            issuer: format!("http://{addr}"),
            keys: Mutex::new(Keys::new("first")),
            codes: Mutex::default(),
            twist: Mutex::new(Box::new(|_, _| {})),
            asked: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(|State(p): State<Arc<Shared>>| async move { Json(locked(&p.keys).set.clone()) }))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { addr, shared, runtime }
    }

    /// Its name.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has another key from now on.
    pub fn turn_keys_over(&self, name: &str) {
        *locked(&self.shared.keys) = Keys::new(name);
    }

    /// Has its tokens changed before they are signed.
    pub fn twist(&self, twist: impl Fn(&mut Value, &mut Header) + Send + 'static) {
        *locked(&self.shared.twist) = Box::new(twist);
    }

    /// What was asked of it: the endpoints, in their order.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.shared.asked).clone()
    }

    /// Ends it.
    pub fn stop(self) {
        self.runtime.shutdown_background();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn discovery(State(provider): State<Arc<Shared>>) -> Json<Value> {
    locked(&provider.asked).push("discovery".into());
    let issuer = &provider.issuer;
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize?tenant=1"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"], "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

/// The user agrees, or with `deny` in the scope does not.
async fn authorize(State(provider): State<Arc<Shared>>, Query(fields): Query<Fields>) -> Response {
    locked(&provider.asked).push("authorize".into());
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    let good = field("client_id") == CLIENT.0
        && field("response_type") == "code"
        && field("code_challenge_method") == "S256"
        && field("scope").split(' ').any(|scope| scope == "openid")
        && [field("state"), field("nonce"), field("code_challenge")].iter().all(|value| value.len() >= 16)
        && field("tenant") == "1";
    if !good {
        return (StatusCode::BAD_REQUEST, format!("{fields:?}")).into_response();
    }
    let (redirect, state) = (field("redirect_uri"), field("state"));
    let iss = format!("iss={}", provider.issuer);
    if field("scope").contains("deny") {
        return Redirect::to(&format!("{redirect}?error=access_denied&state={state}&{iss}")).into_response();
    }
    let code = random();
    let to = format!("{redirect}?code={code}&state={state}&{iss}");
    locked(&provider.codes).insert(code, fields);
    Redirect::to(&to).into_response()
}

async fn token(State(provider): State<Arc<Shared>>, headers: HeaderMap, Form(fields): Form<Fields>) -> Response {
    locked(&provider.asked).push("token".into());
    let wrong = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    // RFC 6749, section 2.3.1: both are form-urlencoded first.
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:hush+%26+more", CLIENT.0)));
    if headers.get("authorization").is_none_or(|value| value != basic.as_str()) {
        return wrong("invalid_client");
    }
    // A code is good once.
    let Some(asked) = locked(&provider.codes).remove(field("code")) else { return wrong("invalid_grant") };
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
    if asked["code_challenge"] != challenge || asked["redirect_uri"] != field("redirect_uri") {
        return wrong("invalid_grant");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = json!({
        "iss": provider.issuer, "sub": "u-1", "aud": CLIENT.0, "iat": now, "exp": now + 60, "nonce": asked["nonce"],
        "preferred_username": "ann", "realm_access": { "roles": ["admin", "user"] },
    });
    let keys = locked(&provider.keys);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = keys.set["keys"][0]["kid"].as_str().map(str::to_owned);
    locked(&provider.twist)(&mut claims, &mut header);
    let key = match header.alg {
        Algorithm::HS256 => EncodingKey::from_secret(CLIENT.1.as_bytes()),
        _ => EncodingKey::from_ec_pem(&keys.private).expect("a key"),
    };
    let id_token = encode(&header, &claims, &key).expect("a token");
    Json(json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": id_token })).into_response()
}
