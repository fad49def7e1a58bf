//! Texts that are short in most cases.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arrayvec::ArrayString;

/// Bytes that have room in place. With their length they are 32, which processors move in one shape.
const SHORT: usize = 28;

/// A text that stands in place where it has at most 28 bytes: a copy costs neither memory nor a reference count then.
///
/// There is a place for either form. In one that both share, a tag stands beside the bytes, and they are moved in pieces that are
/// not those in which they were written: the processor waits for each of them.
#[derive(Clone, Default)]
pub struct ShortText {
    /// Where it is longer; the other is empty then.
    long: Option<Arc<str>>,
    short: ArrayString<SHORT>,
}

impl Deref for ShortText {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.long {
            None => &self.short,
            Some(long) => long,
        }
    }
}

impl From<&str> for ShortText {
    #[inline]
    fn from(text: &str) -> Self {
        match ArrayString::from(text) {
            Ok(short) => Self { long: None, short },
            Err(_) => Self { long: Some(text.into()), short: ArrayString::new_const() },
        }
    }
}

impl From<String> for ShortText {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Arc<str>> for ShortText {
    fn from(text: Arc<str>) -> Self {
        match ArrayString::from(&text) {
            Ok(short) => Self { long: None, short },
            Err(_) => Self { long: Some(text), short: ArrayString::new_const() },
        }
    }
}

impl From<std::borrow::Cow<'_, str>> for ShortText {
    fn from(text: std::borrow::Cow<'_, str>) -> Self {
        (*text).into()
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ShortText {}

impl PartialEq<str> for ShortText {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_however_long_it_is() {
        for len in [0, 1, SHORT - 1, SHORT, SHORT + 1, 1000] {
            let text = "\u{e9}".repeat(len / 2) + &"a".repeat(len % 2);
            for made in [ShortText::from(&*text), text.clone().into(), Arc::<str>::from(&*text).into()] {
                assert_eq!((&*made, made.long.is_some(), &made.clone()), (&*text, len > SHORT, &made));
            }
        }
    }

    #[test]
    fn it_is_moved_in_whole_pieces() {
        assert_eq!(size_of::<ShortText>() % 16, 0);
    }
}
