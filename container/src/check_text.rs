//! What `wharf check` prints for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use wharf_kernel::launch::{Description, Servlet};
use wharf_kernel::options::{SecurityOptions, Transport};

/// The report on a module. `servlets` and `app` are there when it was loaded; `app` is what it says of itself.
pub(crate) fn render(
    file: &Path,
    description: &Description,
    servlets: Option<&[Servlet]>,
    app: &Value,
    init: &BTreeMap<String, String>,
    side_car: Option<&str>,
) -> String {
    let mut text = format!("{}: a Wharf module\n", file.display());
    let size = format!("{} bytes", description.size);
    for (key, value) in [
        ("name", description.name.as_str()),
        ("version", &description.version),
        ("sdk", &description.sdk),
        ("abi", &description.abi),
        ("compiler", &description.rustc),
        ("sha256", &description.sha256),
        ("size", &size),
        ("side-car", side_car.unwrap_or_default()),
        ("display", app["display_name"].as_str().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            line(&mut text, key, value);
        }
    }
    match app["servlets"].as_array() {
        Some(described) => described.iter().for_each(|servlet| {
            let patterns = strings(&servlet["patterns"]);
            let timeout = servlet["async_timeout"].as_f64().map(|s| format!(" async_timeout={s}s")).unwrap_or_default();
            let what = format!("{} {}{timeout}{}", name(servlet), patterns.join(" "), tail(servlet));
            line(&mut text, "servlet", &what);
        }),
        None => servlets.iter().copied().flatten().for_each(|servlet| {
            line(&mut text, "servlet", &format!("{} {}", servlet.name, servlet.patterns.join(" ")));
        }),
    }
    for filter in app["filters"].as_array().into_iter().flatten() {
        let mut before = strings(&filter["patterns"]);
        before.extend(strings(&filter["servlets"]).into_iter().map(|servlet| format!("servlet:{servlet}")));
        let on = strings(&filter["dispatch"]).join(",");
        line(&mut text, "filter", &format!("{} {} {on}{}", name(filter), before.join(" "), tail(filter)));
    }
    for page in app["error_pages"].as_array().into_iter().flatten() {
        let of = match (page["status"].as_u64(), page["error"].as_str()) {
            (Some(status), _) => status.to_string(),
            (None, Some(kind)) => kind.to_owned(),
            (None, None) => "every other error".to_owned(),
        };
        let to = page["path"].as_str().unwrap_or("a function");
        line(&mut text, "error", &format!("{of} -> {to}{}", tail(page)));
    }
    let welcome = strings(&app["welcome_files"]);
    if !welcome.is_empty() {
        let origin = app["welcome_files_origin"].as_str().unwrap_or_default();
        line(&mut text, "welcome", &format!("{}  # {origin}", welcome.join(" ")));
    }
    for (name, value) in init {
        line(&mut text, "init", &format!("{name} = {value:?}  # file"));
    }
    if servlets.is_none() {
        text.push_str("it was not loaded; 'wharf check --load' tries that in a process of its own\n");
    }
    text
}

/// The word that a configuration file has for a value.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Where an application without a module is described, and where it will be.
pub(crate) fn place(text: &mut String, context_path: Option<&str>, file: &str) {
    line(text, "file", file);
    if let Some(path) = context_path {
        line(text, "context", path);
    }
}

/// Who may reach what, as the TOML file says.
pub(crate) fn security(text: &mut String, security: &SecurityOptions) {
    if let Some(login) = &security.login {
        line(text, "login", &format!("{} by realm {}", word(&login.method), login.realm));
    }
    for constraint in &security.constraints {
        let mut what = constraint.patterns.join(" ");
        for (word, list) in [("methods", &constraint.methods), ("all methods but", &constraint.method_omissions)] {
            if !list.is_empty() {
                let _ = write!(what, "; {word} {}", list.join(" "));
            }
        }
        let _ = match constraint.roles.as_deref() {
            None => write!(what, "; everybody"),
            Some([]) => write!(what, "; nobody"),
            Some(roles) => write!(what, "; roles {}", roles.join(" ")),
        };
        if constraint.transport == Transport::Confidential {
            what.push_str("; encrypted connections alone");
        }
        line(text, "guard", &what);
    }
}

/// What comes from a module is shown without its control characters.
fn line(text: &mut String, key: &str, value: &str) {
    let value: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let _ = writeln!(text, "  {key:<9} {}", value.trim_end());
}

fn name(of: &Value) -> &str {
    of["name"].as_str().unwrap_or("?")
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Init parameters, and where it was said.
fn tail(of: &Value) -> String {
    let mut text = String::new();
    for (name, value) in of["init"].as_object().into_iter().flatten() {
        let _ = write!(text, " {name}={value}");
    }
    let _ = write!(text, "  # {}", of["origin"].as_str().unwrap_or("builder"));
    text
}
