//! Rust text without its comments and literals, line for line: what is left can be searched for words.

/// The same text with comments and the insides of string and character literals blanked out. Lines stay where they are.
pub(crate) fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let (skipped, length) = match rest {
            ['/', '/', ..] => (true, line_end(rest)),
            ['/', '*', ..] => (true, comment_end(rest)),
            ['"', ..] => (true, string_end(rest)),
            ['r', '"' | '#', ..] if !out.ends_with(word_char) => match raw_string_end(rest) {
                Some(end) => (true, end),
                None => (false, 1),
            },
            ['\'', '\\', ..] => (true, 2 + rest[3..].iter().position(|c| *c == '\'').map_or(1, |p| p + 2)),
            ['\'', _, '\'', ..] => (true, 3),
            _ => (false, 1),
        };
        let length = length.min(rest.len());
        for c in &rest[..length] {
            out.push(if skipped && *c != '\n' { ' ' } else { *c });
        }
        at += length;
    }
    out
}

fn word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn comment_end(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string_end(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_end(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    let close = (open + 1..rest.len()).find(|at| closes(*at)).unwrap_or(rest.len());
    Some(close + 1 + hashes)
}

/// Whether `word` stands in `text` as a word or path of its own: `std::fs` in `std::fs::read`, not in `std::fsx`.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(word_char) && !text[at + word.len()..].starts_with(word_char))
}

/// What bare code imports from `std` in groups, as full paths: `std::fs` for `use std::{fs, io}`.
pub(crate) fn grouped_std(bare: &str) -> Vec<String> {
    let squeezed: String = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut all = Vec::new();
    for (at, opening) in squeezed.match_indices("std::{") {
        let (mut depth, mut item) = (1, String::new());
        for c in squeezed[at + opening.len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                all.push(format!("std::{}", item.trim()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        for (text, left) in [
            ("a // unsafe\nb", "a\nb"),
            ("a /* unsafe /* x */ \n unsafe */ b", "a\nb"),
            (r#"a("unsafe \" x", b)"#, "a(, b)"),
            ("a(r#\"unsafe \" x\"#, b)", "a(, b)"),
            ("for<'a> fn(&'a str) '\\'' '\"' unsafe", "for<'a> fn(&'a str)   unsafe"),
            ("let c = '\\u{1F600}'; unsafe", "let c = ; unsafe"),
            ("var\"x\"", "var"),
            ("\"open", ""),
        ] {
            let words = |t: &str| t.split_whitespace().collect::<Vec<_>>().join(" ");
            let got = bare(text);
            assert_eq!(got.chars().count(), text.chars().count(), "{text}");
            assert_eq!(got.lines().count(), text.lines().count(), "{text}");
            assert_eq!(words(&got).replace("( ,", "(,"), words(left), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("std::fs::read(x)", "std::fs"));
        assert!(!has_word("std::fsx::read(x)", "std::fs"));
        assert!(!has_word("wharf_httpd", "wharf_http"));
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            grouped_std("use std::{fs::{self, File},\n  io, net::IpAddr};"),
            ["std::fs::{self, File}", "std::io", "std::net::IpAddr"]
        );
    }
}
