//! Which names below a document root are never served, whatever case they are written in.

/// True when the decoded path names something private: a dot file (`.git`, `.env`; `/.well-known/` of RFC 8615 is
/// public), the application's own `app.toml` or folder `APP-PRIVATE`, a module, or an editor's backup.
pub(crate) fn is_hidden(path: &str) -> bool {
    path.split('/').filter(|segment| !segment.is_empty()).enumerate().any(|(depth, segment)| {
        let name = segment.to_lowercase();
        let bare = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".br")).unwrap_or(&name);
        (name.starts_with('.') && !(depth == 0 && name == ".well-known"))
            || bare == "app.toml"
            || name == "app-private"
            || bare.ends_with(".so")
            || name.ends_with('~')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_are_hidden_in_any_case() {
        let hidden = [
            "/.env",
            "/.git/config",
            "/a/.htaccess",
            "/app.toml",
            "/APP.Toml",
            "/x.so",
            "/a/X.SO",
            "/x.so.gz",
            "/app.toml.br",
            "/APP-PRIVATE/key",
            "/app-private",
            "/index.html~",
            "/a/.well-known/x",
        ];
        for path in hidden {
            assert!(is_hidden(path), "{path}");
        }
        for path in ["/", "/index.html", "/a.b/c", "/.well-known/security.txt", "/sofa.sock", "/app.toml.html", "/soso"]
        {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
