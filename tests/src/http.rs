//! A client that reads HTTP/1.1 by the letter and hides nothing: no retries, no redirects.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Content.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first field of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends after it.
    pub fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"))
    }
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Client<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

impl Client {
    /// Connects; nothing may take longer than 20 seconds.
    ///
    /// # Errors
    /// As the socket says.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }
}

impl Client<UnixStream> {
    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// As the socket says.
    pub fn connect_unix(to: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(180)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }
}

impl<S: Read + Write> Client<S> {
    /// A client of what is connected already.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.send("GET", target, &[], b"")
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// Whatever is not a whole answer.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.write(method, target, headers, body)?;
        self.read(method)
    }

    /// Sends a request. `Host: localhost` and the length are added where they are not given.
    ///
    /// # Errors
    /// As the socket says.
    pub fn write(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("host") {
            text.push_str("Host: localhost\r\n");
        }
        if !given("content-length") && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads the answer to a request with this method.
    ///
    /// # Errors
    /// Whatever is not a whole answer.
    pub fn read(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.read_head()?;
        if method == "HEAD" || matches!(answer.status, 100..200 | 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
            while let Some(mut chunk) = self.read_chunk()? {
                answer.body.append(&mut chunk);
            }
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| wrong("Content-Length is no number"))?;
            answer.body.resize(length, 0);
            self.stream.read_exact(&mut answer.body)?;
        } else {
            self.stream.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Reads status and header fields alone.
    ///
    /// # Errors
    /// Whatever is not the head of an answer.
    pub fn read_head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| wrong(&format!("a status line was expected, not {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Answer { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a header field without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads one chunk; `None` after the last.
    ///
    /// # Errors
    /// Whatever is not a chunk.
    pub fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| wrong("a chunk size is no number"))?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        if self.line()?.is_empty() {
            return Ok((size > 0).then_some(chunk));
        }
        Err(wrong("a chunk has no end"))
    }

    /// Reads so many bytes of a body and forgets them.
    ///
    /// # Errors
    /// When it ends before.
    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.stream.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(wrong(&format!("the body ended after {skipped} bytes"))) }
    }

    /// All that still comes, to the end of the connection.
    ///
    /// # Errors
    /// When it does not end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(wrong("a line does not end with CR LF")),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
