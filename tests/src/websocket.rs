//! A WebSocket client that sends what it is told, right or wrong, frame by frame.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Answer;

/// An open WebSocket.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The first byte: FIN, reserved bits, opcode.
    pub first: u8,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame, 1005 where it has none; `None` for another frame.
    pub fn close_code(&self) -> Option<u16> {
        (self.first == 0x88).then(|| match self.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        })
    }
}

/// The headers of a handshake that is right in every respect.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    // The example of RFC 6455, section 1.3.
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The answer to that key.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl RawSocket {
    /// Opens one, with these header fields beside those of [`HANDSHAKE`].
    ///
    /// # Errors
    /// As the socket says; what is answered, where it is no 101.
    pub fn open(to: SocketAddr, target: &str, more: &[(&str, &str)]) -> io::Result<Self> {
        Self::open_with(to, target, more).map(|(socket, _)| socket)
    }

    /// As [`RawSocket::open`], with the answer.
    ///
    /// # Errors
    /// As [`RawSocket::open`].
    pub fn open_with(to: SocketAddr, target: &str, more: &[(&str, &str)]) -> io::Result<(Self, Answer)> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n");
        HANDSHAKE.iter().chain(more).for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        // Byte by byte: what follows the head belongs to the socket.
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let field = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
        let answer = Answer { status, headers: lines.filter_map(field).collect(), body: Vec::new() };
        if status == 101 { Ok((Self { stream }, answer)) } else { Err(io::Error::other(text)) }
    }

    /// Sends a frame, masked as a client has to, with this first byte.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        self.send_bytes(&bytes)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// As the socket says.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.send(0x81, text.as_bytes())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// When the connection ends, or the frame is masked.
    pub fn recv(&mut self) -> io::Result<Frame> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len)?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.stream.read_exact(&mut len)?;
                u64::from_be_bytes(len) as usize
            }
            len @ 0..=125 => usize::from(len),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a server's frame is masked")),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { first: head[0], payload })
    }

    /// The text of the next message.
    ///
    /// # Panics
    /// When the next frame is no text message.
    pub fn recv_text(&mut self) -> String {
        let frame = self.recv().expect("a frame");
        assert_eq!(frame.first, 0x81, "{frame:?}");
        String::from_utf8(frame.payload).expect("text")
    }

    /// Reads to the close frame, answers it, and waits for the end of the connection. The code.
    ///
    /// # Errors
    /// When the connection ends before, or does not end after.
    pub fn closed(&mut self) -> io::Result<u16> {
        loop {
            let frame = self.recv()?;
            if let Some(code) = frame.close_code() {
                // A server that failed the connection may have closed it already.
                let _ = self.send(0x88, &frame.payload);
                return match self.stream.read(&mut [0]) {
                    Ok(0) => Ok(code),
                    Ok(_) => Err(io::Error::other("data after a close frame")),
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(code),
                    Err(e) => Err(e),
                };
            }
        }
    }

    /// Waits for the end of the connection, with or without a close frame. Whether there was one.
    ///
    /// # Errors
    /// When there is no end.
    pub fn ended(&mut self) -> io::Result<bool> {
        let mut said = false;
        loop {
            match self.recv() {
                Ok(frame) => said |= frame.close_code().is_some(),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Err(e),
                Err(_) => return Ok(said),
            }
        }
    }
}
