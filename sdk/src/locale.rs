//! The languages a client wants, by `Accept-Language`.

/// Language tags in the order of preference (RFC 9110, section 12.5.4): by quality, then as sent. Those with quality 0, `*`, and
/// what is not well formed are left out.
pub(crate) fn languages<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranges: Vec<(&str, u16)> = values.flat_map(|value| value.split(',')).filter_map(range).collect();
    ranges.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    ranges.into_iter().map(|(tag, _)| tag).collect()
}

fn range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let tag = parts.next().filter(|tag| is_tag(tag))?;
    let mut thousandths = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_once('=')?;
        if name.trim_end().eq_ignore_ascii_case("q") {
            thousandths = quality(value.trim_start())?;
        }
    }
    (thousandths > 0).then_some((tag, thousandths))
}

/// A language range (RFC 4647, section 2.1) without `*`.
fn is_tag(tag: &str) -> bool {
    tag.split('-').enumerate().all(|(at, part)| {
        let fits = |byte: u8| if at == 0 { byte.is_ascii_alphabetic() } else { byte.is_ascii_alphanumeric() };
        (1..=8).contains(&part.len()) && part.bytes().all(fits)
    })
}

/// A `qvalue` in thousandths (RFC 9110, section 12.4.2).
fn quality(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{digits:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}
