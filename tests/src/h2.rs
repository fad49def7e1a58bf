//! An HTTP/2 client that sends what it is told, right or wrong: frames over a plain socket (RFC 9113).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Kinds of frames.
pub mod kind {
    #![allow(missing_docs, reason = "their names are those of the standard")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A number in its payload.
    ///
    /// # Panics
    /// When the payload is shorter.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A connection.
#[derive(Debug)]
pub struct H2 {
    stream: TcpStream,
    next: u32,
}

impl H2 {
    /// Connects and sends the preface and these settings.
    ///
    /// # Panics
    /// When it can't.
    pub fn connect(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(to).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut this = Self { stream, next: 1 };
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        this.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it is sent");
        this.send(kind::SETTINGS, 0, 0, &payload).expect("it is sent");
        this
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.raw(&frame(kind, flags, stream, payload))
    }

    /// Sends a request without a body: the header fields beside `:method GET`, `:scheme http` and these.
    ///
    /// # Errors
    /// As the socket says.
    pub fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> io::Result<u32> {
        let stream = self.stream();
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "localhost")];
        all.extend(fields);
        self.send(kind::HEADERS, 5, stream, &block(&all))?;
        Ok(stream)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// As the socket says; its end is an error.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Reads until the frame that is wanted, or the end.
    pub fn read_until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().ok()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// The status of the answer on a stream: its first header field, as the container's encoder writes it. 0 for a reset
    /// and for the end of the connection.
    pub fn status(&mut self, stream: u32) -> u16 {
        let frame = self.read_until(|f| {
            f.kind == kind::GOAWAY && f.number(4) != 0
                || f.stream == stream && matches!(f.kind, kind::HEADERS | kind::RST_STREAM)
        });
        match frame {
            Some(Frame { kind: kind::HEADERS, payload, .. }) => status(&payload),
            _ => 0,
        }
    }

    /// Reads to the end; gives the error code of the last GOAWAY.
    pub fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Ok(frame) = self.read() {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.number(4));
            }
        }
        code
    }

    /// Whether the other side has closed: reads to the end.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.read() {
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as HPACK literals that are not indexed (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            integer(&mut out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// A length with a 7-bit prefix (RFC 7541, section 5.1).
fn integer(out: &mut Vec<u8>, mut n: usize) {
    if n < 127 {
        out.push(n as u8);
        return;
    }
    out.push(127);
    n -= 127;
    while n >= 128 {
        out.push((n % 128 + 128) as u8);
        n /= 128;
    }
    out.push(n as u8);
}

/// The status in a header block: an index of the static table, or a literal that names `:status`.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let block = &block[block.iter().take_while(|b| **b >> 5 == 1).count()..];
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // Literals; the value is Huffman-coded (digits have five or six bits, RFC 7541, appendix B) or not.
        _ => {
            let (huffman, len) = (block[1] & 0x80 != 0, usize::from(block[1] & 0x7f));
            let value = &block[2..2 + len];
            if !huffman {
                return std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).unwrap_or(1);
            }
            let mut bits = value.iter().fold(0_u64, |all, b| all << 8 | u64::from(*b)) << (64 - 8 * len);
            let mut number = 0;
            for _ in 0..3 {
                let (digit, used) = match bits >> 59 {
                    short @ 0..=2 => (short as u16, 5),
                    _ => ((bits >> 58) as u16 - 0b01_1001 + 3, 6),
                };
                number = number * 10 + digit;
                bits <<= used;
            }
            number
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (block, expected) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8d], 404),
            (&[0x08, 3, b'4', b'2', b'1'], 421),
            // 302 from RFC 7541, C.6.1; 431: 6 + 6 + 5 bits 011010 011001 00001.
            (&[0x48, 0x82, 0x64, 0x02], 302),
            (&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111], 431),
        ] {
            assert_eq!(status(block), expected, "{block:?}");
        }
    }
}
