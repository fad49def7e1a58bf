//! What an application's TOML file says to the part of the container that runs it.

mod cgi;
mod fastcgi;
mod init;
mod proxy;
mod security;
mod session;
mod web;

pub use cgi::CgiOptions;
pub use fastcgi::{FastCgiAddress, FastCgiOptions};
pub use init::InitValue;
pub use proxy::{
    Backend, Eject, HashKey, Health, HostHeader, Policy, ProcessListen, Protocol, ProxyOptions, Retry, Sticky, Tls,
};
pub use security::{Constraint, Login, LoginMethod, SecurityOptions, Transport};
pub use session::{SameSite, SessionOptions, SessionSettings, SessionStore};
pub use web::{Dispatch, ErrorPageOptions, FilterOptions, ServletOptions, WebOptions};

/// The options of one application, as far as its kind takes any.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `[cgi]`.
    pub cgi: Option<CgiOptions>,
    /// `[fastcgi]`, also of ASP.NET applications.
    pub fastcgi: Option<FastCgiOptions>,
    /// `[proxy]`.
    pub proxy: Option<ProxyOptions>,
    /// `[login]` and `[[constraints]]`.
    pub security: SecurityOptions,
    /// `[resources]`.
    pub resources: crate::resource::Bindings,
    /// `[session]`.
    pub session: SessionOptions,
    /// What web.xml says in the Servlet specification.
    pub web: WebOptions,
}
