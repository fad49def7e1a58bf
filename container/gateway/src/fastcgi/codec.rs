//! The records of FastCGI 1.0: bytes in, records out, and back. No sockets here, so that both ends of a test can use it.
//!
//! Why our own: the crates that there are (`fastcgi-client`, `tokio-fastcgi`, `async-fcgi`) bind their records to a client or a
//! server of theirs, with its own idea of connections and of how much is kept in memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a record's header (section 3.3).
pub const HEADER: usize = 8;
/// Most bytes of a record's content.
pub const MOST: usize = 65535;

/// Types of records (section 8).
pub mod kind {
    /// Begins a request.
    pub const BEGIN_REQUEST: u8 = 1;
    /// Gives it up.
    pub const ABORT_REQUEST: u8 = 2;
    /// Ends it, from the application.
    pub const END_REQUEST: u8 = 3;
    /// Its parameters.
    pub const PARAMS: u8 = 4;
    /// Its content.
    pub const STDIN: u8 = 5;
    /// The response.
    pub const STDOUT: u8 = 6;
    /// For the log.
    pub const STDERR: u8 = 7;
    /// Second stream of a Filter.
    pub const DATA: u8 = 8;
    /// Asks for facts about the application.
    pub const GET_VALUES: u8 = 9;
    /// Its answer.
    pub const GET_VALUES_RESULT: u8 = 10;
    /// The answer to what it does not know.
    pub const UNKNOWN_TYPE: u8 = 11;
}

/// What an application is to be for a request (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers it.
    Responder = 1,
    /// Decides whether it may be answered.
    Authorizer = 2,
}

/// How the application says that a request ended (section 5.5).
pub mod protocol_status {
    /// As it should.
    pub const REQUEST_COMPLETE: u8 = 0;
    /// One connection carries one request with it.
    pub const CANT_MPX_CONN: u8 = 1;
    /// It has too much to do.
    pub const OVERLOADED: u8 = 2;
    /// The role is none of its.
    pub const UNKNOWN_ROLE: u8 = 3;
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its type, one of [`kind`] or another.
    pub kind: u8,
    /// The request that it belongs to; 0 for the application itself.
    pub id: u16,
    /// Its content, without padding.
    pub content: Bytes,
}

/// Takes the first record out of what was read. `None` while it is not whole; then at most [`MOST`] bytes, a header and padding are kept.
///
/// # Errors
/// The version, where it is not 1.
pub fn take(from: &mut BytesMut) -> Result<Option<Record>, u8> {
    let Some(&[version, kind, id_high, id_low, high, low, padding, _]) = from.first_chunk::<HEADER>() else {
        return match from.first() {
            None | Some(1) => Ok(None),
            Some(other) => Err(*other),
        };
    };
    if version != 1 {
        return Err(version);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = HEADER + length + usize::from(padding);
    if from.len() < whole {
        from.reserve(whole - from.len());
        return Ok(None);
    }
    let mut record = from.split_to(whole).freeze();
    record.advance(HEADER);
    record.truncate(length);
    Ok(Some(Record { kind, id: u16::from_be_bytes([id_high, id_low]), content: record }))
}

/// The header of a record, with padding to the next eighth byte as the specification recommends. Lengths above [`MOST`] are not
/// for one record.
pub fn header(kind: u8, id: u16, length: u16) -> [u8; HEADER] {
    let [id_high, id_low] = id.to_be_bytes();
    let [high, low] = length.to_be_bytes();
    [1, kind, id_high, id_low, high, low, padding(length), 0]
}

/// How much padding follows so much content.
pub fn padding(length: u16) -> u8 {
    // Less than 8.
    ((8 - length % 8) % 8).to_le_bytes()[0]
}

/// Writes content as one or more records; none where there is no content.
pub fn put(to: &mut BytesMut, kind: u8, id: u16, content: &[u8]) {
    // Of a size that needs no padding.
    for part in content.chunks(MOST - MOST % 8) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        to.put_slice(&header(kind, id, length));
        to.put_slice(part);
        to.put_bytes(0, usize::from(padding(length)));
    }
}

/// Writes the empty record that ends a stream.
pub fn put_end(to: &mut BytesMut, kind: u8, id: u16) {
    to.put_slice(&header(kind, id, 0));
}

/// Writes the beginning of a request (section 5.1).
pub fn put_begin(to: &mut BytesMut, id: u16, role: Role, keep: bool) {
    put(to, kind::BEGIN_REQUEST, id, &[0, role as u8, u8::from(keep), 0, 0, 0, 0, 0]);
}

/// Writes the end of a request (section 5.5).
pub fn put_end_request(to: &mut BytesMut, id: u16, app_status: u32, protocol_status: u8) {
    let [a, b, c, d] = app_status.to_be_bytes();
    put(to, kind::END_REQUEST, id, &[a, b, c, d, protocol_status, 0, 0, 0]);
}

