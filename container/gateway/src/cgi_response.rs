//! The head of a CGI response (RFC 3875, section 6), read strictly: what a program says is data, not framing.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes, the empty line included.
    pub(crate) bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CgiHead {
    /// `Status`, or what follows from its absence: 302 with a `Location`, else 200.
    pub(crate) status: StatusCode,
    /// Whether there was a `Status`.
    pub(crate) has_status: bool,
    /// All fields but `Status` and those that concern a connection.
    pub(crate) headers: HeaderMap,
}

impl CgiHead {
    /// The path and query to which the server itself is sent on (section 6.2.2): a `Location` that begins with a slash and
    /// comes without a `Status`.
    pub(crate) fn local_redirect(&self) -> Option<&str> {
        let location = self.headers.get(LOCATION)?.to_str().ok()?;
        (!self.has_status && location.starts_with('/')).then_some(location)
    }
}

/// Reads the head at the beginning of `bytes`. Gives it with the place where the content begins, or `None` while its end
/// is not there.
///
/// # Errors
/// What is wrong with it, for the log; the client is to get status 502.
pub(crate) fn parse_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<(CgiHead, usize)>, String> {
    let mut found = Fields::default();
    let (mut at, mut count) = (0, 0);
    loop {
        let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') else {
            if bytes.len() > limits.bytes {
                return Err(format!("its header has more than {} bytes", limits.bytes));
            }
            return Ok(None);
        };
        let line = &bytes[at..at + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += length + 1;
        if at > limits.bytes {
            return Err(format!("its header has more than {} bytes", limits.bytes));
        }
        if line.is_empty() {
            return found.finish().map(|head| Some((head, at)));
        }
        count += 1;
        if count > limits.fields {
            return Err(format!("its header has more than {} fields", limits.fields));
        }
        found.add(line)?;
    }
}

#[derive(Default)]
struct Fields {
    status: Option<StatusCode>,
    headers: HeaderMap,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let bad = |what: &str| Err(format!("{what}: {}", shown(line)));
        let Some(colon) = line.iter().position(|b| *b == b':') else { return bad("a header line has no colon") };
        // A name with a space in it, or a folded line, is no name.
        let Ok(name) = HeaderName::from_bytes(&line[..colon]) else { return bad("a header field has no valid name") };
        let Ok(value) = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()) else {
            return bad("a header field has no valid value");
        };
        match name.as_str() {
            "status" => {
                let Some(status) = status(value.as_bytes()) else { return bad("not a status from 200 to 599") };
                if self.status.replace(status).is_some() {
                    return bad("a second Status");
                }
            }
            // The connection is the server's, and `X-CGI-` is for the server alone (section 6.3.5).
            "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {}
            other if other.starts_with("x-cgi-") => {}
            _ => {
                let single = name == CONTENT_LENGTH || name == CONTENT_TYPE || name == LOCATION;
                if single && self.headers.contains_key(&name) {
                    return bad("a field that may stand once");
                }
                if name == CONTENT_LENGTH
                    && (value.is_empty()
                        || !value.as_bytes().iter().all(u8::is_ascii_digit)
                        || value.to_str().ok().and_then(|v| v.parse::<u64>().ok()).is_none())
                {
                    return bad("not a length");
                }
                if single && value.is_empty() {
                    return bad("a field without a value");
                }
                self.headers.append(name, value);
            }
        }
        Ok(())
    }

    /// One of the three CGI fields must be there (section 6.3), and a `Location` must be one.
    fn finish(self) -> Result<CgiHead, String> {
        let location = self.headers.get(LOCATION);
        if self.status.is_none() && location.is_none() && !self.headers.contains_key(CONTENT_TYPE) {
            return Err("its header has no Content-Type, Location or Status".into());
        }
        if let (Some(location), None) = (location, self.status) {
            let text = location.as_bytes();
            if !text.starts_with(b"/") && !is_absolute(text) {
                return Err(format!("a Location that is neither a path nor a URL: {}", shown(text)));
            }
        }
        let usual = if location.is_some() { StatusCode::FOUND } else { StatusCode::OK };
        Ok(CgiHead { status: self.status.unwrap_or(usual), has_status: self.status.is_some(), headers: self.headers })
    }
}

/// Three digits, then nothing or a space and a reason (section 6.3.3).
fn status(value: &[u8]) -> Option<StatusCode> {
    let digits = value.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || value.get(3).is_some_and(|b| *b != b' ') {
        return None;
    }
    StatusCode::from_bytes(digits).ok().filter(|s| (200..600).contains(&s.as_u16()))
}

/// Whether it begins with a scheme (RFC 3986, section 3.1).
fn is_absolute(text: &[u8]) -> bool {
    let Some(colon) = text.iter().position(|b| *b == b':') else { return false };
    text[..colon].first().is_some_and(u8::is_ascii_alphabetic)
        && text[..colon].iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        && text.len() > colon + 1
}

