//! A picture that a guest leaves: taken from an upload by what it is, not by what its name or the browser says.

use wharf_sdk::{Error, Part, Response};

/// Bytes of a picture.
pub(crate) const LARGEST: usize = 1 << 20;

/// A picture in one of the formats that every browser shows and that carry no scripts.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    content_type: &'static str,
    content: Vec<u8>,
}

impl Picture {
    /// The picture in this part of an upload; `None` when it is none.
    ///
    /// # Errors
    /// As those of [`Part::bytes_up_to`].
    pub(crate) async fn of(part: &Part) -> Result<Option<Self>, Error> {
        let content: Vec<u8> = part.bytes_up_to(LARGEST).await?.into();
        Ok(kind(&content).map(|content_type| Self { content_type, content }))
    }

    /// The answer that shows it.
    pub(crate) fn response(&self) -> Result<Response, Error> {
        // It never changes, and another one never gets its address.
        Response::typed(self.content_type, self.content.clone())
            .header("cache-control", "private, max-age=86400, immutable")
    }
}

/// The type by the first bytes.
fn kind(content: &[u8]) -> Option<&'static str> {
    match content {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        let rows: [(&[u8], Option<&str>); 6] = [
            (b"\x89PNG\r\n\x1a\nrest", Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF89a", Some("image/gif")),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"<svg onload=alert(1)>", None),
            (b"", None),
        ];
        for (content, expected) in rows {
            assert_eq!(kind(content), expected, "{content:?}");
        }
    }
}
