//! Which of an application's files are never served, whatever case their names are written in.

/// True when a decoded path within an application names something private: a dot file (`.git`, `.env`; `/.well-known/` of
/// RFC 8615 is public), the application's own `app.toml`, a folder `APP-PRIVATE`, `WEB-INF` or `META-INF` (Servlet 6.1, section
/// 10.5), a module, or an editor's backup; compressed or not.
#[must_use]
pub fn is_private(path: &str) -> bool {
    path.split('/').filter(|segment| !segment.is_empty()).enumerate().any(|(depth, segment)| {
        let name = segment.to_lowercase();
        let bare = [".gz", ".br", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        (name.starts_with('.') && !(depth == 0 && name == ".well-known"))
            || bare == "app.toml"
            || matches!(&*name, "app-private" | "web-inf" | "meta-inf")
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
            "/app.toml.zst",
            "/APP-PRIVATE/key",
            "/app-private",
            "/WEB-INF/web.xml",
            "/web-inf/classes",
            "/a/META-INF/context.xml",
            "/index.html~",
            "/a/.well-known/x",
        ];
        for path in hidden {
            assert!(is_private(path), "{path}");
        }
        for path in ["/", "/index.html", "/a.b/c", "/.well-known/security.txt", "/sofa.sock", "/app.toml.html", "/soso"]
        {
            assert!(!is_private(path), "{path}");
        }
    }
}
