//! The `wharf` program: reads the command line and hands over to one file for each command.
#![forbid(unsafe_code)]

mod acme;
mod apps;
mod backends;
mod check;
mod check_text;
mod cli;
mod client;
mod compose;
mod dev;
mod dev_build;
mod dev_folders;
mod explain;
mod failure;
mod local_certificate;
mod meta;
mod new;
mod out;
mod passwd;
mod ready;
mod resources;
mod run;
mod schema;
mod settings_load;
mod show_config;
mod side_car;
mod token;

use std::process::ExitCode;

/// The allocator of the container's own code, and of every module's heap.
#[global_allocator]
static ALLOCATOR: wharf_module::Allocator = wharf_module::Allocator;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    wharf_module::use_small_pages();
    // The trial child must do as little as can be before it loads the module; and it is no command for people.
    if std::env::args_os().nth(1).is_some_and(|a| a == wharf_module::trial::COMMAND) {
        return wharf_module::trial_main();
    }
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Run => run::run(&cli.global),
        Command::Dev(args) => dev::dev(&cli.global, args),
        Command::New(args) => new::new(args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::check(&cli.global, args),
        Command::List => apps::list(&cli.global),
        Command::Deploy(args) => apps::deploy(&cli.global, args),
        Command::Undeploy(app) => apps::operate(&cli.global, "DELETE", &app.name, ""),
        Command::Start(app) => apps::operate(&cli.global, "POST", &app.name, "/start"),
        Command::Stop(app) => apps::operate(&cli.global, "POST", &app.name, "/stop"),
        Command::Reload(app) => apps::operate(&cli.global, "POST", &app.name, "/reload"),
        Command::Rollback(app) => apps::operate(&cli.global, "POST", &app.name, "/rollback"),
        Command::Backends(args) => backends::backends(&cli.global, args),
        Command::Ready(args) => ready::ready(&cli.global, args),
        Command::Resources => resources::resources(&cli.global),
        Command::Explain(args) => explain::explain(&cli.global, args),
        Command::Passwd(args) => passwd::passwd(&cli.global, args),
        Command::Token(args) => token::token(&cli.global, args),
        Command::Config => show_config::show(&cli.global),
        Command::Schema { of } => schema::schema(*of),
        Command::Completions { shell } => meta::completions(*shell),
        Command::Man => meta::man(),
    };
    done.unwrap_or_else(|failure| failure.report(cli.global.json))
}
