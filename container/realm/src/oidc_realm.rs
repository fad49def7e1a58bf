//! A realm of an OpenID provider (OpenID Connect Core 1.0): users sign in there, by the authorisation code flow with PKCE (RFC 7636).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, ExtraTokenFields, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, StandardRevocableToken, StandardTokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use wharf_kernel::{Authenticated, settings};

use crate::claims::{ClaimNames, MAX_TOKEN, choose, key_set};

/// How long what the provider says of itself is good.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// How soon it is asked again for a key that is not known.
const NOT_BEFORE: Duration = Duration::from_secs(30);
/// How long the provider may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The provider, and what it knows the container as.
pub(crate) struct OidcRealm {
    name: String,
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    scopes: Vec<String>,
    rules: HashMap<Algorithm, Validation>,
    names: ClaimNames,
    http: reqwest::Client,
    /// Where requests to the provider are made: whoever waits for them may have no reactor.
    runtime: Handle,
    provider: Mutex<Option<Arc<Provider>>>,
}

/// What the provider says of itself (OpenID Connect Discovery 1.0).
struct Provider {
    metadata: Metadata,
    keys: Vec<Jwk>,
    asked: Instant,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
}

/// A sign-in under way, as the session keeps it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) state: String,
    nonce: String,
    verifier: String,
    redirect: String,
}

/// Why nobody has signed in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The provider does not answer, or not as it should.
    Unavailable(String),
    /// It has answered, and nobody is signed in by that.
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

type Client = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

impl OidcRealm {
    /// The realm of this name. `secret` is its client's, with what it refers to put in.
    ///
    /// # Errors
    /// What of the settings can't be used.
    pub(crate) fn new(
        name: &str,
        realm: &settings::Realm,
        secret: Option<String>,
        runtime: Handle,
    ) -> Result<Self, String> {
        let named = realm
            .algorithms
            .iter()
            .map(|name| name.parse::<Algorithm>().map_err(|_| format!("'{name}' is not an algorithm")));
        let mut algorithms = named.collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() {
            algorithms = vec![Algorithm::RS256, Algorithm::ES256];
        }
        let issuer = realm.issuer.clone().unwrap_or_default();
        let client_id = realm.client_id.clone().unwrap_or_default();
        let rules = |algorithm| {
            let mut rules = Validation::new(algorithm);
            rules.leeway = realm.leeway.as_secs();
            rules.validate_nbf = true;
            rules.set_issuer(&[&issuer]);
            rules.set_audience(&[&client_id]);
            rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            (algorithm, rules)
        };
        Ok(Self {
            rules: algorithms.into_iter().map(rules).collect(),
            name: name.to_owned(),
            client_secret: secret,
            scopes: realm.scopes.clone(),
            names: ClaimNames::of(realm),
            http: http(realm.ca.as_deref())?,
            runtime,
            provider: Mutex::default(),
            issuer,
            client_id,
        })
    }

