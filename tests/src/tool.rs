//! Programs of the system that tests call.

use std::process::{Command, Output, Stdio};

/// A program with arguments; `None`, with a word on the output, where it is not installed and that is allowed.
///
/// # Panics
/// Where it is not installed and nothing may be skipped.
pub fn tool(program: &str, arguments: &[&str]) -> Option<Command> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        assert!(!crate::is_required(), "{program} is not installed");
        println!("skipped: {program} is not installed");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    Some(command)
}

/// What a program printed on both its outputs.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
