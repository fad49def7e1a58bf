//! The PROXY protocol, versions 1 and 2: the first bytes of a connection, in which a balancer says whom it speaks for.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use wharf_kernel::Connection;
use wharf_worker::timeout;

use crate::forwarded::is_trusted;
use crate::homed::Homed;

/// How long the header may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest header of version 1, its line end included.
const V1_MAX: usize = 107;
/// The longest rest of version 2 that is read: addresses and what balancers add to them.
const V2_MAX: usize = 4096;

/// Whom a connection is from, and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// The balancer's own, as for its health checks: the addresses of the connection itself apply.
    Local,
    /// Another's.
    For(SocketAddr, SocketAddr),
}

/// Reads the header, and no byte more.
///
/// # Errors
/// What is no header, is cut off, or is too long.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Spoken> {
    let mut bytes = vec![0; 12];
    stream.read_exact(&mut bytes).await?;
    if bytes == v2::PROTOCOL_PREFIX {
        bytes.resize(16, 0);
        stream.read_exact(&mut bytes[12..]).await?;
        let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if rest > V2_MAX {
            return Err(wrong(&format!("its length of {rest} bytes is more than {V2_MAX}")));
        }
        bytes.resize(16 + rest, 0);
        stream.read_exact(&mut bytes[16..]).await?;
        let header = v2::Header::try_from(&bytes[..]).map_err(|e| wrong(&e.to_string()))?;
        if header.command == v2::Command::Local {
            return Ok(Spoken::Local);
        }
        return Ok(match header.addresses {
            v2::Addresses::IPv4(a) => Spoken::For(
                (a.source_address, a.source_port).into(),
                (a.destination_address, a.destination_port).into(),
            ),
            v2::Addresses::IPv6(a) => Spoken::For(
                (a.source_address, a.source_port).into(),
                (a.destination_address, a.destination_port).into(),
            ),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Spoken::Local,
        });
    }
    if !bytes.starts_with(b"PROXY ") {
        return Err(wrong("the connection does not begin with one"));
    }
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() >= V1_MAX {
            return Err(wrong("it is longer than 107 bytes"));
        }
        bytes.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(&bytes[..]).map_err(|e| wrong(&e.to_string()))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(a) => {
            Spoken::For((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())
        }
        v1::Addresses::Tcp6(a) => {
            Spoken::For((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())
        }
        v1::Addresses::Unknown => Spoken::Local,
    })
}

/// Reads the header of a connection, which becomes the one that the header speaks of. `None` when it is refused.
pub(crate) async fn introduced(
    mut stream: Homed<TcpStream>,
    connection: Connection,
    trusted: &[IpNet],
) -> Option<(Homed<TcpStream>, Connection)> {
    let remote = &*connection.remote_text;
    if !is_trusted(trusted, connection.remote) {
        tracing::warn!(remote, "refused: only server.trusted_proxies may connect where the PROXY protocol is spoken");
        return None;
    }
    match timeout(TIMEOUT, read(&mut stream)).await {
        Some(Ok(Spoken::Local)) => Some((stream, connection)),
        Some(Ok(Spoken::For(client, local))) => {
            let mut introduced = Connection::new(Some(client), Some(local), false);
            introduced.peer = connection.peer;
            Some((stream, introduced))
        }
        Some(Err(error)) => {
            tracing::warn!(remote, "refused: {error}");
            None
        }
        None => {
            tracing::warn!(remote, "refused: no PROXY protocol header in {TIMEOUT:?}");
            None
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no valid PROXY protocol header: {what}"))
}

/// Reads a header out of these bytes, for the fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn fuzz(mut bytes: &[u8]) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let read = std::pin::pin!(read(&mut bytes));
    assert!(std::future::Future::poll(read, &mut context).is_ready(), "bytes in memory are always there");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(mut bytes: &[u8]) -> (io::Result<Spoken>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(read(&mut bytes));
        (result, bytes.len())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn good_headers_are_read_to_their_end() {
        let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
        let expected = Spoken::For("1.2.3.4:80".parse().unwrap(), "5.6.7.8:443".parse().unwrap());
        let with_tlv = [&four[..], &[4, 0, 1, 9]].concat();
        for (bytes, spoken) in [
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n".to_vec(), expected),
            (b"PROXY UNKNOWN\r\n".to_vec(), Spoken::Local),
            (b"PROXY UNKNOWN ff.. anything 1 2\r\n".to_vec(), Spoken::Local),
            (
                b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec(),
                Spoken::For("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap()),
            ),
            (v2(0x21, 0x11, &four), expected),
            (v2(0x21, 0x11, &with_tlv), expected),
            (v2(0x20, 0, &[]), Spoken::Local),
        ] {
            let (result, left) = parse(&[&bytes[..], b"GET / "].concat());
            assert_eq!((result.unwrap(), left), (spoken, 6), "{bytes:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80\r\nGET".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80 99999\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 80 90\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80 90\n\r\n".to_vec(),
            b"PROXY TCP9 1.2.3.4 5.6.7.8 80 90\r\n".to_vec(),
            [b"PROXY ", &[b'x'; 200][..]].concat(),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 3]),
            v2(0x21, 0x11, &[0; 5000]),
            v2(0x21, 0x11, &[0; 12])[..20].to_vec(),
        ] {
            assert!(parse(&bytes).0.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), head in 0usize..3) {
            let head: &[u8] = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][head];
            let _ = parse(&[head, &bytes].concat());
        }
    }
}
