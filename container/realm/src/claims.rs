//! What the realms of signed tokens have in common: key sets, and the claims that name a user.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use wharf_kernel::{Authenticated, settings};

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_TOKEN: usize = 16 * 1024;

/// The claims with the user's name and roles.
pub(crate) struct ClaimNames {
    user: String,
    roles: String,
}

impl ClaimNames {
    pub(crate) fn of(realm: &settings::Realm) -> Self {
        Self { user: realm.user_claim.clone(), roles: realm.roles_claim.clone() }
    }

    /// The user that the claims name, if they do.
    pub(crate) fn user(&self, claims: &Value, scheme: &str) -> Option<Authenticated> {
        let user = claim(claims, &self.user).and_then(Value::as_str);
        let user = user.filter(|user| !user.is_empty() && !user.contains(char::is_control))?;
        let roles: Vec<&str> = match claim(claims, &self.roles) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(words)) => words.split_ascii_whitespace().collect(),
            _ => Vec::new(),
        };
        Some(Authenticated::new(user, scheme, roles))
    }
}

/// A claim by its name, or by the names that lead to it.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, part| value.get(part)))
}

/// The keys of a JSON Web Key Set (RFC 7517) that can be used.
///
/// # Errors
/// When it is none, or has none.
pub(crate) fn key_set(content: &[u8]) -> Result<Vec<Jwk>, String> {
    let all: Value = serde_json::from_slice(content).map_err(|e| format!("not a JSON Web Key Set: {e}"))?;
    // A set may hold keys of kinds that nobody here knows (RFC 7517, section 5): they are passed over.
    let keys = all["keys"].as_array().ok_or("not a JSON Web Key Set: it has no list 'keys'")?;
    let keys = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    let good: Vec<Jwk> = keys.filter(|jwk| DecodingKey::from_jwk(jwk).is_ok()).collect();
    if good.is_empty() { Err("no key that can be used".into()) } else { Ok(good) }
}

/// The key of a set for a token: by its name, or the only one that fits.
pub(crate) fn choose<'a>(set: &'a [Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let mut fitting = set.iter().filter(|jwk| {
        let named = kid.is_none_or(|kid| jwk.common.key_id.as_deref() == Some(kid));
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        named && signs && fits(jwk, algorithm)
    });
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

/// Whether a key is for this algorithm: by what it says, and by what it is.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    use jsonwebtoken::jwk::EllipticCurve::{P256, P384};
    let is = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => matches!(algorithm, HS256 | HS384 | HS512),
        AlgorithmParameters::RSA(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
        AlgorithmParameters::EllipticCurve(ec) => {
            (algorithm == ES256 && ec.curve == P256) || (algorithm == ES384 && ec.curve == P384)
        }
        AlgorithmParameters::OctetKeyPair(_) => false,
    };
    let says = |says: KeyAlgorithm| says.to_string() == format!("{algorithm:?}");
    is && jwk.common.key_algorithm.is_none_or(says)
}
