//! A realm of signed tokens (JSON Web Tokens, RFC 7519): keys from a file, the algorithm pinned (RFC 8725, section 3.1).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use wharf_kernel::{Authenticated, settings};

use crate::claims::{ClaimNames, MAX_TOKEN, choose, key_set};
use crate::watched::Watched;

/// The shortest secret, in bytes: that of the hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// What became of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// Whose it is.
    User(Authenticated),
    /// Not a good one; why, in words that may be told the client.
    Invalid(&'static str),
    /// There is no telling now: the keys can't be read.
    Unavailable,
}

/// A realm of tokens.
pub(crate) struct JwtRealm {
    keys: Watched<Keys>,
    rules: HashMap<Algorithm, Validation>,
    names: ClaimNames,
}

enum Keys {
    One(DecodingKey),
    Set(Vec<Jwk>),
}

impl JwtRealm {
    /// The realm that is configured so.
    ///
    /// # Errors
    /// An unknown algorithm.
    pub(crate) fn new(realm: &settings::Realm) -> Result<Self, String> {
        let algorithms = realm
            .algorithms
            .iter()
            .map(|name| name.parse::<Algorithm>().map_err(|_| format!("'{name}' is not an algorithm")))
            .collect::<Result<Vec<_>, _>>()?;
        let first = *algorithms.first().ok_or("no algorithms")?;
        let rules = algorithms.into_iter().map(|algorithm| (algorithm, rules(algorithm, realm))).collect();
        let keys = match (&realm.key, &realm.jwks) {
            (Some(path), _) => Watched::new(path.clone(), move |path| key(path, first).map(Keys::One)),
            (None, Some(path)) => Watched::new(path.clone(), |path| set(path).map(Keys::Set)),
            (None, None) => return Err("neither a key nor a key set".into()),
        };
        Ok(Self { keys, rules, names: ClaimNames::of(realm) })
    }

    /// Reads the keys again where their file has changed.
    pub(crate) fn look(&self) {
        self.keys.look();
    }

    /// Whose token this is.
    pub(crate) fn verify(&self, token: &str) -> Token {
        if token.len() > MAX_TOKEN {
            return Token::Invalid("the token is too long");
        }
        let Some(keys) = self.keys.get() else { return Token::Unavailable };
        let Ok(header) = decode_header(token) else { return Token::Invalid("the token can't be read") };
        let Some(rules) = self.rules.get(&header.alg) else {
            return Token::Invalid("the token's algorithm is not taken here");
        };
        let claims = match &*keys {
            Keys::One(key) => decode::<Value>(token, key, rules),
            Keys::Set(set) => {
                let Some(jwk) = choose(set, header.kid.as_deref(), header.alg) else {
                    return Token::Invalid("the token's key is not known");
                };
                match DecodingKey::from_jwk(jwk) {
                    Ok(key) => decode::<Value>(token, &key, rules),
                    Err(_) => return Token::Unavailable,
                }
            }
        };
        use jsonwebtoken::errors::ErrorKind;
        let claims = match claims {
            Ok(data) => data.claims,
            Err(error) => {
                return Token::Invalid(match error.kind() {
                    ErrorKind::ExpiredSignature => "the token has expired",
                    ErrorKind::ImmatureSignature => "the token is not valid yet",
                    ErrorKind::InvalidIssuer => "the token is of another issuer",
                    ErrorKind::InvalidAudience => "the token is for another audience",
                    ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim",
                    ErrorKind::InvalidSignature => "the token's signature is wrong",
                    _ => "the token is not valid",
                });
            }
        };
        match self.names.user(&claims, "Bearer") {
            Some(user) => Token::User(user),
            None => Token::Invalid("the token names no user"),
        }
    }
}

fn rules(algorithm: Algorithm, realm: &settings::Realm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.leeway = realm.leeway.as_secs();
    rules.validate_nbf = true;
    rules.set_issuer(&realm.issuer.iter().collect::<Vec<_>>());
    rules.set_audience(&realm.audience.iter().collect::<Vec<_>>());
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn key(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, String> {
    let content = read(path)?;
    let wrong = |e: jsonwebtoken::errors::Error| format!("{}: not a public key in PEM: {e}", path.display());
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            // An editor's line feed is not part of the secret.
            let secret = content.strip_suffix(b"\n").unwrap_or(&content);
            if secret.len() < MIN_SECRET || secret.starts_with(b"-----BEGIN") {
                return Err(format!("{}: a secret has at least {MIN_SECRET} bytes, and is no PEM", path.display()));
            }
            Ok(DecodingKey::from_secret(secret))
        }
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&content).map_err(wrong),
        Algorithm::EdDSA => Err(format!("{}: EdDSA is not taken", path.display())),
        _ => DecodingKey::from_rsa_pem(&content).map_err(wrong),
    }
}

fn set(path: &Path) -> Result<Vec<Jwk>, String> {
    key_set(&read(path)?).map_err(|what| format!("{}: {what}", path.display()))
}