/// Reads the end of a request: the application's status and the protocol's. `None` where it is none.
pub fn end_request(content: &[u8]) -> Option<(u32, u8)> {
    match content {
        &[a, b, c, d, protocol, _, _, _] => Some((u32::from_be_bytes([a, b, c, d]), protocol)),
        _ => None,
    }
}

/// Writes a name and a value (section 3.4). Neither can be longer than 2 GiB; what is longer is left out.
pub fn put_pair(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let length = |length: usize| u32::try_from(length).ok().filter(|l| *l < 1 << 31);
    if let (Some(name_length), Some(value_length)) = (length(name.len()), length(value.len())) {
        for length in [name_length, value_length] {
            match u8::try_from(length) {
                Ok(short @ ..128) => to.push(short),
                _ => to.extend_from_slice(&(length | 1 << 31).to_be_bytes()),
            }
        }
        to.extend_from_slice(name);
        to.extend_from_slice(value);
    }
}

/// Reads names and values. `None` where the bytes are not whole pairs.
pub fn pairs(mut from: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    fn length(from: &mut &[u8]) -> Option<usize> {
        let (&first, rest) = from.split_first()?;
        if first < 128 {
            *from = rest;
            return Some(first.into());
        }
        let (long, rest) = from.split_first_chunk::<4>()?;
        *from = rest;
        usize::try_from(u32::from_be_bytes(*long) & !(1 << 31)).ok()
    }
    let mut found = Vec::new();
    while !from.is_empty() {
        let (name, value) = (length(&mut from)?, length(&mut from)?);
        let (name, rest) = from.split_at_checked(name)?;
        let (value, rest) = rest.split_at_checked(value)?;
        from = rest;
        found.push((name, value));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        let mut out = BytesMut::new();
        put_begin(&mut out, 1, Role::Responder, true);
        assert_eq!(&out[..], [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
        let mut pair = Vec::new();
        put_pair(&mut pair, b"SERVER_PORT", b"80");
        assert_eq!(&pair[..], b"\x0b\x02SERVER_PORT80");
        pair.clear();
        put_pair(&mut pair, b"A", &[b'x'; 128]);
        assert_eq!(&pair[..6], b"\x01\x80\0\0\x80A");
        let mut end = BytesMut::new();
        put_end_request(&mut end, 7, 258, protocol_status::OVERLOADED);
        let record = take(&mut end).unwrap().unwrap();
        assert_eq!((record.id, end_request(&record.content)), (7, Some((258, 2))));
        assert_eq!(end_request(&[0; 7]), None);
    }

    #[test]
    fn another_version_is_refused_at_its_first_byte() {
        for bytes in [&b"HTTP/1.1 400 Bad"[..], b"\x02", b"\0"] {
            assert_eq!(take(&mut BytesMut::from(bytes)), Err(bytes[0]));
        }
        assert_eq!(take(&mut BytesMut::new()), Ok(None));
    }

    proptest! {
        /// Records come out as they went in, however they are split on the way.
        #[test]
        fn what_is_put_is_taken(
            parts in proptest::collection::vec((1_u8..12, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..6),
            cut in 1_usize..40,
        ) {
            let mut sent = BytesMut::new();
            for (kind, id, content) in &parts {
                if content.is_empty() { put_end(&mut sent, *kind, *id) } else { put(&mut sent, *kind, *id, content) }
            }
            prop_assert_eq!(sent.len() % 8, 0);
            let (mut read, mut records) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(cut) {
                read.extend_from_slice(piece);
                while let Some(record) = take(&mut read).unwrap() {
                    records.push((record.kind, record.id, record.content.to_vec()));
                }
            }
            prop_assert_eq!(records, parts);
            prop_assert!(read.is_empty());
        }

        #[test]
        fn long_content_is_split(length in 60_000_usize..140_000) {
            let content = vec![7; length];
            let (mut sent, mut whole) = (BytesMut::new(), 0);
            put(&mut sent, kind::STDIN, 1, &content);
            while let Some(record) = take(&mut sent).unwrap() {
                prop_assert!(!record.content.is_empty());
                whole += record.content.len();
            }
            prop_assert_eq!(whole, length);
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pairs(&bytes);
            let mut read = BytesMut::from(&bytes[..]);
            while let Ok(Some(record)) = take(&mut read) {
                prop_assert!(record.content.len() <= bytes.len());
            }
        }

        #[test]
        fn pairs_come_back(given in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), proptest::collection::vec(any::<u8>(), 0..200)), 0..6)) {
            let mut bytes = Vec::new();
            for (name, value) in &given {
                put_pair(&mut bytes, name, value);
            }
            let read: Vec<_> = pairs(&bytes).unwrap().into_iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, given);
            if !bytes.is_empty() {
                prop_assert!(pairs(&bytes[..bytes.len() - 1]).is_none() || bytes.ends_with(&[0, 0]));
            }
        }
    }
}
