//! The TOML file of an application: the side-car `shop.toml` beside `shop.so`, or `app.toml` in an exploded folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use wharf_kernel::launch::Kind;
use wharf_kernel::options::{CgiOptions, FastCgiOptions, Options, ProxyOptions, SessionOptions, WebOptions};
use wharf_kernel::toml_error;

/// What an application's TOML file may say. Every key may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppToml {
    /// Context path, instead of the one from the name.
    pub context_path: Option<String>,
    /// Name of the virtual host, instead of the one whose folder it is in.
    pub host: Option<String>,
    /// Init parameters: strings, numbers or booleans.
    pub init: BTreeMap<String, InitValue>,
    /// False keeps it from being started. Default true.
    pub enabled: bool,
    /// Place in the load order: lower ones first, equal ones in parallel. Default 0.
    pub order: i64,
    /// A path inside the application that must answer a GET with a 2xx status before traffic moves to a new generation.
    pub health: Option<String>,
    /// How long its start, and the health check after it, may take.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Option<Duration>,
    /// How long its stop may take.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Option<Duration>,
    /// Threads of the module's own runtime.
    pub runtime_threads: Option<usize>,
    /// Threads for blocking servlets.
    pub blocking_threads: Option<usize>,
    /// Not of a side-car file: what the application is.
    pub kind: Option<Kind>,
    /// `app.toml` alone: the module's file in the folder. Default: the only `.so` there.
    pub module: Option<PathBuf>,
    /// Not of a side-car file: the document root. Default the folder itself.
    pub root: Option<PathBuf>,
    /// For the kind `cgi`.
    pub cgi: Option<CgiOptions>,
    /// For the kinds `fastcgi` and `aspnet`.
    pub fastcgi: Option<FastCgiOptions>,
    /// For the kind `proxy`.
    pub proxy: Option<ProxyOptions>,
    /// Its sessions.
    pub session: SessionOptions,
}

impl Default for AppToml {
    fn default() -> Self {
        Self {
            context_path: None,
            host: None,
            init: BTreeMap::new(),
            enabled: true,
            order: 0,
            health: None,
            start_timeout: None,
            stop_timeout: None,
            runtime_threads: None,
            blocking_threads: None,
            kind: None,
            module: None,
            root: None,
            cgi: None,
            fastcgi: None,
            proxy: None,
            session: SessionOptions::default(),
        }
    }
}

impl AppToml {
    /// Reads the text of the file called `path`.
    ///
    /// # Errors
    /// What is wrong, with file, line, column and caret.
    pub fn parse(path: &str, text: &str, place: Place) -> Result<Self, String> {
        let app: Self = toml_error::parse(path, text)?;
        if place == Place::SideCar {
            for (key, given) in
                [("kind", app.kind.is_some()), ("module", app.module.is_some()), ("root", app.root.is_some())]
            {
                if given {
                    return Err(format!(
                        "{path}: '{key}' is a key of app.toml in a folder or of a TOML file without a module, not of a side-car file"
                    ));
                }
            }
        }
        if let Some(health) = &app.health
            && let Err(error) = wharf_mapping::canonicalise(health)
        {
            return Err(format!("{path}: health = \"{health}\": {error}"));
        }
        for (key, value) in [("runtime_threads", app.runtime_threads), ("blocking_threads", app.blocking_threads)] {
            if value == Some(0) {
                return Err(format!("{path}: {key} must be at least 1"));
            }
        }
        for (key, value) in [("module", &app.module), ("root", &app.root)] {
            let inside = |p: &PathBuf| {
                p.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir))
            };
            if place == Place::Folder && value.as_ref().is_some_and(|p| !inside(p)) {
                return Err(format!("{path}: {key} must be a path inside the folder, without '..'"));
            }
        }
        let (cgi, fastcgi, proxy) = (app.cgi.is_some(), app.fastcgi.is_some(), app.proxy.is_some());
        for (key, given, fits) in [
            ("cgi", cgi, app.kind == Some(Kind::Cgi)),
            ("fastcgi", fastcgi, matches!(app.kind, Some(Kind::Fastcgi | Kind::Aspnet))),
            ("proxy", proxy, app.kind == Some(Kind::Proxy)),
        ] {
            if given && !fits {
                return Err(format!("{path}: [{key}] needs kind = \"{key}\""));
            }
        }
        Ok(app)
    }

    /// What it says to the part that runs the application.
    pub fn options(&self) -> Options {
        Options {
            cgi: self.cgi.clone(),
            fastcgi: self.fastcgi.clone(),
            proxy: self.proxy.clone(),
            session: self.session.clone(),
            web: WebOptions::default(),
        }
    }
}

/// Where a TOML file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Beside a module of the same name.
    SideCar,
    /// In the folder that it describes, as `app.toml`.
    Folder,
    /// Alone in the deploy folder.
    Alone,
}

/// The value of an init parameter. All arrive in the application as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitValue(pub String);

impl<'de> Deserialize<'de> for InitValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = InitValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<InitValue, E> {
                Ok(InitValue(v.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }

            fn visit_bool<E: de::Error>(self, v: bool) -> Result<InitValue, E> {
                Ok(InitValue(v.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_files() {
        let text = "context_path = \"/x\"\norder = -1\nstart_timeout = \"3s\"\n[init]\na = 1\nb = true\nc = \"t\"\n";
        let app = AppToml::parse("shop.toml", text, Place::SideCar).unwrap();
        assert_eq!(app.start_timeout, Some(Duration::from_secs(3)));
        let init: Vec<_> = app.init.values().map(|v| v.0.as_str()).collect();
        assert_eq!(init, ["1", "true", "t"]);
        assert!(AppToml::parse("x/app.toml", "kind = \"static\"\nroot = \"public\"", Place::Folder).is_ok());
    }

    #[test]
    fn bad_files_show_the_place() {
        for (text, place, word) in [
            ("helth = \"/\"", Place::SideCar, "did you mean 'health'"),
            ("order = \"a\"", Place::SideCar, "shop.toml:1:9"),
            ("kind = \"static\"", Place::SideCar, "not of a side-car"),
            ("kind = \"statc\"", Place::Folder, "did you mean 'static'"),
            ("root = \"../x\"", Place::Folder, "inside the folder"),
            ("health = \"nope\"", Place::SideCar, "health"),
            ("start_timeout = \"3 parsecs\"", Place::SideCar, "shop.toml:1:17"),
            ("[init]\na = []", Place::SideCar, "shop.toml:2:5"),
            ("kind = \"cgi\"\n[proxy]", Place::Alone, "needs kind = \"proxy\""),
            ("runtime_threads = 0", Place::SideCar, "at least 1"),
        ] {
            let error = AppToml::parse("shop.toml", text, place).unwrap_err();
            assert!(error.contains(word), "no {word:?} in:\n{error}");
        }
    }
}
