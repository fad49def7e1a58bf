//! The one canonicalisation of a request path: everything after it (mapping, constraints, files) sees the same text.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

/// A path in canonical form, twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// Dot segments resolved, path parameters removed, slashes merged; percent-encoding left as it came.
    pub encoded: Cow<'a, str>,
    /// The same, percent-decoded.
    pub decoded: Cow<'a, str>,
}

/// Why a path is refused. The answer to each is status 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It does not start with `/`.
    NoLeadingSlash,
    /// It has a `#`: a fragment is never sent (RFC 9112, section 3.2).
    Fragment,
    /// It has a `\` or `%5C`, which some systems take for a `/`.
    Backslash,
    /// It has a `%2F`: a slash that is not a separator for some and one for others.
    EncodedSlash,
    /// It has a control character, encoded or not.
    Control,
    /// It has a character that may not stand in a path unencoded: a space, a `?` or one outside ASCII.
    IllegalCharacter,
    /// A `%` is not followed by two hexadecimal digits.
    BadEscape,
    /// The decoded path is not UTF-8.
    NotUtf8,
    /// A dot segment is percent-encoded (`%2e`).
    EncodedDotSegment,
    /// A dot segment has a path parameter (`/..;/`).
    DotSegmentParameter,
    /// An empty segment with a path parameter stands before another segment (`/;/x`).
    EmptySegmentParameter,
    /// `..` leads above the root.
    AboveRoot,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeadingSlash => "the path does not start with '/'",
            Self::Fragment => "the path contains '#'",
            Self::Backslash => "the path contains a backslash",
            Self::EncodedSlash => "the path contains an encoded '/'",
            Self::Control => "the path contains a control character",
            Self::IllegalCharacter => "the path contains a character that must be percent-encoded",
            Self::BadEscape => "the path contains '%' without two hexadecimal digits",
            Self::NotUtf8 => "the decoded path is not UTF-8",
            Self::EncodedDotSegment => "the path contains an encoded dot segment",
            Self::DotSegmentParameter => "the path contains a dot segment with a parameter",
            Self::EmptySegmentParameter => "the path contains an empty segment with a parameter",
            Self::AboveRoot => "the path leads above the root",
        })
    }
}

impl std::error::Error for PathError {}

/// Puts the path of a request target (without the query) into canonical form, strictly: what is suspicious by Servlet
/// 6.1, section 3.5.2, is refused. A path that is canonical already costs one scan and no allocation.
///
/// A dot segment at the end leaves no slash behind: `/a/b/..` is `/a`, as the servlet specification has it.
///
/// # Errors
/// What is wrong with it.
///
/// ```
/// let path = wharf_mapping::canonicalise("/shop//./cart;id=7/a%20b").unwrap();
/// assert_eq!((&*path.encoded, &*path.decoded), ("/shop/cart/a%20b", "/shop/cart/a b"));
/// assert!(wharf_mapping::canonicalise("/a/%2e%2e/b").is_err());
/// ```
pub fn canonicalise(raw: &str) -> Result<CanonicalPath<'_>, PathError> {
    let scan = scan(raw.as_bytes())?;
    if scan.escapes {
        refuse_encoded_dots(raw)?;
    }
    let encoded = if scan.rebuild { Cow::Owned(rebuild(raw)?) } else { Cow::Borrowed(raw) };
    let decoded = match &encoded {
        _ if !scan.escapes => encoded.clone(),
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().map_err(|_| PathError::NotUtf8)?,
        Cow::Owned(text) => percent_decode_str(text).decode_utf8().map_err(|_| PathError::NotUtf8)?.into_owned().into(),
    };
    Ok(CanonicalPath { encoded, decoded })
}

/// Puts a decoded path that did not come from a client (one an application names in a forward, say) into normal form:
/// slashes merged, dot segments resolved, a leading slash added. `None` when it leads above the root or has a control
/// character or a backslash.
///
/// ```
/// assert_eq!(wharf_mapping::normalise("/a/b/..").as_deref(), Some("/a"));
/// assert_eq!(wharf_mapping::normalise("/a/../.."), None);
/// ```
pub fn normalise(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    if bytes.iter().any(|b| b.is_ascii_control() || *b == b'\\') {
        return None;
    }
    let clean = bytes.first() == Some(&b'/') && (0..bytes.len()).all(|i| !needs_rebuild(bytes, i));
    if clean {
        return Some(Cow::Borrowed(path));
    }
    let segments = path.strip_prefix('/').unwrap_or(path);
    join(segments.split('/').map(Ok::<_, PathError>)).ok().map(Cow::Owned)
}