    /// Runs a request to the provider where there is a reactor.
    async fn outside<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.runtime.spawn(work).await;
        let done = done.unwrap_or_else(|_| Err(Failure::Unavailable("the request broke off".into())));
        done.inspect_err(|failure| match failure {
            Failure::Unavailable(what) => tracing::error!(realm = self.name, "the provider: {what}"),
            Failure::Refused(what) => tracing::warn!(realm = self.name, "nobody is signed in: {what}"),
        })
    }

    /// Where a user is sent to sign in, to come back to `redirect`; and what to keep until then.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub(crate) async fn begin(self: &Arc<Self>, redirect: String) -> Result<(String, Pending), Failure> {
        let this = self.clone();
        self.outside(async move {
            let provider = this.provider(GOOD_FOR).await?;
            let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
            let nonce = CsrfToken::new_random();
            let to = RedirectUrl::new(redirect.clone()).map_err(|e| Failure::Refused(format!("{redirect}: {e}")))?;
            let client = Client::new(ClientId::new(this.client_id.clone()))
                .set_redirect_uri(to)
                .set_auth_uri(AuthUrl::new(provider.metadata.authorization_endpoint.clone()).map_err(unusable)?);
            let request = client.authorize_url(CsrfToken::new_random).set_pkce_challenge(challenge);
            let request = request.add_scopes(this.scopes.iter().cloned().map(Scope::new));
            let (url, state) = request.add_extra_param("nonce", nonce.secret()).url();
            let pending = Pending {
                state: state.into_secret(),
                nonce: nonce.into_secret(),
                verifier: verifier.into_secret(),
                redirect,
            };
            Ok((String::from(url), pending))
        })
        .await
    }

    /// Who has signed in, for the code that the provider sent the user back with.
    ///
    /// # Errors
    /// When the provider does not answer, or nobody has.
    pub(crate) async fn redeem(self: &Arc<Self>, code: String, pending: Pending) -> Result<Authenticated, Failure> {
        let this = self.clone();
        self.outside(async move {
            let provider = this.provider(GOOD_FOR).await?;
            let mut client = Client::new(ClientId::new(this.client_id.clone()))
                .set_redirect_uri(RedirectUrl::new(pending.redirect).map_err(unusable)?);
            if let Some(secret) = &this.client_secret {
                client = client.set_client_secret(ClientSecret::new(secret.clone()));
            }
            let client =
                client.set_token_uri(TokenUrl::new(provider.metadata.token_endpoint.clone()).map_err(unusable)?);
            let request = client
                .exchange_code(AuthorizationCode::new(code))
                .set_pkce_verifier(PkceCodeVerifier::new(pending.verifier));
            let answer = request.request_async(&this.http).await.map_err(|error| match error {
                RequestTokenError::ServerResponse(what) => Failure::Refused(format!("the code is not taken: {what}")),
                RequestTokenError::Request(error) => Failure::Unavailable(chain(&error)),
                RequestTokenError::Parse(error, _) => Failure::Unavailable(format!("its answer to a code: {error}")),
                RequestTokenError::Other(what) => Failure::Unavailable(format!("its answer to a code: {what}")),
            })?;
            let token = answer.extra_fields().id_token.as_deref();
            let token = token.ok_or_else(|| Failure::Unavailable("its answer to a code has no id_token".into()))?;
            this.user(&provider, token, &pending.nonce).await
        })
        .await
    }

    /// Whose token this is (OpenID Connect Core 1.0, section 3.1.3.7).
    async fn user(&self, provider: &Provider, token: &str, nonce: &str) -> Result<Authenticated, Failure> {
        let refused = |what: &str| Failure::Refused(format!("its token {what}"));
        let header = decode_header(token).ok().filter(|_| token.len() <= MAX_TOKEN);
        let header = header.ok_or_else(|| refused("can't be read"))?;
        let rules = self.rules.get(&header.alg).ok_or_else(|| refused("has an algorithm that is not taken here"))?;
        let kid = header.kid.as_deref();
        let claims = match choose(&provider.keys, kid, header.alg) {
            Some(key) => claims(token, key, rules),
            None => {
                // It may have changed its keys.
                let provider = self.provider(NOT_BEFORE).await?;
                let key =
                    choose(&provider.keys, kid, header.alg).ok_or_else(|| refused("has a key that is not known"))?;
                claims(token, key, rules)
            }
        };
        let claims = claims.map_err(|error| refused(&format!("is not valid: {error}")))?;
        if claims["nonce"].as_str() != Some(nonce) {
            return Err(refused("is for another sign-in"));
        }
        let party = claims["azp"].as_str();
        let several = claims["aud"].as_array().is_some_and(|all| all.len() > 1);
        if party.map_or(several, |party| party != self.client_id) {
            return Err(refused("is for another client"));
        }
        self.names.user(&claims, "OIDC").ok_or_else(|| refused("names no user"))
    }

    /// What the provider says of itself, no older than this.
    async fn provider(&self, age: Duration) -> Result<Arc<Provider>, Failure> {
        // One asks, the others wait for the answer.
        let mut known = self.provider.lock().await;
        if let Some(provider) = known.as_ref().filter(|provider| provider.asked.elapsed() < age) {
            return Ok(provider.clone());
        }
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata = serde_json::from_slice(&self.get(&url).await?)
            .map_err(|error| Failure::Unavailable(format!("{url}: {error}")))?;
        if metadata.issuer != self.issuer {
            let what = format!("{url}: its issuer is '{}', not '{}'", metadata.issuer.escape_debug(), self.issuer);
            return Err(Failure::Unavailable(what));
        }
        let keys = key_set(&self.get(&metadata.jwks_uri).await?)
            .map_err(|what| Failure::Unavailable(format!("{}: {what}", metadata.jwks_uri)))?;
        let provider = Arc::new(Provider { metadata, keys, asked: Instant::now() });
        *known = Some(provider.clone());
        Ok(provider)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let wrong = |error: reqwest::Error| Failure::Unavailable(chain(&error));
        let mut answer =
            self.http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(wrong)?;
        let mut content = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(wrong)? {
            content.extend_from_slice(&piece);
            if content.len() > MAX_ANSWER {
                return Err(Failure::Unavailable(format!("{url}: the answer is too long")));
            }
        }
        Ok(content)
    }

    /// Whether an answer names this provider (RFC 9207), or none.
    pub(crate) fn is_issuer(&self, named: Option<&str>) -> bool {
        named.is_none_or(|named| named == self.issuer)
    }
}

fn claims(token: &str, key: &Jwk, rules: &Validation) -> Result<Value, jsonwebtoken::errors::Error> {
    decode::<Value>(token, &DecodingKey::from_jwk(key)?, rules).map(|data| data.claims)
}

fn http(ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .timeout(PATIENCE)
        // The provider answers itself, or not at all.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca {
        let wrong = |error: &dyn std::fmt::Display| format!("ca: {}: {error}", path.display());
        let content = std::fs::read(path).map_err(|e| wrong(&e))?;
        for certificate in reqwest::Certificate::from_pem_bundle(&content).map_err(|e| wrong(&e))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| error.to_string())
}

fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::Unavailable(format!("an address of it can't be used: {error}"))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
