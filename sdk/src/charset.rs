//! Character encodings: which one content is in, and text in it.

use std::borrow::Cow;

use encoding_rs::Encoding;

use crate::Error;

/// How characters are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Utf8,
    /// The real one: browsers mean windows-1252 by the name, the registry of the IANA does not.
    Latin1,
    Ascii,
    Other(&'static Encoding),
}

impl Charset {
    /// That with this name (RFC 9110, section 8.3.2), if it is known.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name.trim()));
        Some(match () {
            () if is(&["utf-8", "utf8"]) => Self::Utf8,
            () if is(&["iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "l1"]) => Self::Latin1,
            () if is(&["us-ascii", "ascii"]) => Self::Ascii,
            () => Self::Other(Encoding::for_label_no_replacement(name.as_bytes())?),
        })
    }

    /// That which a `Content-Type` says: UTF-8 where it says none.
    ///
    /// # Errors
    /// 415 for one that is not known.
    pub(crate) fn of(content_type: Option<&str>) -> Result<Self, Error> {
        let Some(name) = content_type.and_then(|value| parameter(value, "charset")) else { return Ok(Self::Utf8) };
        Self::named(&name).ok_or_else(|| Error::unsupported_media_type(format!("unknown charset '{name}'")))
    }

    /// The text; `None` when the bytes are no text in this encoding.
    pub(crate) fn decode(self, bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
        match self {
            Self::Ascii if !bytes.is_ascii() => None,
            Self::Utf8 | Self::Ascii => match bytes {
                Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
                Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
            },
            Self::Latin1 => Some(Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect())),
            Self::Other(encoding) => {
                let (encoding, skipped) = Encoding::for_bom(&bytes).unwrap_or((encoding, 0));
                let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes[skipped..])?;
                Some(Cow::Owned(text.into_owned()))
            }
        }
    }

    /// The bytes; `None` when a character can't be written in this encoding.
    pub(crate) fn encode(self, text: Cow<'_, str>) -> Option<Vec<u8>> {
        match self {
            Self::Ascii if !text.is_ascii() => None,
            Self::Utf8 | Self::Ascii => Some(text.into_owned().into_bytes()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
            // It would be written as UTF-8 (Encoding Standard, section 4.3), which is not what the name says.
            Self::Other(encoding) if encoding.output_encoding() != encoding => None,
            Self::Other(encoding) => {
                let (bytes, _, unmappable) = encoding.encode(&text);
                (!unmappable).then(|| bytes.into_owned())
            }
        }
    }
}

/// A parameter of a media type (RFC 9110, section 5.6.6), without its quotes.
pub(crate) fn parameter<'a>(value: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut rest = value;
    loop {
        rest = &rest[semicolon(rest)? + 1..];
        let end = semicolon(rest).unwrap_or(rest.len());
        let Some((key, text)) = rest[..end].split_once('=') else { continue };
        if key.trim().eq_ignore_ascii_case(name) {
            let text = text.trim();
            let Some(quoted) = text.strip_prefix('"') else { return Some(Cow::Borrowed(text)) };
            return Some(Cow::Owned(unquoted(quoted)));
        }
    }
}

/// Where the next semicolon outside quotes is.
fn semicolon(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return true,
            _ => {}
        }
        false
    })
}

fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => out.extend(characters.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_media_types_are_found() {
        for (value, want) in [
            ("text/plain", None),
            ("text/plain; charset=UTF-8", Some("UTF-8")),
            ("text/plain;CharSet = latin1 ;x=y", Some("latin1")),
            ("text/plain; charset=\"utf-8\"", Some("utf-8")),
            (r#"text/plain; x="a;charset=no\";charset=no"; charset=yes"#, Some("yes")),
            (r#"text/plain; charset="a\"b""#, Some("a\"b")),
            ("text/plain; charset", None),
            ("charset=x", None),
            ("text/plain;;charset=a;charset=b", Some("a")),
        ] {
            assert_eq!(parameter(value, "charset").as_deref(), want, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = parameter(&text, "charset");
            for name in ["utf-8", "latin1", "ascii", "utf-16", "shift_jis", "gb18030", "windows-1252"] {
                let charset = Charset::named(name).unwrap();
                let _ = charset.decode(Cow::Borrowed(&bytes));
                let written = charset.encode(Cow::Borrowed(&text));
                if let (Some(written), false) = (written, matches!(charset, Charset::Other(_))) {
                    proptest::prop_assert_eq!(charset.decode(written.into()).unwrap(), text.clone());
                }
            }
        }
    }
}
