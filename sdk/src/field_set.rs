//! Sets of header fields. A client sends the same ones with most of its requests, and many clients send the same.

use std::sync::OnceLock;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::field_name::{LONGEST, field_name};

/// How many are remembered.
const PLACES: usize = 64;
/// Larger ones are not, nor are those with a name that is not remembered.
const MOST: usize = 32;

/// Tables without values, each where its names say; the first that comes has the place.
static KNOWN: [OnceLock<HeaderMap>; PLACES] = [const { OnceLock::new() }; PLACES];

fn place<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let last = |name: &str| name.as_bytes().last().map_or(0, |byte| usize::from(*byte));
    names.fold(0_usize, |all, name| all.wrapping_mul(31).wrapping_add(5 * name.len() + last(name))) % PLACES
}

/// A table of fields with these names, in lower case, and values. What is no name is left out, as is its value.
///
/// Where a table with the same names was made before, a copy of it gets the values: no name is looked up in it.
pub(crate) fn table<'a>(
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
    values: impl Iterator<Item = HeaderValue>,
) -> HeaderMap {
    let known = &KNOWN[place(names.clone())];
    match known.get() {
        Some(set) if set.len() == names.len() && set.keys().map(HeaderName::as_str).eq(names.clone()) => {
            let mut map = set.clone();
            map.values_mut().zip(values).for_each(|(place, value)| *place = value);
            map
        }
        Some(_) => made(names, values),
        None => {
            let map = made(names.clone(), values);
            remember(known, names, &map);
            map
        }
    }
}

fn made<'a>(names: impl ExactSizeIterator<Item = &'a str>, values: impl Iterator<Item = HeaderValue>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(names.len());
    for (name, value) in names.zip(values) {
        if let Some(name) = field_name(name.as_bytes()) {
            map.append(name, value);
        }
    }
    map
}

#[cold]
fn remember<'a>(known: &OnceLock<HeaderMap>, names: impl ExactSizeIterator<Item = &'a str> + Clone, map: &HeaderMap) {
    // Each name once, so that the values stand in the order of the names.
    let count = names.len();
    if count > MOST || map.keys_len() != count || names.clone().any(|name| name.len() > LONGEST) {
        return;
    }
    let mut set = HeaderMap::with_capacity(count);
    // Asked for once more: what is remembered costs no reference count.
    for name in names.filter_map(|name| field_name(name.as_bytes())) {
        set.insert(name, HeaderValue::from_static(""));
    }
    let _ = known.set(set);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let values = fields.iter().map(|(_, value)| HeaderValue::from_str(value).unwrap());
        let map = table(fields.iter().map(|(name, _)| *name), values);
        map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_table_is_the_same_however_often_its_names_come() {
        let long = "x-".repeat(60);
        let many: Vec<String> = (0..50).map(|at| format!("x-many-{at}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "v")).collect();
        let sets: [&[(&str, &str)]; 8] = [
            &[],
            &[("host", "a")],
            &[("host", "a"), ("x-own", "1"), ("accept", "*/*")],
            &[("accept", "*/*"), ("x-own", "1"), ("host", "a")],
            &[("cookie", "a=1"), ("cookie", "b=2")],
            &[("host", "a"), ("set", "1"), ("set", "2"), ("x", "")],
            &[("host", "a"), (&long, "1")],
            &many,
        ];
        for round in ["", "0", "1"] {
            for set in sets {
                let fields: Vec<_> = set.iter().map(|(name, value)| (*name, format!("{value}{round}"))).collect();
                let expected: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
                assert_eq!(table_of(&fields), expected);
            }
        }
    }

    #[test]
    fn a_table_that_was_copied_can_be_searched_and_changed() {
        for _ in 0..3 {
            let names = ["host", "x-a", "x-b"];
            let mut map = table(names.into_iter(), names.map(HeaderValue::from_static).into_iter());
            names.iter().for_each(|name| assert_eq!(map[*name], *name));
            map.append("x-a", HeaderValue::from_static("2"));
            (0..40).for_each(|at| _ = map.insert(HeaderName::try_from(format!("x-new-{at}")).unwrap(), at.into()));
            assert_eq!((map.get_all("x-a").iter().count(), map.len()), (2, 44));
            map.remove("host");
            assert!(!map.contains_key("host") && map.contains_key("x-new-39"));
        }
    }

    #[test]
    fn what_is_no_name_is_left_out() {
        for _ in 0..2 {
            assert_eq!(table_of(&[("host", "a"), ("no name", "b"), ("x", "c")]).len(), 2);
        }
    }

    #[test]
    fn more_sets_than_there_are_places() {
        for _ in 0..2 {
            for number in 0..500 {
                let name = format!("x-set-{number}");
                assert_eq!(table_of(&[("host", "a"), (&name, "b")])[1], (name.clone(), "b".to_owned()));
            }
        }
    }
}
