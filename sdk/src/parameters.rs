//! Request parameters: names and values from a query or a form.

use std::borrow::Cow;

use crate::Error;
use crate::charset::Charset;

/// More parameters than this are refused with 400.
pub const MAX_PARAMETERS: usize = 1_000;

/// Names and values from a query or a form, in the order sent. A name may come several times.
///
/// ```
/// use wharf_sdk::Parameters;
///
/// let parameters = Parameters::parse(b"size=L&colour=sea+green&colour=red").unwrap();
/// assert_eq!(parameters.get("size"), Some("L"));
/// assert_eq!(parameters.get_all("colour").collect::<Vec<_>>(), ["sea green", "red"]);
/// assert!(Parameters::parse(b"x=%zz").is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads `application/x-www-form-urlencoded` text.
    ///
    /// # Errors
    /// 400 when a percent sign is not followed by two hexadecimal digits, when the result is not UTF-8, or when there are
    /// more than [`MAX_PARAMETERS`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut parameters = Self::default();
        parameters.extend(text, Charset::Utf8)?;
        Ok(parameters)
    }

    pub(crate) fn parse_in(text: &[u8], charset: Charset) -> Result<Self, Error> {
        let mut parameters = Self::default();
        parameters.extend(text, charset)?;
        Ok(parameters)
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    pub(crate) fn extend(&mut self, text: &[u8], charset: Charset) -> Result<(), Error> {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if self.0.len() == MAX_PARAMETERS {
                return Err(Error::bad_request(format!("more than {MAX_PARAMETERS} parameters")));
            }
            let (name, value) = split(pair);
            let bad = || {
                Error::bad_request("a parameter is not percent-encoded text in its charset (UTF-8 unless it says so)")
            };
            let decoded = |text| decode_in(text, charset, true).ok_or_else(bad).map(Cow::into_owned);
            self.0.push((decoded(name)?, decoded(value)?));
        }
        Ok(())
    }

    /// The first value of this name in a query, without looking at the rest.
    pub(crate) fn first_in(query: &str, name: &str) -> Option<String> {
        let mut pairs = query.as_bytes().split(|byte| *byte == b'&').take(MAX_PARAMETERS).map(split);
        let (_, value) = pairs.find(|(key, _)| decode(key).is_some_and(|key| key == name))?;
        decode(value).map(Cow::into_owned)
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values of this name.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

fn decode(text: &[u8]) -> Option<Cow<'_, str>> {
    decode_in(text, Charset::Utf8, true)
}

/// Percent-decoded text. A plus is a space in queries and forms, and a plus in paths.
pub(crate) fn decode_in(text: &[u8], charset: Charset, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return charset.decode(Cow::Borrowed(text));
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => (digit(bytes.next())? << 4) | digit(bytes.next())?,
            other => *other,
        });
    }
    charset.decode(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_percent_encoded_utf_8_is_refused() {
        for bad in ["a=%", "a=%4", "a=%zz", "%gg=1", "a=%ff", "a=%c0%ae"] {
            let error = Parameters::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.status(), http::StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn there_is_a_limit() {
        let many = "a&".repeat(MAX_PARAMETERS);
        assert_eq!(Parameters::parse(many.as_bytes()).unwrap().len(), MAX_PARAMETERS);
        assert!(Parameters::parse(format!("{many}a").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_back(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..20)) {
            let text = serde_urlencoded::to_string(&pairs).unwrap();
            let read = Parameters::parse(text.as_bytes()).unwrap();
            let want: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), want);
            if let Some((name, _)) = pairs.first() {
                prop_assert_eq!(Parameters::first_in(&text, name), Some(pairs[0].1.clone()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Parameters::parse(&bytes);
        }
    }
}