struct Scan {
    /// There is at least one escape.
    escapes: bool,
    /// There is a dot segment, an empty segment or a parameter.
    rebuild: bool,
}

/// Characters that [`scan`] has nothing to say of, as most are.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7f {
        plain[byte as usize] = !matches!(byte, b'%' | b';' | b'/' | b'.' | b'\\' | b'#' | b'?');
        byte += 1;
    }
    plain
};

/// Looks at every byte once and refuses what can be refused by looking at single characters.
fn scan(bytes: &[u8]) -> Result<Scan, PathError> {
    if bytes.first() != Some(&b'/') {
        return Err(if bytes.contains(&b'#') { PathError::Fragment } else { PathError::NoLeadingSlash });
    }
    let mut scan = Scan { escapes: false, rebuild: false };
    for (i, &byte) in bytes.iter().enumerate() {
        if PLAIN[usize::from(byte)] {
            continue;
        }
        match byte {
            b'%' => {
                scan.escapes = true;
                match (bytes.get(i + 1).and_then(|b| hex(*b)), bytes.get(i + 2).and_then(|b| hex(*b))) {
                    (Some(2), Some(15)) => return Err(PathError::EncodedSlash),
                    (Some(5), Some(12)) => return Err(PathError::Backslash),
                    (Some(0 | 1), Some(_)) | (Some(7), Some(15)) => return Err(PathError::Control),
                    (Some(_), Some(_)) => {}
                    _ => return Err(PathError::BadEscape),
                }
            }
            b';' => scan.rebuild = true,
            b'/' | b'.' => scan.rebuild |= needs_rebuild(bytes, i),
            b'\\' => return Err(PathError::Backslash),
            b'#' => return Err(PathError::Fragment),
            b'?' | b' ' | 0x80.. => return Err(PathError::IllegalCharacter),
            0..0x20 | 0x7f => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(scan)
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether an empty segment or a dot segment begins at `i`.
fn needs_rebuild(bytes: &[u8], i: usize) -> bool {
    let ends = |at: usize| matches!(bytes.get(at), None | Some(b'/' | b';'));
    match bytes[i] {
        b'/' => bytes.get(i + 1) == Some(&b'/'),
        b'.' => i > 0 && bytes[i - 1] == b'/' && (ends(i + 1) || (bytes[i + 1] == b'.' && ends(i + 2))),
        _ => false,
    }
}

/// Refuses segments that are dot segments once decoded.
fn refuse_encoded_dots(raw: &str) -> Result<(), PathError> {
    for segment in raw.split('/').filter(|s| s.contains('%')) {
        let name = segment.split(';').next().unwrap_or_default();
        let mut dots = 0;
        let mut rest = name.as_bytes();
        loop {
            rest = match rest {
                [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
                _ => break,
            };
            dots += 1;
        }
        if rest.is_empty() && (1..=2).contains(&dots) && name.contains('%') {
            return Err(PathError::EncodedDotSegment);
        }
    }
    Ok(())
}

/// Removes parameters, empty segments and dot segments.
fn rebuild(raw: &str) -> Result<String, PathError> {
    let mut empty_with_parameter = false;
    join(raw[1..].split('/').map(|segment| match segment.split_once(';') {
        None if !segment.is_empty() && empty_with_parameter => Err(PathError::EmptySegmentParameter),
        None => Ok(segment),
        Some(("." | "..", _)) => Err(PathError::DotSegmentParameter),
        Some(("", _)) => {
            empty_with_parameter = true;
            Ok("")
        }
        Some(_) if empty_with_parameter => Err(PathError::EmptySegmentParameter),
        Some((name, _)) => Ok(name),
    }))
}

/// Joins segments, resolving dots; an empty last segment is a slash at the end.
fn join<'a>(segments: impl Iterator<Item = Result<&'a str, PathError>>) -> Result<String, PathError> {
    let mut out = String::new();
    let mut slash = false;
    for segment in segments {
        let segment = segment?;
        slash = segment.is_empty();
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').ok_or(PathError::AboveRoot)?),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    if slash || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}
