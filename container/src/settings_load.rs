//! Reads the settings: defaults, files, environment and command line, each over the one before, each checked by itself so
//! that an error names the place it comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Config, File, FileFormat};
use wharf_kernel::settings::Settings;
use wharf_kernel::toml_error;

use crate::cli::Global;
use crate::failure::Failure;

/// Beginning of the environment variables that are settings; `__` also separates the parts of a key.
const PREFIX: &str = "WHARF__";

/// The settings in force, and where they come from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub(crate) settings: Settings,
    /// Where each key that is not a default was set: `server.listen` to `wharf.toml`.
    pub(crate) origins: BTreeMap<String, String>,
}

/// One source of settings as TOML text.
struct Layer {
    origin: String,
    text: String,
}

/// Reads the settings for the command line and the environment of this process.
///
/// # Errors
/// A usage failure with everything that is to be said.
pub(crate) fn load(global: &Global) -> Result<Loaded, Failure> {
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    load_from(Path::new("."), global, environment).map_err(Failure::usage)
}

/// The same for any folder and environment.
fn load_from(
    dir: &Path,
    global: &Global,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, String> {
    let mut layers = Vec::new();
    let main = global.config.clone().unwrap_or_else(|| dir.join("wharf.toml"));
    if global.config.is_some() || main.exists() {
        layers.push(file(&main)?);
    }
    for path in fragments(main.parent().unwrap_or(dir))? {
        layers.push(file(&path)?);
    }
    let mut environment: Vec<_> = environment.into_iter().filter(|(k, _)| k.starts_with(PREFIX)).collect();
    environment.sort();
    for (name, value) in environment {
        let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        layers.push(single(format!("environment variable {name}"), &key, &value)?);
    }
    for set in &global.set {
        let (key, value) = set.split_once('=').ok_or_else(|| format!("--set {set}: write --set KEY=VALUE"))?;
        layers.push(single(format!("--set {set}"), key.trim(), value)?);
    }
    merge(&layers)
}

/// The files of `wharf.d`, in order of their names.
fn fragments(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let dir = dir.join("wharf.d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", dir.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "toml") && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file(path: &Path) -> Result<Layer, String> {
    let shown = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let text = fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    toml_error::parse::<Settings>(&shown, &text)?;
    Ok(Layer { origin: shown, text })
}

/// A layer of one key. The value is TOML where that makes sense for the key, else it is text.
fn single(origin: String, key: &str, value: &str) -> Result<Layer, String> {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !key.split('.').all(part) {
        return Err(format!("{origin}: '{key}' is not a key; keys look like server.listen"));
    }
    let quoted = format!("{key} = {}\n", toml::Value::String(value.to_owned()));
    let raw = format!("{key} = {value}\n");
    // A line break in the value could smuggle in other keys.
    let is_toml = !value.contains(['\n', '\r']) && toml::from_str::<toml::Table>(&raw).is_ok();
    let mut errors = Vec::new();
    for text in is_toml.then_some(raw).into_iter().chain([quoted]) {
        match toml::from_str::<Settings>(&text) {
            Ok(_) => return Ok(Layer { origin, text }),
            Err(error) => errors.push(toml_error::render(&origin, "", error.message(), None)),
        }
    }
    Err(errors.swap_remove(0))
}

fn merge(layers: &[Layer]) -> Result<Loaded, String> {
    let mut builder = Config::builder();
    let mut origins = BTreeMap::new();
    for layer in layers {
        builder = builder.add_source(File::from_str(&layer.text, FileFormat::Toml));
        let table: toml::Table = toml::from_str(&layer.text).map_err(|e| format!("{}: {e}", layer.origin))?;
        for key in leaves("", &table) {
            origins.insert(key, layer.origin.clone());
        }
    }
    let settings: Settings =
        builder.build().and_then(Config::try_deserialize).map_err(|e| format!("the merged configuration: {e}"))?;
    settings.check().map_err(|(key, what)| {
        let origin = origins.get(&key).map_or("default", String::as_str);
        format!("{key} ({origin}): {what}")
    })?;
    Ok(Loaded { settings, origins })
}

/// The full names of all keys whose value is no table.
pub(crate) fn leaves(prefix: &str, table: &toml::Table) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => all.extend(leaves(&name, inner)),
            _ => all.push(name),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)], environment: &[(&str, &str)], set: &[&str]) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let global = Global { set: set.iter().map(|s| (*s).to_owned()).collect(), ..Global::default() };
        load_from(dir.path(), &global, environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn nothing_at_all_is_the_default() {
        let loaded = load(&[], &[("PATH", "x")], &[]).unwrap();
        assert_eq!(loaded.settings, Settings::default());
        assert!(loaded.origins.is_empty());
    }

    #[test]
    fn later_sources_win_key_by_key() {
        let files = [
            ("wharf.toml", "[server]\nworkers = 1\ndrain_timeout = \"1s\"\n[log]\nlevel = \"warn\"\n"),
            ("wharf.d/20-b.toml", "server.workers = 3\n"),
            ("wharf.d/10-a.toml", "server.workers = 2\ndeploy.parallel = 2\n"),
            ("wharf.d/ignored.txt", "nonsense"),
        ];
        let environment = [("WHARF__DEPLOY__PARALLEL", "4"), ("WHARF__LOG__FORMAT", "json")];
        let loaded = load(&files, &environment, &["server.listen=127.0.0.1:1", "deploy.dir=123"]).unwrap();
        let s = &loaded.settings;
        assert_eq!((s.server.workers, s.deploy.parallel), (Some(3), Some(4)));
        assert_eq!(s.server.drain_timeout.as_secs(), 1);
        assert_eq!(s.server.listen[0].to_string(), "127.0.0.1:1");
        assert_eq!(s.deploy.dir, Path::new("123"));
        assert_eq!(s.log.level, "warn");
        assert!(loaded.origins["server.workers"].ends_with("20-b.toml"));
        assert_eq!(loaded.origins["deploy.parallel"], "environment variable WHARF__DEPLOY__PARALLEL");
        assert_eq!(loaded.origins["server.listen"], "--set server.listen=127.0.0.1:1");
    }

    #[test]
    fn errors_name_their_place() {
        let file = |text| load(&[("wharf.toml", text)], &[], &[]).unwrap_err();
        let environment = |k, v| load(&[], &[(k, v)], &[]).unwrap_err();
        let set = |text| load(&[], &[], &[text]).unwrap_err();
        for (error, words) in [
            (file("[server]\nlisten = \"nope\"\n"), vec!["wharf.toml:2:10", "^^^^^^", "not an address"]),
            (
                file("[server]\n\nworkrs = 2\n"),
                vec!["wharf.toml:3:1", "workrs = 2", "^^^^^^", "did you mean 'workers'?"],
            ),
            (file("[sever]\n"), vec!["wharf.toml:1:2", "did you mean 'server'?"]),
            (file("[server]\ndrain_timeout = \"30 moons\"\n"), vec!["wharf.toml:2:17", "^"]),
            (file("[log]\nformat = \"jsn\"\n"), vec!["did you mean 'json'?"]),
            (file("[server\n"), vec!["wharf.toml:1:"]),
            (environment("WHARF__SERVER__WORKRS", "1"), vec!["WHARF__SERVER__WORKRS", "did you mean 'workers'?"]),
            (environment("WHARF__SERVER__WORKERS", "many"), vec!["WHARF__SERVER__WORKERS", "invalid type"]),
            (environment("WHARF__", "1"), vec!["WHARF__", "is not a key"]),
            (set("server.workers"), vec!["--set server.workers", "KEY=VALUE"]),
            (set("deploy.parallel=0"), vec!["deploy.parallel (--set deploy.parallel=0)", "at least 1"]),
            (set("deploy.dri=x"), vec!["--set deploy.dri=x", "did you mean 'dir'?"]),
        ] {
            for word in words {
                assert!(error.contains(word), "no {word:?} in:\n{error}");
            }
        }
    }

    #[test]
    fn a_named_file_must_be_there() {
        let global = Global { config: Some("/nonexistent/wharf.toml".into()), ..Global::default() };
        assert!(load_from(Path::new("."), &global, []).unwrap_err().contains("/nonexistent/wharf.toml"));
    }
}
