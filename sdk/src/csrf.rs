//! Tokens against requests that another site makes a browser send (cross-site request forgery).

use serde::{Deserialize, Serialize};

use crate::{Body, Error, Filter, Method, Next, Request, Response, Session};

/// The header field in which scripts send the token.
pub const CSRF_HEADER: &str = "X-CSRF-Token";
/// The parameter in which forms send it.
pub const CSRF_PARAMETER: &str = "_csrf";
/// The name of the session's value. The control character keeps it from being one of the application's.
pub(crate) const VALUE: &str = "\u{1}csrf";

const LENGTH: usize = 32;

/// What the session keeps.
#[derive(Serialize, Deserialize)]
struct Secret {
    bytes: [u8; LENGTH],
    /// The id that the session had: at a sign-in it gets another, and whoever knew the token before knows nothing.
    of: String,
}

impl Secret {
    fn of(session: &Session) -> Result<Option<Self>, Error> {
        let secret: Option<Self> = session.get(VALUE)?;
        Ok(secret.filter(|secret| secret.of == session.id()))
    }

    /// Another text each time, so that no one can find it out byte by byte from the lengths of compressed pages.
    fn masked(&self) -> Result<String, Error> {
        let mask = random()?;
        let both = mask.iter().copied().chain(mask.iter().zip(&self.bytes).map(|(mask, byte)| mask ^ byte));
        Ok(both.map(|byte| format!("{byte:02x}")).collect())
    }

    fn fits(&self, token: &str) -> bool {
        if token.len() != 4 * LENGTH || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let byte = |at: usize| u8::from_str_radix(&token[2 * at..2 * at + 2], 16);
        // All of it is looked at, so that the time says nothing.
        (0..LENGTH).fold(0, |wrong, at| match (byte(at), byte(LENGTH + at)) {
            (Ok(mask), Ok(masked)) => wrong | (mask ^ masked ^ self.bytes[at]),
            _ => 0xff,
        }) == 0
    }
}

fn random() -> Result<[u8; LENGTH], Error> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| Error::unavailable(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

impl Request {
    /// The token that a form of this page must send as the parameter [`CSRF_PARAMETER`], or a script as [`CSRF_HEADER`], for
    /// [`CsrfFilter`] to let it pass. Begins a session where there is none. It is good as long as the session has the same id.
    ///
    /// # Errors
    /// As [`Request::session`].
    pub async fn csrf_token(&self) -> Result<String, Error> {
        let session = self.session().await?;
        if let Some(secret) = Secret::of(&session)? {
            return secret.masked();
        }
        let secret = Secret { bytes: random()?, of: session.id() };
        session.set(VALUE, &secret)?;
        secret.masked()
    }
}

/// A filter that refuses, with 403, requests that change something and do not carry the session's token: all but GET, HEAD, OPTIONS and
/// TRACE.
///
/// The token comes in the header field [`CSRF_HEADER`], or in the parameter [`CSRF_PARAMETER`] of a form
/// (`application/x-www-form-urlencoded`), which the servlet reads after it as ever; of an upload (`multipart/form-data`) in the header field
/// alone. Where all clients are browsers of today, `protect.csrf` of the container does it without tokens.
///
/// ```
/// use wharf_sdk::{App, CsrfFilter, Error, Request, TestClient, get};
///
/// async fn page(request: Request) -> Result<String, Error> {
///     request.csrf_token().await
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let app = App::new()
///     .filter("csrf", "/*", CsrfFilter)
///     .servlet("page", "/page", get(page).post(|_| async { "changed" }));
/// let client = TestClient::new(app).start().await.unwrap();
/// let token = client.get("/page").send().await.text().await;
/// assert_eq!(client.post("/page").send().await.status(), 403);
/// assert_eq!(client.post("/page").form(&[("_csrf", &token)]).send().await.text().await, "changed");
/// assert_eq!(client.post("/page").header("X-CSRF-Token", &token).send().await.status(), 200);
/// # });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CsrfFilter;

impl Filter for CsrfFilter {
    async fn filter(&self, mut request: Request, next: Next) -> Result<Response, Error> {
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE) {
            return next.run(request).await;
        }
        let session = request.session_if_exists().await?;
        let secret = session.map_or(Ok(None), |session| Secret::of(&session))?;
        let token = match request.header(CSRF_HEADER) {
            Some(token) => Some(token.to_owned()),
            None if request.has_form() => {
                let content = request.bytes().await?;
                *request.body_mut() = Body::from(content.clone());
                let parameters = request.parameters().await?;
                *request.body_mut() = Body::from(content);
                parameters.get(CSRF_PARAMETER).map(str::to_owned)
            }
            None => None,
        };
        match (secret, token) {
            (Some(secret), Some(token)) if secret.fits(&token) => next.run(request).await,
            _ => Err(Error::forbidden("This form has expired, or is not of this site. Load its page again.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_fits() {
        let secret = Secret { bytes: random().unwrap(), of: "id".into() };
        let (one, two) = (secret.masked().unwrap(), secret.masked().unwrap());
        assert_ne!(one, two);
        assert!(secret.fits(&one) && secret.fits(&two) && secret.fits(&one.to_uppercase()));
        let changed = |at: usize| {
            let other = if &one[at..=at] == "0" { "1" } else { "0" };
            format!("{}{other}{}", &one[..at], &one[at + 1..])
        };
        assert!((0..4 * LENGTH).all(|at| !secret.fits(&changed(at))));
        for wrong in [
            "",
            &one[1..],
            &format!("{one}0"),
            &"0".repeat(4 * LENGTH),
            &"x".repeat(4 * LENGTH),
            &"é".repeat(2 * LENGTH),
        ] {
            assert!(!secret.fits(wrong), "{wrong}");
        }
    }
}