/// The beginning of a line, fit for the log.
fn shown(line: &[u8]) -> String {
    format!("\"{}\"", line[..line.len().min(60)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 200, fields: 8 };

    fn read(text: &str) -> Result<Option<(CgiHead, usize)>, String> {
        parse_head(text.as_bytes(), LIMITS)
    }

    #[test]
    fn good_heads() {
        for (text, status, location) in [
            ("Content-Type: text/plain\n\nx", 200, None),
            ("Content-type:text/plain\r\n\r\nx", 200, None),
            ("Status: 404 Not Found\nContent-Type: text/html\n\n", 404, None),
            ("Status: 204\r\n\n", 204, None),
            ("Location: /a?b\n\n", 302, Some("/a?b")),
            ("Location: https://example.org/\n\n", 302, None),
            ("Status: 301\nLocation: /a\n\n", 301, None),
            ("Status: 302\nLocation: relative\n\n", 302, None),
        ] {
            let (head, content) = read(text).unwrap().unwrap();
            assert_eq!((head.status.as_u16(), head.local_redirect()), (status, location), "{text:?}");
            assert!(text[..content].ends_with("\n"), "{text:?}");
        }
        let (head, _) =
            read("Content-Type: a/b\nSet-Cookie: a\nset-cookie: b\nConnection: close\n\n").unwrap().unwrap();
        assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
        assert!(!head.headers.contains_key("connection"));
    }

    #[test]
    fn bad_heads() {
        for (text, word) in [
            ("\n", "no Content-Type"),
            ("X-A: b\n\n", "no Content-Type"),
            ("hello\n\n", "no colon"),
            ("HTTP/1.1 200 OK\nContent-Type: a/b\n\n", "no colon"),
            ("Content Type: a\n\n", "valid name"),
            (": a\n\n", "valid name"),
            ("Content-Type: a\n folded: b\n\n", "valid name"),
            ("Content-Type: a\0b\n\n", "valid value"),
            ("Content-Type: a\rSet-Cookie: b\n\n", "valid value"),
            ("Status: 99\n\n", "not a status"),
            ("Status: 100\n\n", "not a status"),
            ("Status: 600\n\n", "not a status"),
            ("Status: 2000\n\n", "not a status"),
            ("Status: OK\n\n", "not a status"),
            ("Status: 200\nStatus: 200\n\n", "second"),
            ("Content-Type: a\nContent-Type: a\n\n", "once"),
            ("Content-Type: a\nContent-Length: 1\nContent-Length: 1\n\n", "once"),
            ("Content-Type: a\nContent-Length: +1\n\n", "length"),
            ("Content-Type: a\nContent-Length: 1, 1\n\n", "length"),
            ("Content-Type: a\nContent-Length: 99999999999999999999\n\n", "length"),
            ("Content-Type:\n\n", "without a value"),
            ("Location: nowhere\n\n", "neither"),
            ("Location: ://x\n\n", "neither"),
            ("A: 1\nB: 1\nC: 1\nD: 1\nE: 1\nF: 1\nG: 1\nH: 1\nI: 1\n\n", "more than 8 fields"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        let endless = "x".repeat(201);
        assert!(read(&endless).unwrap_err().contains("more than 200 bytes"));
        let long = format!("Content-Type: {}\n\n", "x".repeat(190));
        assert!(read(&long).unwrap_err().contains("more than 200 bytes"));
    }

    proptest! {
        /// However the bytes are cut, the answer is the same, and what is read is fit to be sent.
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), any::<u8>()], 0..300)) {
            let whole = parse_head(&bytes, LIMITS);
            for cut in 0..bytes.len() {
                match (parse_head(&bytes[..cut], LIMITS), &whole) {
                    (Ok(None), _) => {}
                    (part, whole) => prop_assert_eq!(&part, whole),
                }
            }
        }

        #[test]
        fn what_is_written_is_read(
            status in 200_u16..600,
            fields in proptest::collection::vec(("[A-Za-z][A-Za-z0-9]{0,6}", "[!-~]([ -~]{0,8}[!-~])?"), 0..5),
            crlf in any::<bool>(),
            content in ".{0,20}",
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = format!("Status: {status} Said{end}");
            for (name, value) in &fields {
                text.push_str(&format!("Y-{name}: {value}{end}"));
            }
            text.push_str(end);
            let length = text.len();
            text.push_str(&content);
            let (head, at) = parse_head(text.as_bytes(), HeadLimits { bytes: 1000, fields: 10 }).unwrap().unwrap();
            prop_assert_eq!((head.status.as_u16(), at), (status, length));
            prop_assert_eq!(head.headers.len(), fields.len());
        }
    }
}
