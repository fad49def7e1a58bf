//! Values that stand elsewhere: `${env:NAME}` and `${file:PATH}`.

/// Puts in what stands elsewhere.
///
/// # Errors
/// What can't be read, by its name, never by its value.
pub fn expand(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or_else(|| "a '${' without its '}'".to_owned())?;
        out.push_str(&look_up(&inside[..end])?);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(reference: &str) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) => std::env::var(name).map_err(|_| format!("environment variable {name} is not set")),
        Some(("file", path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            // An editor's line feed is not part of it.
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        _ => Err(format!("'${{{reference}}}' is neither ${{env:NAME}} nor ${{file:PATH}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        let file = format!("${{file:{}}}", path.display());
        assert_eq!(expand("plain").unwrap(), "plain");
        assert_eq!(expand(&file).unwrap(), "hush");
        assert_eq!(expand(&format!("a{file}b{file}")).unwrap(), "ahushbhush");
        assert_eq!(expand("${env:HOME}").unwrap(), std::env::var("HOME").unwrap());
        for (text, word) in [
            ("${env:WHARF_NO_SUCH_VARIABLE}", "WHARF_NO_SUCH_VARIABLE"),
            ("${file:/no/such/file}", "/no/such/file"),
            ("${x}", "neither"),
            ("${env:A", "without"),
        ] {
            assert!(expand(text).unwrap_err().contains(word), "{text}");
        }
    }
}
