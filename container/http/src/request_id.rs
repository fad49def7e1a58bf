//! Request ids: short, unique within and (very likely) across processes, and made without a lock or a system call.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_kernel::RequestId;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes the ids of one worker: six hexadecimal digits drawn once, two of the worker's number, then a counter.
pub(crate) struct RequestIds {
    prefix: [u8; 8],
    /// Used by one thread alone, so that it costs next to nothing.
    next: AtomicU64,
}

impl RequestIds {
    /// Ids with a prefix of their own: the applications tell their requests apart by the id. The hasher's keys are random for
    /// the process.
    pub(crate) fn new(worker: usize) -> Self {
        let random = RandomState::new().hash_one((worker, std::process::id(), std::time::SystemTime::now()));
        let mut prefix = std::array::from_fn(|i| HEX[(random >> (4 * i)) as usize & 15]);
        prefix[6..].copy_from_slice(&[HEX[worker >> 4 & 15], HEX[worker & 15]]);
        Self { prefix, next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> RequestId {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 16];
        text[..8].copy_from_slice(&self.prefix);
        for (i, digit) in text[8..].iter_mut().enumerate() {
            *digit = HEX[(n >> (4 * (7 - i))) as usize & 15];
        }
        RequestId::new_inline(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hexadecimal() {
        let (a, b) = (RequestIds::new(0), RequestIds::new(1));
        let ids: std::collections::HashSet<_> = (0..1000).flat_map(|_| [a.next(), b.next()]).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
