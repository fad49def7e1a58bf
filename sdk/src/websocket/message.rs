//! What is sent and received on a WebSocket, and why one was closed.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use tokio_tungstenite::tungstenite;
use tungstenite::Utf8Bytes;
use tungstenite::protocol::CloseFrame;

/// Text of a message: UTF-8 that is cheap to clone, so that one message can go to many.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Utf8Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

/// A message. Pings are answered, and fragments put together, before it comes to this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// The text, of a text message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The content, whatever it is.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Message> for tungstenite::Message {
    fn from(message: Message) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.0),
            Message::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl Message {
    /// `None` for what is no message of the application.
    pub(super) fn of(message: tungstenite::Message) -> Option<Self> {
        match message {
            tungstenite::Message::Text(text) => Some(Self::Text(Text(text))),
            tungstenite::Message::Binary(bytes) => Some(Self::Binary(bytes)),
            _ => None,
        }
    }
}

/// Why a WebSocket is closed (RFC 6455, section 7.1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// Close code: 1000 for a normal end, 1001 when the client leaves or the application has to end, 1005 when the client
    /// gave none, 1006 when the connection was lost.
    pub code: u16,
    /// For people to read; mostly empty.
    pub text: String,
}

impl CloseReason {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The connection was lost without a goodbye.
    pub(super) fn lost(text: impl Into<String>) -> Self {
        Self::new(1006, text)
    }

    pub(super) fn of(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::new(frame.code.into(), frame.reason.as_str()),
            None => Self::new(1005, ""),
        }
    }

    /// As it goes over the wire. The reason is cut to the 123 bytes that a close frame can carry.
    pub(super) fn frame(&self) -> CloseFrame {
        let mut end = self.text.len().min(123);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        CloseFrame { code: self.code.into(), reason: self.text[..end].into() }
    }

    /// Whether an application may send this code: one of those that mean something to the other side, or of those that are
    /// left to applications (RFC 6455, section 7.4).
    pub(super) fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_close_frame_and_stays_text() {
        let frame = CloseReason::new(4000, "ä".repeat(100)).frame();
        assert_eq!((u16::from(frame.code), frame.reason.len()), (4000, 122));
        assert_eq!(CloseReason::of(None).code, 1005);
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(!CloseReason::may_be_sent(code), "{code}");
        }
    }
}
