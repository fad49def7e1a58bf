//! The content of a request, read whole: as bytes, text, JSON, a form, parameters.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::charset::Charset;
use crate::{Error, Parameters, Request};

/// Content longer than this is refused with 413 by the methods that read all of it, unless they are told another limit.
pub const DEFAULT_CONTENT_LIMIT: usize = 2 * 1024 * 1024;

impl Request {
    /// All the content, at most [`DEFAULT_CONTENT_LIMIT`]. It is gone afterwards.
    ///
    /// # Errors
    /// 413 when there is more, 400 when it breaks off.
    pub async fn bytes(&mut self) -> Result<Bytes, Error> {
        self.bytes_up_to(DEFAULT_CONTENT_LIMIT).await
    }

    /// All the content, at most so many bytes. It is gone afterwards.
    ///
    /// # Errors
    /// 413 when there is more, 400 when it breaks off.
    pub async fn bytes_up_to(&mut self, limit: usize) -> Result<Bytes, Error> {
        let too_large = || Error::too_large(format!("the content is longer than {limit} bytes"));
        if self.content_length().is_some_and(|len| len > limit as u64) {
            return Err(too_large());
        }
        let broken = |error: crate::BoxError| Error::bad_request("the content broke off").with_source(error);
        let mut body = self.take_body();
        let Some(first) = body.chunk().await.transpose().map_err(broken)? else {
            *self.body_mut() = body.ended();
            return Ok(Bytes::new());
        };
        let mut all: Option<BytesMut> = None;
        if first.len() > limit {
            return Err(too_large());
        }
        while let Some(chunk) = body.chunk().await.transpose().map_err(broken)? {
            let all = all.get_or_insert_with(|| BytesMut::from(&first[..]));
            if all.len() + chunk.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&chunk);
        }
        *self.body_mut() = body.ended();
        Ok(all.map_or(first, BytesMut::freeze))
    }

    /// All the content as text, in the charset that the `Content-Type` names; UTF-8 where it names none.
    ///
    /// # Errors
    /// As [`Request::bytes`]; 415 when the charset is not known, 400 when the content is no text in it.
    pub async fn text(&mut self) -> Result<String, Error> {
        let charset = Charset::of(self.content_type())?;
        let bytes: Vec<u8> = self.bytes().await?.into();
        let text = charset.decode(Cow::Owned(bytes)).map(Cow::into_owned);
        text.ok_or_else(|| match self.character_encoding() {
            Some(name) => Error::bad_request(format!("the content is not text in the charset {name}")),
            None => Error::bad_request("the content is not UTF-8 text"),
        })
    }

    /// All the content, read as JSON, which is always UTF-8 (RFC 8259, section 8.1).
    ///
    /// # Errors
    /// As [`Request::bytes`]; 415 when the `Content-Type` is not JSON, 400 when it is not well formed, 422 when it does
    /// not fit the type.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        if !self.content_type().is_some_and(is_json) {
            return Err(Error::unsupported_media_type("expected content of type application/json"));
        }
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            Error::new(status, format!("JSON: {error}"))
        })
    }

    /// All the content, read as a form (`application/x-www-form-urlencoded`), in the charset that the `Content-Type` names.
    ///
    /// # Errors
    /// As [`Request::bytes`]; 415 when the `Content-Type` is not that of a form or its charset is not known, 400 when it is
    /// not well formed, 422 when it does not fit the type.
    pub async fn form<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        if !self.has_form() {
            return Err(Error::unsupported_media_type("expected content of type application/x-www-form-urlencoded"));
        }
        let charset = Charset::of(self.content_type())?;
        let mut bytes = self.bytes().await?;
        let parameters = Parameters::parse_in(&bytes, charset)?;
        if charset != Charset::Utf8 {
            let pairs: Vec<_> = parameters.iter().collect();
            bytes = serde_urlencoded::to_string(pairs)?.into();
        }
        serde_urlencoded::from_bytes(&bytes).map_err(|error| Error::unprocessable(format!("form: {error}")))
    }

    /// Whether its content says that it is a form.
    pub(crate) fn has_form(&self) -> bool {
        self.content_type().is_some_and(is_form)
    }

    /// All parameters: those of the query first, then those of a form in the content
    /// (`application/x-www-form-urlencoded`), which is read and gone afterwards (Servlet 6.1, section 3.1).
    ///
    /// # Errors
    /// 400 when they can't be read or there are more than 1,000, 413 when the form is longer than
    /// [`DEFAULT_CONTENT_LIMIT`], 415 when its charset is not known.
    pub async fn parameters(&mut self) -> Result<Parameters, Error> {
        let mut parameters = Parameters::parse(self.parameter_query().as_bytes())?;
        if self.has_form() {
            let charset = Charset::of(self.content_type())?;
            parameters.extend(&self.bytes().await?, charset)?;
        }
        Ok(parameters)
    }
}

pub(crate) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_form(content_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type).to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_parameters_and_case() {
        assert!(is_form("Application/X-WWW-form-urlencoded; charset=UTF-8"));
        assert!(is_json("application/problem+json"));
        assert!(!is_json("text/json+x"));
        assert!(!is_form("multipart/form-data"));
    }
}
