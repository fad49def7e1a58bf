//! Errors in TOML files as people like them: file, line, column, the line itself with a caret, and a guess.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// Reads `text`, the content of the file called `path`.
///
/// # Errors
/// A message of several lines that shows where the text is wrong and, for an unknown key, which key was probably meant.
pub fn parse<T: serde::de::DeserializeOwned>(path: &str, text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|e| render(path, text, e.message(), e.span()))
}

/// Draws an error at `span` of `text`. Without a span it is one line.
pub fn render(path: &str, text: &str, message: &str, span: Option<Range<usize>>) -> String {
    let guess = guess(message);
    let Some(span) = span.filter(|s| s.start <= text.len() && s.end <= text.len()) else {
        let guess = guess.map(|g| format!(" (did you mean '{g}'?)")).unwrap_or_default();
        return format!("{path}: {}{guess}", first_line(message));
    };
    let label = match &guess {
        Some(guess) => format!("did you mean '{guess}'?"),
        None => "here".to_owned(),
    };
    let report = Level::ERROR.primary_title(first_line(message)).element(
        Snippet::source(text).path(path).line_start(1).annotation(AnnotationKind::Primary.span(span).label(&label)),
    );
    Renderer::plain().render(&[report])
}

/// The known name nearest to `name`, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// The guess for a message of serde about an unknown name: it lists the known ones in back quotes.
pub fn guess(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    nearest(wrong, quoted).map(str::to_owned)
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its shape is used")]
    struct Shape {
        listen: String,
        workers: Option<u16>,
    }

    #[test]
    fn errors_show_the_place_and_a_guess() {
        for (text, place, caret, word) in [
            ("listen = \"a\"\nworkrs = 3\n", "f.toml:2:1", "^^^^^^", "did you mean 'workers'?"),
            ("listen = \"a\"\nworkers = \"x\"\n", "f.toml:2:11", "^^^", "invalid type"),
            ("listen = \n", "f.toml:1:", "^", "f.toml"),
            ("listen = \"a\"\nworkers = 70000\n", "f.toml:2:11", "^^^^^", "70000"),
        ] {
            let error = parse::<Shape>("f.toml", text).unwrap_err();
            for part in [place, caret, word] {
                assert!(error.contains(part), "no {part:?} in:\n{error}");
            }
        }
    }

    #[test]
    fn far_names_are_not_guessed() {
        assert_eq!(nearest("workrs", ["listen", "workers"]), Some("workers"));
        assert_eq!(nearest("dri", ["dir", "drain_timeout"]), Some("dir"));
        assert_eq!(nearest("zzz", ["listen", "workers"]), None);
    }
}
