//! Names of header fields, of which most requests have the same.

use std::sync::OnceLock;

use http::header::HeaderName;

/// How many are remembered.
const PLACES: usize = 128;
/// Longer ones are not.
pub(crate) const LONGEST: usize = 64;

/// Each where its name says; the first that comes has the place.
static KNOWN: [OnceLock<HeaderName>; PLACES] = [const { OnceLock::new() }; PLACES];

fn place(name: &[u8]) -> usize {
    let at = |at: usize| name.get(at).map_or(0, |byte| usize::from(*byte));
    (name.len() + 5 * at(0) + 11 * at(name.len() / 2) + 3 * at(name.len().wrapping_sub(1))) % PLACES
}

/// The name of a field, as the container sends it: in lower case; `None` where it is none.
///
/// One that was seen before is not read again, and is shared: reading costs some 150 instructions, and an allocation where the name
/// is not a standard one.
pub(crate) fn field_name(name: &[u8]) -> Option<HeaderName> {
    let place = &KNOWN[place(name)];
    match place.get() {
        Some(known) if known.as_str().as_bytes() == name => Some(known.clone()),
        Some(_) => HeaderName::from_lowercase(name).ok(),
        None => first(place, name),
    }
}

#[cold]
fn first(place: &OnceLock<HeaderName>, name: &[u8]) -> Option<HeaderName> {
    let read = HeaderName::from_lowercase(name).ok()?;
    if name.len() <= LONGEST {
        // For as long as the module is there, and no more of them than there are places: a copy of it costs no reference count.
        let name = Box::leak(read.as_str().into());
        let _ = place.set(HeaderName::from_static(name));
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_often_it_comes() {
        let long = "x-".repeat(60);
        let names = ["host", "accept-language", "x-client", "x-other", "a", &long];
        for _ in 0..3 {
            for name in names {
                assert_eq!(
                    field_name(name.as_bytes()),
                    Some(HeaderName::from_static(Box::leak(name.into()))),
                    "{name}"
                );
            }
            for wrong in ["", "Host", "a b", "x\r", "\u{e9}"] {
                assert_eq!(field_name(wrong.as_bytes()), None, "{wrong:?}");
            }
        }
    }

    #[test]
    fn more_names_than_there_are_places() {
        for _ in 0..2 {
            for number in 0..2000 {
                let name = format!("x-{number}");
                assert_eq!(field_name(name.as_bytes()).unwrap().as_str(), name);
            }
        }
    }
}
