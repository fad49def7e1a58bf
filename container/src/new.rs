//! `wharf new NAME`: a small application that builds, passes its test and can be deployed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::NewArgs;
use crate::failure::Failure;
use crate::out;

const SERVLET: &str = r#"//! A Wharf application.

use wharf_sdk::{App, Error, Request, Response, Servlet};

struct Hello;

impl Servlet for Hello {
    async fn get(&self, request: Request) -> Result<Response, Error> {
        let name = request.parameter("name").unwrap_or_else(|| "world".into());
        Ok(Response::text(format!("Hello, {name}!\n")))
    }
}

/// The application: its servlets and where they are mapped.
pub fn app() -> App {
    App::new().servlet("hello", "/*", Hello)
}

wharf_sdk::export!(app);
"#;

const AXUM: &str = r#"//! A Wharf application made with axum.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;

async fn hello() -> &'static str {
    "Hello, world!\n"
}

async fn greet(Path(name): Path<String>) -> String {
    format!("Hello, {name}!\n")
}

/// The application: an ordinary axum router.
pub fn app() -> Router {
    Router::new().route("/", get(hello)).route("/{name}", get(greet))
}

wharf_sdk::export!(app);
"#;

const TEST: &str = r#"//! The application without a container.

use wharf_sdk::TestClient;

#[tokio::test]
async fn it_says_hello() {
    let client = TestClient::new(CRATE::app()).start().await.unwrap();
    let response = client.get("/").send().await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await, "Hello, world!\n");
}
"#;

/// Makes the folder and its files.
pub(crate) fn new(args: &NewArgs) -> Result<(), Failure> {
    let here = std::env::current_dir().map_err(Failure::failed)?;
    let sdk = match &args.sdk_path {
        Some(path) => Some(fs::canonicalize(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?),
        None => std::env::current_exe().ok().and_then(|exe| checkout_sdk(&exe)).or_else(built_from),
    };
    if sdk.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "note: no checkout of Wharf was found, so wharf-sdk is taken from crates.io; --sdk-path names a checkout's sdk folder"
        );
    }
    write(&here, &args.name, args.axum, sdk.as_deref())?;
    out::print_line(format_args!("made the application '{0}'; next: cd {0} && wharf dev .", args.name))
}

/// The SDK of the checkout in whose `target` folder this program was built, if it was built in one.
fn checkout_sdk(exe: &Path) -> Option<PathBuf> {
    let target = exe.ancestors().find(|p| p.file_name().is_some_and(|n| n == "target"))?;
    sdk_at(target.parent()?.join("sdk"))
}

/// The SDK of the checkout this program was built from, if it is still there: for a program that was installed, or built in
/// a target folder elsewhere.
fn built_from() -> Option<PathBuf> {
    sdk_at(Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("sdk"))
}

fn sdk_at(sdk: PathBuf) -> Option<PathBuf> {
    let manifest = fs::read_to_string(sdk.join("Cargo.toml")).ok()?;
    manifest.contains("name = \"wharf-sdk\"").then_some(sdk)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if !first || !rest || name.len() > 64 {
        return Err(Failure::usage(format!(
            "'{}' can't be the name of a crate: use lower-case letters, digits, '-' and '_', a letter first",
            name.escape_debug()
        )));
    }
    if ["test", "core", "std", "alloc", "tokio", "axum", "wharf-sdk", "wharf_sdk"].contains(&name) {
        return Err(Failure::usage(format!("'{name}' is the name of a crate that the application itself uses")));
    }
    Ok(())
}

/// Whether a folder above has a Cargo.toml, so that cargo would take the new crate for a part of it.
fn is_inside_a_package(dir: &Path) -> bool {
    dir.ancestors().any(|a| a.join("Cargo.toml").exists())
}

fn write(parent: &Path, name: &str, axum: bool, sdk: Option<&Path>) -> Result<(), Failure> {
    check_name(name)?;
    let dir = parent.join(name);
    if dir.exists() {
        return Err(Failure::failed(format!("{} is there already", dir.display())));
    }
    let version = env!("CARGO_PKG_VERSION");
    let sdk = match sdk {
        Some(path) => format!("{{ path = {} }}", toml::Value::String(path.display().to_string())),
        None => format!("\"{version}\""),
    };
    let axum_line = if axum { "axum = \"0.8\"\n" } else { "" };
    let workspace = if is_inside_a_package(parent) {
        "\n# A workspace of its own, apart from the one around it.\n[workspace]\n"
    } else {
        ""
    };
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\n# cdylib is what the container loads; rlib is for the tests.\ncrate-type = [\"cdylib\", \"rlib\"]\n\n\
         [dependencies]\n{axum_line}wharf-sdk = {sdk}\n\n\
         [dev-dependencies]\ntokio = {{ version = \"1\", features = [\"macros\", \"rt\"] }}\n\n\
         # A module is copied, hashed and mapped whenever it is deployed: a smaller one is there sooner.\n\
         [profile.release]\nlto = \"thin\"\ncodegen-units = 1\n{workspace}"
    );
    let library = name.replace('-', "_");
    let readme = format!(
        "# {name}\n\nAn application for the Wharf container.\n\n- `wharf dev .` builds it, serves it at <http://127.0.0.1:8080/{name}/> and builds it \
         again when a source changes.\n- `cargo test` tests it without a container.\n- `cargo build --release` makes `target/release/lib{library}.so`; \
         `wharf deploy target/release/lib{library}.so --name {name}` deploys it.\n"
    );
    for (file, text) in [
        ("Cargo.toml", manifest),
        ("src/lib.rs", if axum { AXUM } else { SERVLET }.to_owned()),
        ("tests/hello.rs", TEST.replace("CRATE", &library)),
        ("README.md", readme),
        (".gitignore", "/target\n/.wharf\n".to_owned()),
    ] {
        let path = dir.join(file);
        let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", path.display()));
        fs::create_dir_all(path.parent().unwrap_or(&dir)).map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_whole_crates() {
        for axum in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "my-shop", axum, Some(Path::new("/sdk \"x\""))).unwrap();
            let read = |f: &str| fs::read_to_string(dir.path().join("my-shop").join(f)).unwrap();
            let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
            assert_eq!(manifest["dependencies"]["wharf-sdk"]["path"].as_str(), Some("/sdk \"x\""));
            assert_eq!(manifest["dependencies"].get("axum").is_some(), axum);
            assert!(manifest["lib"]["crate-type"].as_array().unwrap().iter().any(|t| t.as_str() == Some("cdylib")));
            assert!(read("src/lib.rs").contains("wharf_sdk::export!(app);"));
            assert!(read("tests/hello.rs").contains("my_shop::app()"));
            assert!(read("README.md").contains("/my-shop/"));
            assert_eq!(read(".gitignore"), "/target\n/.wharf\n");
            assert_eq!(write(dir.path(), "my-shop", axum, None).unwrap_err().code(), 1);
        }
    }

    #[test]
    fn bad_names_write_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "../x", "Shop", "a b", "1a", "tokio", &"a".repeat(65)] {
            assert_eq!(write(dir.path(), name, false, None).unwrap_err().code(), 2, "{name:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_checkout_is_found_from_its_target_folder() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("target/release/wharf");
        assert!(checkout_sdk(&exe).is_none());
        fs::create_dir_all(dir.path().join("sdk")).unwrap();
        fs::write(dir.path().join("sdk/Cargo.toml"), "[package]\nname = \"wharf-sdk\"\n").unwrap();
        assert_eq!(checkout_sdk(&exe), Some(dir.path().join("sdk")));
    }
}
