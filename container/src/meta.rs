//! `wharf completions` and `wharf man`: made from the same table as the parser.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::out;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wharf", &mut text);
    print(&text)
}

/// Prints the manual page: the program, then each command.
pub(crate) fn man() -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(Failure::failed)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        man.render_name_section(&mut text)
            .and_then(|()| man.render_synopsis_section(&mut text))
            .and_then(|()| man.render_options_section(&mut text))
            .map_err(Failure::failed)?;
    }
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    out::print(String::from_utf8_lossy(text))?;
    Ok(ExitCode::SUCCESS)
}
