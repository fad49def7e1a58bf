//! The Host header (RFC 9110, section 7.2): `uri-host [":" port]`, read strictly.

use std::fmt;
use std::net::Ipv6Addr;

/// A valid host with its optional port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// The host as written: a name, an IPv4 address, or an IPv6 address in brackets.
    pub host: &'a str,
    /// The port, `None` when absent or empty.
    pub port: Option<u16>,
}

/// Why a Host value is refused. The answer is status 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// It is empty.
    Empty,
    /// It is longer than 255 bytes, port included.
    TooLong,
    /// A label of the name is empty, or starts or ends with a hyphen.
    BadLabel,
    /// It has a character that may not stand in a host name.
    BadCharacter,
    /// The part in brackets is not an IPv6 address.
    BadIpv6,
    /// What follows the host is not `:` and a number up to 65535.
    BadPort,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the host is empty",
            Self::TooLong => "the host is longer than 255 bytes",
            Self::BadLabel => "a part of the host name is empty, or starts or ends with a hyphen",
            Self::BadCharacter => "the host has a character that may not stand in a host name",
            Self::BadIpv6 => "the host is not a valid IPv6 address",
            Self::BadPort => "the port is not a number up to 65535",
        })
    }
}

impl std::error::Error for HostError {}

/// Reads the value of a Host header or the authority of a request target.
///
/// Names are letters, digits, hyphens and underscores in labels that neither start nor end with a hyphen; one dot at the
/// end is allowed. User information, percent-encoding and zone ids are not.
///
/// # Errors
/// What is wrong with it.
///
/// ```
/// let host = wharf_mapping::parse_host("[::1]:8080").unwrap();
/// assert_eq!((host.host, host.port), ("[::1]", Some(8080)));
/// assert!(wharf_mapping::parse_host("a b").is_err());
/// ```
pub fn parse_host(text: &str) -> Result<HostPort<'_>, HostError> {
    if text.is_empty() {
        return Err(HostError::Empty);
    }
    if text.len() > 255 {
        return Err(HostError::TooLong);
    }
    let end = if let Some(inner) = text.strip_prefix('[') {
        let end = inner.find(']').ok_or(HostError::BadIpv6)?;
        inner[..end].parse::<Ipv6Addr>().map_err(|_| HostError::BadIpv6)?;
        end + 2
    } else {
        let end = text.find(':').unwrap_or(text.len());
        check_name(&text[..end])?;
        end
    };
    let port = match text[end..].strip_prefix(':') {
        None if end == text.len() => None,
        None => return Err(HostError::BadPort),
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| HostError::BadPort)?)
        }
        Some(_) => return Err(HostError::BadPort),
    };
    Ok(HostPort { host: &text[..end], port })
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    // One pass: `previous` is the byte before, a dot at the start so that a leading dot or hyphen is an error.
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if previous == b'.' || previous == b'-' => return Err(HostError::BadLabel),
            b'-' if previous == b'.' => return Err(HostError::BadLabel),
            b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => previous = byte,
            _ => return Err(HostError::BadCharacter),
        }
    }
    if previous == b'-' { Err(HostError::BadLabel) } else { Ok(()) }
}
