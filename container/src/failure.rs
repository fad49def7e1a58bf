//! How a command ends when it does not end well: a message and one of the documented exit codes.

use std::fmt::Display;
use std::process::ExitCode;

use wharf_kernel::Refusal;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    refusal: Option<Refusal>,
}

impl Failure {
    /// Exit code 1: it was tried and failed.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self { code: 1, message: message.to_string(), refusal: None }
    }

    /// Exit code 2: what was asked makes no sense, or the configuration is wrong.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { code: 2, message: message.to_string(), refusal: None }
    }

    /// Exit code 3: no container answers on the admin socket.
    pub(crate) fn unreached(message: impl Display) -> Self {
        Self { code: 3, message: message.to_string(), refusal: None }
    }

    /// Exit code 4: an application was refused.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self { code: 4, message: refusal.to_string(), refusal: Some(refusal) }
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        if json {
            let error = serde_json::json!({ "error": self.message, "exit_code": self.code, "refusal": self.refusal });
            eprintln!("{error}");
        } else if self.message.starts_with("error") {
            eprintln!("{}", self.message);
        } else {
            eprintln!("error: {}", self.message);
            if let Some(refusal) = self.refusal {
                eprintln!("more: wharf explain {}", refusal.code);
            }
        }
        ExitCode::from(self.code)
    }

    /// The exit code, for tests.
    #[cfg(test)]
    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}
