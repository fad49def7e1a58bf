//! The harness of the black-box tests: builds the program and the fixtures, runs the one on the others in a folder of its
//! own, and speaks HTTP to it over plain sockets.
#![forbid(unsafe_code)]

mod acme;
mod authority;
mod cgi;
mod databases;
mod fastcgi;
mod fixtures;
pub mod h2;
mod http;
mod load;
pub mod neighbours;
mod php;
mod provider;
mod server;
mod site;
mod tool;
mod websocket;

use std::time::{Duration, Instant};

pub use acme::Acme;
pub use authority::{Authority, Signed};
pub use cgi::{CGI_ENV, CGI_TOML, cgi_app, cgi_program, cgi_variables, is_alive};
pub use databases::{Database, Engine};
pub use fastcgi::{Asked, Browser, Responder, Talk, installed};
pub use fixtures::{
    chameleon, is_required, library, marked, replaced, replaced_name, target, wharf, without_package, workspace,
};
pub use h2::H2;
pub use http::{Answer, Client};
pub use load::{Load, Tally};
pub use php::{Fpm, copy, fpm_program};
pub use provider::{CLIENT, Provider};
pub use server::Wharf;
pub use site::{Output, Site};
pub use tool::{printed, tool};
pub use websocket::{ACCEPT, Frame, HANDSHAKE, RawSocket};

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within 20 seconds.
pub fn wait<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(20), what, ask)
}

/// Asks until there is an answer, for so long.
///
/// # Panics
/// When there is none in time.
pub fn within<T>(time: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < time, "waited {time:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
