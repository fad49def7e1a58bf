//! PostgreSQL's `numeric` as it is sent: digits to the base 10,000, and how many of the decimal ones are to be shown.
//!
//! The driver's type for it forgets the last of these, so that 1.50 would come back as 1.5000.

/// The number as text, as PostgreSQL itself writes it. `None` where the bytes are none.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let field = |at: usize| Some(i16::from_be_bytes(bytes.get(2 * at..2 * at + 2)?.try_into().ok()?));
    let count = usize::try_from(field(0)?).ok()?;
    let weight = i32::from(field(1)?);
    let negative = match field(2)? as u16 {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    };
    let scale = usize::try_from(field(3)?).ok()?;
    let digits: Vec<i16> = (0..count).map(|n| field(4 + n)).collect::<Option<_>>()?;
    // The group with this weight: 10,000 to the power of it.
    let group = |weight_of: i32| {
        usize::try_from(weight - weight_of).ok().and_then(|at| digits.get(at)).copied().unwrap_or_default()
    };
    let mut out = String::new();
    if negative {
        out.push('-');
    }
    out.push_str(&group(weight.max(0)).to_string());
    for weight_of in (0..weight.max(0)).rev() {
        out.push_str(&format!("{:04}", group(weight_of)));
    }
    if scale > 0 {
        let groups = scale.div_ceil(4) as i32;
        let fraction: String = (1..=groups).map(|n| format!("{:04}", group(-n))).collect();
        out.push('.');
        out.push_str(fraction.get(..scale)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &[u16]) -> Option<String> {
        text(&fields.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_are_written_as_postgresql_does() {
        for (fields, want) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 3], "0.000"),
            (&[1, 0, 0, 0, 7], "7"),
            (&[2, 0, 0, 2, 1, 5000], "1.50"),
            (&[1, 1, 0x4000, 0, 12], "-120000"),
            (&[3, 1, 0, 1, 1, 2, 3000], "10002.3"),
            (&[1, 0xFFFF, 0, 4, 25], "0.0025"),
            (&[1, 0xFFFE, 0, 8, 1], "0.00000001"),
            (&[1, 0xFFFF, 0, 2, 2500], "0.25"),
            (&[0, 0, 0xC000, 0], "NaN"),
            (&[0, 0, 0xF000, 0], "-Infinity"),
        ] {
            assert_eq!(sent(fields).as_deref(), Some(want), "{fields:?}");
        }
        for bad in [&[0, 0, 0][..], &[2, 0, 0, 0, 1], &[0, 0, 1, 0], &[0xFFFF, 0, 0, 0]] {
            assert_eq!(sent(bad), None, "{bad:?}");
        }
    }
}
