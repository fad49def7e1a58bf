//! `?` stands for a parameter with every engine; PostgreSQL wants `$1`, `$2`.

use std::borrow::Cow;

/// Numbers the question marks of `sql`, except in texts, quoted names and comments. `??` becomes a question mark.
pub(super) fn numbered(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    let bytes = sql.as_bytes();
    let mut out = String::with_capacity(sql.len() + 8);
    let (mut at, mut copied, mut number) = (0, 0, 0);
    while at < bytes.len() {
        let next = match bytes[at] {
            b'?' => {
                out.push_str(&sql[copied..at]);
                let doubled = bytes.get(at + 1) == Some(&b'?');
                if doubled {
                    out.push('?');
                } else {
                    number += 1;
                    out.push('$');
                    out.push_str(&number.to_string());
                }
                copied = at + 1 + usize::from(doubled);
                copied
            }
            quote @ (b'\'' | b'"') => {
                let escapes = quote == b'\'' && is_escape_string(bytes, at);
                quoted(bytes, at, quote, escapes)
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => comment(bytes, at),
            b'$' => dollar_quoted(sql, at),
            _ => at + 1,
        };
        at = next;
    }
    out.push_str(&sql[copied..]);
    Cow::Owned(out)
}

/// `E'...'`, in which a backslash takes its meaning from the next character.
fn is_escape_string(bytes: &[u8], quote: usize) -> bool {
    let Some(before) = quote.checked_sub(1) else { return false };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    matches!(bytes[before], b'e' | b'E') && before.checked_sub(1).is_none_or(|b| !word(bytes[b]))
}

/// The place after a quoted text that begins at `start`.
fn quoted(bytes: &[u8], start: usize, quote: u8, escapes: bool) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The place after a comment that begins at `start`. They nest.
fn comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_u32);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            (b'*', Some(b'/')) => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The place after `$tag$...$tag$`, or after the dollar sign where it is something else.
fn dollar_quoted(sql: &str, start: usize) -> usize {
    let rest = &sql[start + 1..];
    let Some(end) = rest.find('$') else { return start + 1 };
    let tag = &rest[..end];
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_') && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return start + 1;
    }
    let delimiter = &sql[start..start + end + 2];
    let inside = start + delimiter.len();
    sql[inside..].find(delimiter).map_or(sql.len(), |n| inside + n + delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_numbered_outside_of_quotes_and_comments() {
        for (sql, want) in [
            ("select 1", "select 1"),
            ("select ? + ?", "select $1 + $2"),
            ("a ?? b = ?", "a ? b = $1"),
            ("'?' || ?", "'?' || $1"),
            ("'it''s ?' = ?", "'it''s ?' = $1"),
            (r"E'\'?' = ?", r"E'\'?' = $1"),
            (r"'\' = ?", r"'\' = $1"),
            (r#""a?" = ?"#, r#""a?" = $1"#),
            ("? -- what?\n, ?", "$1 -- what?\n, $2"),
            ("/* ? /* ? */ ? */ ?", "/* ? /* ? */ ? */ $1"),
            ("$$ ? $$, ?", "$$ ? $$, $1"),
            ("$a$ ? $$ ? $a$, ?", "$a$ ? $$ ? $a$, $1"),
            ("$1 + ?", "$1 + $1"),
            ("'open ?", "'open ?"),
            ("/* open ?", "/* open ?"),
            ("$x$ open ?", "$x$ open ?"),
            ("ä? 'ö?' ?", "ä$1 'ö?' $2"),
        ] {
            assert_eq!(numbered(sql), want, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_changed(sql in r#"[?'"$ab/*\\ -]{0,40}"#) {
            let out = numbered(&sql);
            let bare = |text: &str| text.replace(|c: char| c == '?' || c == '$' || c.is_ascii_digit(), "");
            prop_assert_eq!(bare(&sql), bare(&out));
        }
    }
}
