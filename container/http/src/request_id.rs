//! Request ids: short, unique within and (very likely) across processes, and made without a lock or a system call.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use wharf_kernel::{RequestId, per_thread};

/// Digits that tell the threads of all processes apart, and those that count.
const PREFIX: usize = 8;
const ID: usize = 16;

thread_local! {
    /// What this thread's ids begin with, and the number of the last one. Of the thread, not of a worker, whose connections may be another thread's
    /// by now: so they are counted without an atomic step.
    static LAST: Cell<([u8; PREFIX], u32)> = Cell::new((prefix(), 0));
}

/// Six hexadecimal digits drawn once and two of the thread's number: the applications tell their requests apart by the id. The hasher's keys
/// are random for the thread.
fn prefix() -> [u8; PREFIX] {
    let thread = per_thread::number();
    let random = RandomState::new().hash_one((thread, std::process::id(), std::time::SystemTime::now()));
    digits((random as u32) << 8 | (thread as u32 & 0xff))
}

/// Eight hexadecimal digits, all of them at once.
#[inline]
fn digits(number: u32) -> [u8; 8] {
    /// The same in each byte.
    const fn all(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    // A digit in the lower half of each byte.
    let mut digits = u64::from(number);
    digits = (digits << 16 | digits) & 0x0000_ffff_0000_ffff;
    digits = (digits << 8 | digits) & 0x00ff_00ff_00ff_00ff;
    digits = (digits << 4 | digits) & all(0x0f);
    // One in each byte whose digit is a letter.
    let letters = (digits + all(6)) >> 4 & all(1);
    (digits + all(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// The next id of this thread.
#[inline]
pub(crate) fn next() -> RequestId {
    let (prefix, last) = LAST.get();
    let number = last.wrapping_add(1);
    LAST.set((prefix, number));
    let mut id = [0; ID];
    id[..PREFIX].copy_from_slice(&prefix);
    id[PREFIX..].copy_from_slice(&digits(number));
    std::str::from_utf8(&id).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hexadecimal() {
        let ids = || (0..1000).map(|_| next().to_string()).collect::<Vec<_>>();
        let other = std::thread::spawn(ids);
        let all: std::collections::HashSet<_> = ids().into_iter().chain(other.join().unwrap()).collect();
        assert_eq!(all.len(), 2000);
        assert!(all.iter().all(|id| id.len() == ID && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn ids_count_up() {
        for number in [0, 9, 15, 16, 0x00c0_ffee, 0x9a9a_a9a9, u32::MAX - 1] {
            LAST.set((*b"01234567", number));
            assert_eq!(&*next(), format!("01234567{:08x}", number + 1));
        }
        assert_eq!((digits(u32::MAX), &*next()), (*b"ffffffff", "0123456700000000"));
    }
}
