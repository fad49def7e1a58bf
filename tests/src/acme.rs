//! A small certificate authority that speaks ACME (RFC 8555): it checks signatures, nonces and challenges, and signs what it is asked to.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, DecodingKey};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Client;

/// A running authority.
pub struct Acme {
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    base: String,
    /// Where the names that it is asked for are.
    names_at: SocketAddr,
    issuer: Issuer<'static, KeyPair>,
    root: String,
    lifetime: Mutex<Duration>,
    next: AtomicU64,
    nonces: Mutex<HashSet<String>>,
    /// Public keys by the URL of the account.
    accounts: Mutex<HashMap<String, Value>>,
    orders: Mutex<HashMap<String, Order>>,
    log: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Order {
    name: String,
    account: String,
    challenge: &'static str,
    order: &'static str,
    chain: String,
}

type Shares = State<Arc<Shared>>;

impl Acme {
    /// Starts it. Every name is at `names_at`; certificates are good for so long.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn start(names_at: SocketAddr, lifetime: Duration) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "ACME of the tests");
        let root = parameters.self_signed(&key).expect("a certificate").pem();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let shared = Arc::new(Shared {
            base: format!("http://{}", listener.local_addr().expect("an address")),
            names_at,
            issuer: Issuer::new(parameters, key),
            root,
            lifetime: Mutex::new(lifetime),
            next: AtomicU64::new(1),
            nonces: Mutex::default(),
            accounts: Mutex::default(),
            orders: Mutex::default(),
            log: Mutex::default(),
        });
        let router = Router::new()
            .route("/directory", get(directory))
            .route("/nonce", get(|State(acme): Shares| async move { acme.with_nonce(StatusCode::OK, Value::Null) }))
            .route("/account", post(account))
            .route("/orders", post(new_order))
            .route("/{what}/{id}", post(of_order))
            .with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { shared, _runtime: runtime }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("{}/directory", self.shared.base)
    }

    /// Its own certificate, as PEM.
    pub fn root(&self) -> &str {
        &self.shared.root
    }

    /// How long the certificates are good from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        *locked(&self.shared.lifetime) = lifetime;
    }

    /// What became of the orders, and of accounts.
    pub fn log(&self) -> Vec<String> {
        locked(&self.shared.log).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decoded(text: &Value) -> Vec<u8> {
    BASE64.decode(text.as_str().unwrap_or_default()).unwrap_or_default()
}

/// A request whose signature, nonce and address were right.
struct Signed {
    account: String,
    key: Value,
    payload: Value,
}

impl Shared {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    fn with_nonce(&self, status: StatusCode, body: Value) -> Response {
        let nonce = format!("nonce-{}", self.number());
        locked(&self.nonces).insert(nonce.clone());
        let mut response = if body.is_null() { status.into_response() } else { (status, Json(body)).into_response() };
        response.headers_mut().insert("replay-nonce", HeaderValue::from_str(&nonce).expect("plain text"));
        response
    }

    fn refuse(&self, kind: &str, detail: &str) -> Response {
        locked(&self.log).push(format!("refused: {detail}"));
        self.with_nonce(
            StatusCode::BAD_REQUEST,
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail }),
        )
    }

    /// RFC 8555, sections 6.2 to 6.5.
    fn open(&self, path: &str, body: &[u8]) -> Result<Signed, Box<Response>> {
        let wrong = |what: &str| Box::new(self.refuse("malformed", what));
        let jws: Value = serde_json::from_slice(body).map_err(|_| wrong("no JWS"))?;
        let head: Value = serde_json::from_slice(&decoded(&jws["protected"])).map_err(|_| wrong("no header"))?;
        if head["url"].as_str() != Some(&format!("{}{path}", self.base)) {
            return Err(wrong("another url"));
        }
        if !locked(&self.nonces).remove(head["nonce"].as_str().unwrap_or_default()) {
            return Err(Box::new(self.refuse("badNonce", "an old nonce")));
        }
        let account = head["kid"].as_str().unwrap_or_default().to_owned();
        let key = if account.is_empty() { head["jwk"].clone() } else { locked(&self.accounts)[&account].clone() };
        let coordinate = |name: &str| key[name].as_str().unwrap_or_default();
        let public = DecodingKey::from_ec_components(coordinate("x"), coordinate("y")).map_err(|_| wrong("no key"))?;
        let text = |name: &str| jws[name].as_str().unwrap_or_default();
        let message = format!("{}.{}", text("protected"), text("payload"));
        let good = jsonwebtoken::crypto::verify(text("signature"), message.as_bytes(), &public, Algorithm::ES256);
        if head["alg"] != "ES256" || good.ok() != Some(true) {
            return Err(wrong("a wrong signature"));
        }
        let payload = serde_json::from_slice(&decoded(&jws["payload"])).unwrap_or_default();
        Ok(Signed { account, key, payload })
    }

    fn order(&self, id: &str) -> Value {
        let orders = locked(&self.orders);
        let (order, base) = (&orders[id], &self.base);
        let mut all = json!({
            "status": order.order, "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [format!("{base}/authorization/{id}")], "finalize": format!("{base}/finalize/{id}"),
        });
        if order.order == "valid" {
            all["certificate"] = format!("{base}/certificate/{id}").into();
        }
        all
    }

    fn challenge(&self, id: &str) -> Value {
        let status = locked(&self.orders)[id].challenge;
        let mut challenge = json!({
            "type": "http-01", "status": status, "url": format!("{}/challenge/{id}", self.base), "token": format!("token-{id}"),
        });
        if status == "invalid" {
            challenge["error"] =
                json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": "the answer is not the one" });
        }
        challenge
    }

    /// Asks the name itself (RFC 8555, section 8.3).
    fn look(&self, id: &str, key: &Value) -> bool {
        let canonical = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}", key["x"], key["y"]);
        let want = format!("token-{id}.{}", BASE64.encode(Sha256::digest(canonical)));
        let name = locked(&self.orders)[id].name.clone();
        let target = format!("/.well-known/acme-challenge/token-{id}");
        let answer = Client::connect(self.names_at).and_then(|mut c| c.send("GET", &target, &[("Host", &name)], b""));
        answer.is_ok_and(|answer| answer.status == 200 && answer.text() == want)
    }

    fn sign(&self, payload: &Value) -> Result<String, String> {
        let der = decoded(&payload["csr"]);
        let mut csr = CertificateSigningRequestParams::from_der(&der.into()).map_err(|e| e.to_string())?;
        let now = SystemTime::now();
        csr.params.not_before = now.into();
        csr.params.not_after = (now + *locked(&self.lifetime)).into();
        csr.signed_by(&self.issuer).map(|certificate| certificate.pem()).map_err(|e| e.to_string())
    }
}

