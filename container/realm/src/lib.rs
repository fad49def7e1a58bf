//! Who may reach which path of an application: realms, authentication and security constraints (Servlet 6.1, chapter 13).
//! Whatever can't be decided is refused.
#![forbid(unsafe_code)]

mod access;
pub mod constraints;
mod file_realm;
mod jwt_realm;
mod lockout;
mod realms;
pub mod users;
mod watched;

pub use realms::Realms;
