//! Which part of a file is asked for: what RFC 9110, sections 13.1.5 and 14.1.2, says and `ServeDir` of tower-http does not do.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What makes an answer one without the file, or with a part of it.
pub const CONDITIONS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// What a `Range` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// From here, perhaps to there.
    From,
    /// So many bytes at the end.
    Last(u64),
}

/// The one range of bytes asked for; `None` for several, for other units, and for what is malformed: all of these are answered
/// with all of the file, as a server may (section 14.2).
fn asked(value: &str) -> Option<Asked> {
    let (unit, range) = value.split_once('=')?;
    let (first, last) = range.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => None,
        (Ok(_), _) => Some(Asked::From),
        (Err(_), Ok(last)) if first.is_empty() => Some(Asked::Last(last)),
        _ => None,
    }
}

/// Takes a `Range` away that is not to be followed whatever the file is. True when the file has to be looked at to know: by a HEAD
/// request without [`CONDITIONS`], whose answer [`settle`] is given.
pub fn prepare(headers: &mut HeaderMap, is_head: bool) -> bool {
    let Some(value) = headers.get(header::RANGE) else { return false };
    // HEAD has none (section 14.2).
    match value.to_str().ok().and_then(asked).filter(|_| !is_head) {
        None => {
            headers.remove(header::RANGE);
            false
        }
        Some(Asked::Last(_)) => true,
        Some(Asked::From) => headers.contains_key(header::IF_RANGE),
    }
}

/// Makes the `Range` of a request fit the file that the header fields `file` are of.
pub fn settle(headers: &mut HeaderMap, file: &HeaderMap) {
    if let Some(wanted) = headers.remove(header::IF_RANGE)
        && !is_same(&wanted, file)
    {
        headers.remove(header::RANGE);
        return;
    }
    let range = headers.get(header::RANGE).and_then(|value| asked(value.to_str().ok()?));
    let len = file.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // More than there is: all of it.
    if let (Some(Asked::Last(last)), Some(len)) = (range, len)
        && last > len
        && len > 0
    {
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
    }
}

/// Strong comparison for a tag, and the very date for a date (section 13.1.5).
fn is_same(wanted: &HeaderValue, file: &HeaderMap) -> bool {
    let name = if wanted.as_bytes().first() == Some(&b'"') { header::ETAG } else { header::LAST_MODIFIED };
    file.get(name) == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (value, want) in [
            ("bytes=0-3", Some(Asked::From)),
            ("Bytes=0-", Some(Asked::From)),
            ("bytes=-5", Some(Asked::Last(5))),
            ("bytes=5-4", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes", None),
            ("items=0-3", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(asked(value), want, "{value}");
        }
    }
}
