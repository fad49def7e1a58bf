//! `wharf completions` and `wharf man`: made from the same table as the parser.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::Failure;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "wharf", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page: the program, then each command.
pub(crate) fn man() -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut out).map_err(Failure::failed)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        man.render_name_section(&mut out)
            .and_then(|()| man.render_synopsis_section(&mut out))
            .and_then(|()| man.render_options_section(&mut out))
            .map_err(Failure::failed)?;
    }
    Ok(ExitCode::SUCCESS)
}
