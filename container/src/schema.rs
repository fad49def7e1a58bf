//! `wharf schema`: the JSON schemas of the configuration files, for editors.

use std::process::ExitCode;

use wharf_deployer::app_toml::AppToml;
use wharf_kernel::settings::Settings;

use crate::cli::SchemaOf;
use crate::failure::Failure;
use crate::out;

/// Prints the schema of an application's TOML file, or of `wharf.toml`.
pub(crate) fn schema(of: SchemaOf) -> Result<ExitCode, Failure> {
    let schema = match of {
        SchemaOf::App => schemars::schema_for!(AppToml),
        SchemaOf::Server => schemars::schema_for!(Settings),
    };
    out::print_line(format_args!("{:#}", schema.to_value()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A span of time is text in the files; without its attribute it would be a table of seconds and nanoseconds.
    #[test]
    fn spans_of_time_are_text() {
        for schema in [schemars::schema_for!(AppToml), schemars::schema_for!(Settings)] {
            let text = schema.to_value().to_string();
            assert!(!text.contains("nanos"), "{text}");
        }
    }

    #[test]
    fn every_key_of_the_settings_is_in_their_schema() {
        fn walk(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value, at: &str) {
            let Some(object) = value.as_object() else { return };
            let schema = match schema["$ref"].as_str() {
                Some(path) => root.pointer(path.trim_start_matches('#')).expect("a definition"),
                None => schema,
            };
            for (key, value) in object {
                let inner = &schema["properties"][key];
                assert!(!inner.is_null(), "{at}.{key} is not in the schema");
                walk(value, inner, root, &format!("{at}.{key}"));
            }
        }
        let schema = schemars::schema_for!(Settings).to_value();
        walk(&serde_json::to_value(Settings::default()).unwrap(), &schema, &schema, "");
    }
}
