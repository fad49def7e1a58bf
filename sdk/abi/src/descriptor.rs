//! The descriptor: what a module says of itself, as TOML text in an ELF section of its own, so that it can be read
//! without running anything.

/// The ELF section.
pub const DESCRIPTOR_SECTION: &str = ".wharf.descriptor";

/// First line of the text; the number changes when the text can no longer be read as before.
pub const DESCRIPTOR_MAGIC: &str = "# wharf module descriptor 1\n";

/// The length of all the parts together.
pub const fn total_len(parts: &[&str]) -> usize {
    let mut len = 0;
    let mut i = 0;
    while i < parts.len() {
        len += parts[i].len();
        i += 1;
    }
    len
}

/// All the parts as one array; `N` is [`total_len`] of them.
///
/// # Panics
/// At compile time, when `N` is another number.
pub const fn concat<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    let mut i = 0;
    while i < parts.len() {
        let part = parts[i].as_bytes();
        let mut j = 0;
        while j < part.len() {
            out[at] = part[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    assert!(at == N);
    out
}
