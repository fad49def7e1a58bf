//! The cookie that keeps a client at its backend: a name of the backend and a signature, never an address.

use hmac::{Hmac, Mac};
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use sha2::Sha256;

/// Makes and reads the cookies of one proxy.
#[derive(Debug)]
pub(crate) struct Cookies {
    name: String,
    path: String,
    key: Vec<u8>,
}

impl Cookies {
    /// For the context path `context`, signed with `key`.
    pub(crate) fn new(name: &str, context: &str, key: &[u8]) -> Self {
        let path = if context.is_empty() { "/" } else { context };
        Self { name: name.to_owned(), path: path.to_owned(), key: key.to_owned() }
    }

    fn mac(&self, id: u64) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(self.path.as_bytes());
        mac.update(&id.to_be_bytes());
        Some(mac)
    }

    /// The backend that a valid cookie names.
    pub(crate) fn read(&self, headers: &HeaderMap) -> Option<u64> {
        cookie_values(headers, &self.name).find_map(|value| {
            let (id, signature) = value.split_once('.').filter(|(id, s)| id.len() == 16 && s.len() == 64)?;
            let id = u64::from_str_radix(id, 16).ok()?;
            let mut bytes = [0; 32];
            for (byte, pair) in bytes.iter_mut().zip(signature.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            }
            // Takes as long for a wrong one as for a right one.
            self.mac(id)?.verify_slice(&bytes).ok().map(|()| id)
        })
    }

    /// The Set-Cookie field that binds to a backend.
    pub(crate) fn make(&self, id: u64, secure: bool) -> Option<HeaderValue> {
        let signature = self.mac(id)?.finalize().into_bytes();
        let mut text = format!("{}={id:016x}.", self.name);
        signature.iter().for_each(|b| text.push_str(&format!("{b:02x}")));
        text.push_str(&format!("; Path={}; HttpOnly; SameSite=Lax{}", self.path, if secure { "; Secure" } else { "" }));
        HeaderValue::from_str(&text).ok()
    }
}

/// The values of a cookie.
pub(crate) fn cookie_values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_cookie_that_was_not_signed_is_believed(value in "[ -~]{0,100}") {
            let cookies = Cookies::new("R", "", b"0123456789abcdef");
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("R={value}; R=0000000000000001.{value}").parse().unwrap());
            prop_assert_eq!(cookies.read(&headers), None);
        }
    }

    #[test]
    fn only_what_was_signed_here_is_believed() {
        let cookies = Cookies::new("R", "/shop", b"0123456789abcdef");
        let set = cookies.make(0xabc, true).unwrap();
        let set = set.to_str().unwrap();
        assert!(set.ends_with("; Path=/shop; HttpOnly; SameSite=Lax; Secure"), "{set}");
        let value = set.split(';').next().unwrap();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, text.parse().unwrap());
            cookies.read(&headers)
        };
        assert_eq!(read(value), Some(0xabc));
        assert_eq!(read(&format!("a=b; R=x; {value}")), Some(0xabc), "a wrong one before it");
        for bad in [
            value.replace("0abc", "0abd"),
            value.replace("R=", "Q="),
            format!("{value}0"),
            "R=http://169.254.169.254/".to_owned(),
            "R=0000000000000abc.+f".to_owned() + &"0".repeat(62),
            format!("R=0000000000000abc.{}", "é".repeat(32)),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
        let other = Cookies::new("R", "/other", b"0123456789abcdef");
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, value.parse().unwrap());
        assert_eq!(other.read(&headers), None, "of another application");
    }
}
