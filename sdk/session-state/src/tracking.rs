//! Session ids, and where a request carries one (Servlet 6.1, section 7.1).

/// Random bytes in an id: 160 bits.
pub const ID_RANDOM_BYTES: usize = 20;
/// Length of an id as text.
pub const ID_LEN: usize = ID_RANDOM_BYTES * 2;

/// The id made of these random bytes: hexadecimal, lower case.
pub fn id_from_random(random: [u8; ID_RANDOM_BYTES]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    random.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Whether this text could be an id at all. What could not is never looked up.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The values of all cookies of this name in a line of the header field `Cookie`, in their order. Names are compared with
/// case; a value in double quotes is taken without them.
pub fn in_cookies<'a, 'n>(line: &'a str, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
    line.split(';').filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        (key.trim() == name).then(|| bare.unwrap_or(value))
    })
}

/// The value of the path parameter of this name in a path as sent: `/cart;name=value?x` has it in the last segment that
/// carries one.
pub fn in_path<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let segments = path.rsplit('/');
    segments.flat_map(|s| s.split(';').skip(1)).find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

/// A link with `parameter` (`NAME=ID`) at the end of its path, for a client that takes no cookies (Servlet 6.1, section 7.1.3).
///
/// `None` where a link must stay as it is: it leads out of the application (`context` is its context path, `origin` what its absolute
/// links begin with: `https://example.org:8443`), has no path of its own, climbs with `..`, or carries the parameter already.
pub fn in_link(link: &str, parameter: &str, context: &str, origin: &str) -> Option<String> {
    let end = |text: &str| text.find(['?', '#']).unwrap_or(text.len());
    let scheme = link[..end(link)].split('/').next().is_some_and(|first| first.contains(':'));
    let begin = if scheme {
        let at = origin.len();
        link.get(..at).filter(|o| o.eq_ignore_ascii_case(origin))?;
        link[at..].starts_with('/').then_some(at)?
    } else if link.starts_with("//") {
        return None;
    } else {
        0
    };
    let end = begin + end(&link[begin..]);
    let path = &link[begin..end];
    let name = parameter.split('=').next().unwrap_or_default();
    let inside = !path.starts_with('/')
        || path.strip_prefix(context).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let climbs = path.split('/').any(|segment| segment.split(';').next() == Some(".."));
    let carries = path.split(';').skip(1).any(|p| p.split('=').next() == Some(name));
    if path.is_empty() || !inside || climbs || carries {
        return None;
    }
    Some(format!("{};{parameter}{}", &link[..end], &link[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_within_the_application_carry_the_id() {
        let rows = [
            ("/shop", Some("/shop;S=1")),
            ("/shop/a?x=1#y", Some("/shop/a;S=1?x=1#y")),
            ("a/b", Some("a/b;S=1")),
            ("./a#y", Some("./a;S=1#y")),
            ("/shop/a;v=2", Some("/shop/a;v=2;S=1")),
            ("a/b:c", Some("a/b:c;S=1")),
            ("HTTPS://Example.org:8443/shop/", Some("HTTPS://Example.org:8443/shop/;S=1")),
            ("/shop/a;S=2", None),
            ("/shop/../a", None),
            ("../a", None),
            ("/shopping", None),
            ("/", None),
            ("", None),
            ("?x=1", None),
            ("#y", None),
            ("//example.org:8443/shop/", None),
            ("https://example.org/shop/", None),
            ("https://example.org:84430/shop/", None),
            ("https://example.org:8443", None),
            ("mailto:a@example.org", None),
            ("javascript:alert(1)", None),
        ];
        for (link, expected) in rows {
            assert_eq!(in_link(link, "S=1", "/shop", "https://example.org:8443").as_deref(), expected, "{link}");
        }
        assert_eq!(in_link("/", "S=1", "", "http://a").as_deref(), Some("/;S=1"));
    }

    #[test]
    fn ids_are_160_bits_of_hexadecimal() {
        let id = id_from_random([0xa5; ID_RANDOM_BYTES]);
        assert!(is_id(&id) && id.starts_with("a5a5"), "{id}");
        for bad in ["", "../../x", &id[1..], &id.to_uppercase(), &format!("{id}0"), "\0"] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }

    /// Rows: rule, line, values. RFC 6265, section 5.4, and attack row H3.
    #[test]
    fn cookies() {
        for (rule, line, want) in [
            ("one", "S=a", vec!["a"]),
            ("among others", "x=1; S=a; y=2", vec!["a"]),
            ("duplicates keep their order", "S=a; S=b", vec!["a", "b"]),
            ("names have case", "s=a", vec![]),
            ("no prefix", "XS=a; S2=b", vec![]),
            ("quoted", "S=\"a\"", vec!["a"]),
            ("one quote is part of the value", "S=\"a", vec!["\"a"]),
            ("no value", "S; S=", vec![""]),
            ("equals sign in the value", "S=a=b", vec!["a=b"]),
            ("spaces", " S = a ;", vec!["a"]),
            ("empty pairs", ";;S=a;;", vec!["a"]),
        ] {
            assert_eq!(in_cookies(line, "S").collect::<Vec<_>>(), want, "{rule}");
        }
    }

    /// Rows: rule, path, value. Servlet 6.1, section 7.1.3.
    #[test]
    fn path_parameters() {
        for (rule, path, want) in [
            ("last segment", "/cart;sid=a", Some("a")),
            ("another parameter before", "/cart;x=1;sid=a", Some("a")),
            ("another segment", "/cart;sid=a/items", Some("a")),
            ("the last wins", "/cart;sid=a/items;sid=b", Some("b")),
            ("no prefix", "/cart;xsid=a", None),
            ("no segment by that name", "/sid=a", None),
            ("none", "/cart", None),
        ] {
            assert_eq!(in_path(path, "sid"), want, "{rule}");
        }
    }
}