async fn directory(State(acme): Shares) -> Json<Value> {
    let base = &acme.base;
    Json(json!({
        "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"), "newOrder": format!("{base}/orders"),
        "revokeCert": format!("{base}/revoke"), "keyChange": format!("{base}/keys"),
    }))
}

fn located(mut response: Response, url: &str) -> Response {
    response.headers_mut().insert("location", HeaderValue::from_str(url).expect("plain text"));
    response
}

async fn account(State(acme): Shares, body: Bytes) -> Response {
    let signed = match acme.open("/account", &body) {
        Ok(signed) => signed,
        Err(response) => return *response,
    };
    if signed.payload["termsOfServiceAgreed"] != true {
        return acme.refuse("userActionRequired", "the terms of service");
    }
    let url = format!("{}/accounts/{}", acme.base, acme.number());
    locked(&acme.accounts).insert(url.clone(), signed.key);
    locked(&acme.log).push(format!("account {}", signed.payload["contact"]));
    located(acme.with_nonce(StatusCode::CREATED, json!({ "status": "valid" })), &url)
}

async fn new_order(State(acme): Shares, body: Bytes) -> Response {
    let signed = match acme.open("/orders", &body) {
        Ok(signed) => signed,
        Err(response) => return *response,
    };
    let [name] = signed.payload["identifiers"].as_array().map_or(&[][..], Vec::as_slice) else {
        return acme.refuse("malformed", "one name, please");
    };
    let id = acme.number().to_string();
    let name = name["value"].as_str().unwrap_or_default().to_owned();
    let order = Order { name, account: signed.account, challenge: "pending", order: "pending", chain: String::new() };
    locked(&acme.orders).insert(id.clone(), order);
    located(acme.with_nonce(StatusCode::CREATED, acme.order(&id)), &format!("{}/order/{id}", acme.base))
}

async fn of_order(State(acme): Shares, Path((what, id)): Path<(String, String)>, body: Bytes) -> Response {
    let signed = match acme.open(&format!("/{what}/{id}"), &body) {
        Ok(signed) => signed,
        Err(response) => return *response,
    };
    if locked(&acme.orders).get(&id).is_none_or(|order| order.account != signed.account) {
        return acme.refuse("unauthorized", "another's order");
    }
    let answer = match what.as_str() {
        "order" => acme.order(&id),
        "authorization" => {
            let name = locked(&acme.orders)[&id].name.clone();
            let challenge = acme.challenge(&id);
            json!({ "status": challenge["status"], "identifier": { "type": "dns", "value": name }, "challenges": [challenge] })
        }
        "challenge" => {
            let looking = acme.clone();
            let (of, key) = (id.clone(), signed.key);
            let found = tokio::task::spawn_blocking(move || looking.look(&of, &key)).await.unwrap_or(false);
            if let Some(order) = locked(&acme.orders).get_mut(&id) {
                (order.challenge, order.order) = if found { ("valid", "ready") } else { ("invalid", "invalid") };
                locked(&acme.log).push(format!("challenge {} {}", order.name, order.challenge));
            }
            acme.challenge(&id)
        }
        "finalize" if locked(&acme.orders)[&id].order == "ready" => match acme.sign(&signed.payload) {
            Ok(chain) => {
                if let Some(order) = locked(&acme.orders).get_mut(&id) {
                    (order.order, order.chain) = ("valid", chain);
                    locked(&acme.log).push(format!("certificate {}", order.name));
                }
                acme.order(&id)
            }
            Err(error) => return acme.refuse("badCSR", &error),
        },
        "certificate" if locked(&acme.orders)[&id].order == "valid" => {
            let chain = locked(&acme.orders)[&id].chain.clone() + &acme.root;
            let mut response = acme.with_nonce(StatusCode::OK, Value::Null);
            *response.body_mut() = chain.into();
            return response;
        }
        _ => return acme.refuse("malformed", "not now"),
    };
    acme.with_nonce(StatusCode::OK, answer)
}
