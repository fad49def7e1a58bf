//! Cookies: those a client sends, read as RFC 6265 has them, and the check of those that are set.

use cookie::{Cookie, SameSite};

use crate::Error;

/// Name and value together may not be longer than this: browsers ignore longer ones (RFC 6265, section 6.1).
const MAX_LENGTH: usize = 4096;

/// What becomes of a cookie without an equals sign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nameless {
    /// It is passed over.
    #[default]
    Ignore,
    /// The text is its name, and the value is empty.
    Name,
}

/// The cookies in one `Cookie` header field, in the order sent (RFC 6265, section 4.2.1). One that is malformed is passed
/// over, and the others count. Values are as sent: with their quotes, and not percent-decoded. Characters beyond ASCII are
/// taken as UTF-8. `$Version` and the like are cookies as any other.
///
/// ```
/// use wharf_sdk::{Nameless, parse_cookies};
///
/// let names = |nameless| -> Vec<_> {
///     parse_cookies(b"a=1; b; c=\"3\"; bad=x y", nameless).map(|c| format!("{}={}", c.name(), c.value())).collect()
/// };
/// assert_eq!(names(Nameless::Ignore), ["a=1", "c=\"3\""]);
/// assert_eq!(names(Nameless::Name), ["a=1", "b=", "c=\"3\""]);
/// ```
pub fn parse_cookies(line: &[u8], nameless: Nameless) -> impl Iterator<Item = Cookie<'_>> {
    line.split(|byte| *byte == b';').filter_map(move |pair| parse(pair, nameless))
}

fn parse(pair: &[u8], nameless: Nameless) -> Option<Cookie<'_>> {
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (trim(&pair[..at]), trim(&pair[at + 1..])),
        None if nameless == Nameless::Name => (trim(pair), &b""[..]),
        None => return None,
    };
    let good = is_token(name) && is_value(value, |byte| is_octet(byte) || byte >= 0x80);
    good.then_some(())?;
    Some(Cookie::new(std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = text.iter().position(|byte| !blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !blank(byte)).map_or(begin, |at| at + 1);
    &text[begin..end]
}

/// A token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A `cookie-octet` (RFC 6265, section 4.1.1).
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn is_value(value: &[u8], is_octet: impl Fn(u8) -> bool) -> bool {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    };
    inner.iter().all(|byte| is_octet(*byte))
}

/// Whether a cookie may be set: RFC 6265, section 4.1, and what browsers ask for beside (its successor's drafts).
pub(crate) fn check(cookie: &Cookie<'_>) -> Result<(), Error> {
    let (name, value) = (cookie.name(), cookie.value());
    let wrong = |what: &str| Err(Error::internal(format!("cookie '{}': {what}", name.escape_default())));
    if !is_token(name.as_bytes()) {
        return wrong("the name may have letters, digits and !#$%&'*+-.^_`|~ alone");
    }
    if !is_value(value.as_bytes(), is_octet) {
        return wrong(
            "the value may not have spaces, quotes inside, commas, semicolons, backslashes or characters beyond ASCII: encode it",
        );
    }
    if name.len() + value.len() > MAX_LENGTH {
        return wrong("longer than 4096 bytes, which browsers ignore");
    }
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';');
    if cookie.path().is_some_and(|path| !plain(path)) {
        return wrong("the path may not have semicolons, control characters or characters beyond ASCII");
    }
    if cookie.domain().is_some_and(|domain| !is_domain(domain)) {
        return wrong("the domain is not a host name");
    }
    // Not said, it follows from what needs it.
    let secure = cookie.secure();
    if secure == Some(false) && cookie.same_site() == Some(SameSite::None) {
        return wrong("SameSite=None needs Secure");
    }
    if secure == Some(false) && cookie.partitioned() == Some(true) {
        return wrong("Partitioned needs Secure");
    }
    let implied = cookie.same_site() == Some(SameSite::None) || cookie.partitioned() == Some(true);
    let is_secure = secure == Some(true) || (secure.is_none() && implied);
    let prefixed = |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    if prefixed("__Secure-") && !is_secure {
        return wrong("a name that begins with __Secure- needs Secure");
    }
    if prefixed("__Host-") && (!is_secure || cookie.path() != Some("/") || cookie.domain().is_some()) {
        return wrong("a name that begins with __Host- needs Secure, Path=/ and no Domain");
    }
    Ok(())
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    domain.len() <= 253 && domain.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for cookie in parse_cookies(&line, Nameless::Name) {
                proptest::prop_assert!(is_token(cookie.name().as_bytes()));
            }
        }

        #[test]
        fn what_may_be_set_is_read_back(name in "[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,20}", value in "[!#-+./0-:<-~-]{0,20}") {
            let cookie = Cookie::new(name.clone(), value.clone());
            if check(&cookie).is_ok() {
                let line = cookie.to_string();
                let read: Vec<_> = parse_cookies(line.as_bytes(), Nameless::Ignore).collect();
                proptest::prop_assert_eq!((read[0].name(), read[0].value()), (&*name, &*value));
            }
        }
    }
}
