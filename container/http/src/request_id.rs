//! Request ids: short, unique within and (very likely) across processes, and made without a lock or a system call.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use wharf_kernel::{RequestId, per_thread};

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Digits that tell the threads of all processes apart, and those that count.
const PREFIX: usize = 8;
const ID: usize = 16;

thread_local! {
    /// The last id of this thread. Of the thread, not of a worker, whose connections may be another thread's by now: so it is counted without an
    /// atomic step.
    static LAST: Cell<[u8; ID]> = Cell::new(first());
}

/// Six hexadecimal digits drawn once and two of the thread's number: the applications tell their requests apart by the id. The hasher's keys
/// are random for the thread.
fn first() -> [u8; ID] {
    let thread = per_thread::number();
    let random = RandomState::new().hash_one((thread, std::process::id(), std::time::SystemTime::now()));
    let mut id = [b'0'; ID];
    for (i, digit) in id[..PREFIX].iter_mut().enumerate() {
        *digit = HEX[(random >> (4 * i)) as usize & 15];
    }
    id[PREFIX - 2..PREFIX].copy_from_slice(&[HEX[thread >> 4 & 15], HEX[thread & 15]]);
    id
}

/// The next id of this thread.
#[inline]
pub(crate) fn next() -> RequestId {
    let mut id = LAST.get();
    for digit in id[PREFIX..].iter_mut().rev() {
        *digit = match *digit {
            b'9' => b'a',
            b'f' => b'0',
            digit => digit + 1,
        };
        if *digit != b'0' {
            break;
        }
    }
    LAST.set(id);
    RequestId::new_inline(std::str::from_utf8(&id).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hexadecimal() {
        let ids = || (0..1000).map(|_| next()).collect::<Vec<_>>();
        let other = std::thread::spawn(ids);
        let all: std::collections::HashSet<_> = ids().into_iter().chain(other.join().unwrap()).collect();
        assert_eq!(all.len(), 2000);
        assert!(all.iter().all(|id| id.len() == ID && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn ids_count_up() {
        LAST.set(*b"0123456700000009");
        let next: Vec<_> = (0..24).map(|_| next()).collect();
        assert_eq!((&*next[0], &*next[6], &*next[22]), ("012345670000000a", "0123456700000010", "0123456700000020"));
        LAST.set(*b"01234567ffffffff");
        assert_eq!(super::next(), "0123456700000000");
    }
}
