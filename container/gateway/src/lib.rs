//! Endpoints that are not modules: folders of files, CGI programs, FastCGI applications, HTTP servers.
#![forbid(unsafe_code)]

mod beneath;
mod cgi;
mod cgi_response;
mod endpoint;
mod fastcgi;
mod generation;
mod meta_variables;
mod program;
mod proxy;
mod script;
mod static_site;

pub use cgi::Cgi;
pub use fastcgi::{FastCgi, codec};
pub use proxy::Proxy;
pub use static_site::StaticSite;
