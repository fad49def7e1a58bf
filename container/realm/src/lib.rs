//! Who may reach which path of an application: realms, authentication and security constraints (Servlet 6.1, chapter 13).
//! Whatever can't be decided is refused.
#![forbid(unsafe_code)]

mod access;
mod certificate_realm;
mod claims;
pub mod constraints;
mod denied;
mod form;
mod jwt_realm;
mod lockout;
mod oidc_realm;
mod password_realm;
mod passwords;
mod realms;
mod rules;
mod saved;
mod session_guard;
mod shared_lockout;
mod sign_on;
mod table;
pub mod users;
mod watched;

pub use realms::Realms;
