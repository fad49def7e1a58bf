//! `wharf config`: the configuration in force, with the origin of each key.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::Global;
use crate::failure::Failure;
use crate::{out, settings_load};

/// Prints it, as TOML that can be used as a configuration file, or as JSON.
pub(crate) fn show(global: &Global) -> Result<ExitCode, Failure> {
    let loaded = settings_load::load(global)?;
    if global.json {
        let all = serde_json::json!({ "settings": loaded.settings, "origins": loaded.origins });
        out::print_line(format_args!("{all:#}"))?;
    } else {
        let table = toml::Table::try_from(&loaded.settings).map_err(Failure::failed)?;
        out::print(render(&table, &loaded.origins))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(table: &toml::Table, origins: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    section(&mut text, "", table, origins);
    text
}

fn section(text: &mut String, prefix: &str, table: &toml::Table, origins: &BTreeMap<String, String>) {
    let full = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, v)| v.is_table());
    if !prefix.is_empty() && !values.is_empty() {
        let _ = writeln!(text, "\n[{prefix}]");
    }
    for (key, value) in values {
        let origin = origins.get(&full(key)).map_or("default", String::as_str);
        let _ = writeln!(text, "{key} = {value}  # {}", origin.escape_debug());
    }
    for (key, value) in tables {
        if let Some(inner) = value.as_table() {
            section(text, &full(key), inner, origins);
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_kernel::settings::Settings;

    use super::*;

    #[test]
    fn what_is_printed_can_be_read_again() {
        let text =
            "[server]\nlisten = [\"127.0.0.1:1\", \"unix:/x\"]\n[[host]]\nname = \"a.example\"\naliases = [\"b\"]\n";
        let settings: Settings = toml::from_str(text).unwrap();
        let origins = BTreeMap::from([("server.listen".to_owned(), "wharf.toml".to_owned())]);
        let shown = render(&toml::Table::try_from(&settings).unwrap(), &origins);
        assert_eq!(toml::from_str::<Settings>(&shown).unwrap(), settings, "{shown}");
        assert!(shown.contains("listen = [\"127.0.0.1:1\", \"unix:/x\"]  # wharf.toml"), "{shown}");
        assert!(shown.contains("drain_timeout = \"30s\"  # default"), "{shown}");
    }
}
