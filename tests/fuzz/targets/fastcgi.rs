//! Records of a FastCGI application, and the pairs in them.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wharf_gateway::codec;

fuzz_target!(|bytes: &[u8]| {
    let mut from = BytesMut::from(bytes);
    while let Ok(Some(_)) = codec::take(&mut from) {}
    codec::end_request(bytes);
    if let Some(pairs) = codec::pairs(bytes) {
        let mut again = Vec::new();
        pairs.iter().for_each(|(name, value)| codec::put_pair(&mut again, name, value));
        assert_eq!(codec::pairs(&again), Some(pairs));
    }
});
