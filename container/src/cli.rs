//! The command line: one table from which parser, help, man page and completions are made.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use wharf_kernel::settings::AdminRole;

/// An application container: drop a compiled Rust module into a folder and it is served; drop a newer one and that is
/// served, without a restart and without a failed request.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, arg_required_else_help = true, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 no container reached, 4 application refused."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Configuration file [default: wharf.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one key, as in --set server.listen=127.0.0.1:9000; can be given more than once
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Write JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Admin socket of the container to speak to, or the URL of its admin port, with a token in the environment variable
    /// WHARF_ADMIN_TOKEN [default: the configured socket, .wharf/admin.sock]
    #[arg(long, global = true, value_name = "SOCKET|URL")]
    pub(crate) admin: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the container in the foreground
    Run,
    /// Build the applications under the paths, run them, and rebuild and redeploy them when a source changes
    Dev(DevArgs),
    /// Make a new application
    New(NewArgs),
    /// Look at a module and say whether it may run
    Check(CheckArgs),
    /// List the applications of a running container
    List,
    /// Deploy a module to a running container
    Deploy(DeployArgs),
    /// Remove an application from a running container and from its deploy folder
    Undeploy(App),
    /// Start an application that was stopped
    Start(App),
    /// Stop an application: it answers 503 until it is started or the container is
    Stop(App),
    /// Load an application's file again
    Reload(App),
    /// Go back to the previous good file of an application
    Rollback(App),
    /// Show the backends of a proxy; drain one before it is taken down
    Backends(BackendsArgs),
    /// Show the databases, caches and servers that a running container manages
    Resources,
    /// Say whether a running container is ready: every application serves or is refused, every resource answers
    Ready(ReadyArgs),
    /// Manage a users file: set a password, remove a user, list users
    Passwd(PasswdArgs),
    /// Make a token for the admin API
    Token(TokenArgs),
    /// Explain an error code
    Explain(ExplainArgs),
    /// Print the configuration in force and where each key comes from
    Config,
    /// Print the JSON schema of a configuration file, for editors
    Schema {
        /// Which file: 'app' for an application's (shop.toml, app.toml), 'server' for wharf.toml
        of: SchemaOf,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// The configuration files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SchemaOf {
    /// An application's TOML file.
    App,
    /// The container's.
    Server,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Folders with application crates: packages with a cdylib target that depend on wharf-sdk
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Build with optimisations [default: as this program was built, inside its own workspace]
    #[arg(long)]
    pub(crate) release: bool,
    /// Serve with TLS and HTTP/2, with a certificate for localhost that is made and kept in the state folder
    #[arg(long)]
    pub(crate) tls: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Name of the application, and of the folder that is made
    pub(crate) name: String,
    /// An ordinary axum application
    #[arg(long, conflicts_with = "servlet")]
    pub(crate) axum: bool,
    /// A servlet (the default)
    #[arg(long)]
    pub(crate) servlet: bool,
    /// Use the SDK in this folder instead of the published one
    #[arg(long, value_name = "PATH")]
    pub(crate) sdk_path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The module, a folder with an app.toml, or a TOML file that is an application
    pub(crate) file: PathBuf,
    /// Load, start and stop it too, in a process of its own, and show what it and the side-car file make together
    #[arg(long)]
    pub(crate) load: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The module
    pub(crate) file: PathBuf,
    /// Name to deploy it under: 'shop' is /shop, 'ROOT' is / [default: the file's, without 'lib' and '.so']
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct App {
    /// Name of the application, as 'wharf list' shows it
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct BackendsArgs {
    /// Name of the application, as 'wharf list' shows it
    pub(crate) name: String,
    /// Give the backend with this URL no new requests
    #[arg(long, value_name = "URL", conflicts_with = "undrain")]
    pub(crate) drain: Option<String>,
    /// Give the backend with this URL requests again
    #[arg(long, value_name = "URL")]
    pub(crate) undrain: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    /// Wait so many seconds for it, before it is said not to be
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The users file; made where there is none
    pub(crate) file: PathBuf,
    /// The user. The password is asked for, or read from standard input: one line
    #[arg(required_unless_present = "list")]
    pub(crate) user: Option<String>,
    /// A role of the user, instead of those it has; can be given more than once
    #[arg(long, value_name = "ROLE", conflicts_with_all = ["delete", "list"])]
    pub(crate) role: Vec<String>,
    /// Remove the user
    #[arg(long, conflicts_with = "list")]
    pub(crate) delete: bool,
    /// List the users and their roles
    #[arg(long, conflicts_with = "user")]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The name that the audit log shows
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do: 'viewer' looks, 'deployer' deploys too, 'admin' may stop the container
    #[arg(long, value_parser = role)]
    pub(crate) role: AdminRole,
}

fn role(name: &str) -> Result<AdminRole, String> {
    let found = AdminRole::ALL.into_iter().find(|role| role.as_str() == name);
    found.ok_or_else(|| "write viewer, deployer or admin".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, as W0207; without one all are listed
    pub(crate) code: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_table_is_consistent_and_options_may_follow_the_command() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["wharf", "list", "--json", "--set", "a=b", "--set", "c=d"]);
        assert!(cli.global.json);
        assert_eq!(cli.global.set, ["a=b", "c=d"]);
        assert!(Cli::try_parse_from(["wharf", "new", "x", "--axum", "--servlet"]).is_err());
        assert_eq!(Cli::try_parse_from(["wharf"]).unwrap_err().exit_code(), 2);
    }
}
