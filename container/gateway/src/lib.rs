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

/// Parsers for the fuzz targets (`tests/fuzz`), which alone are built with this.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads the head that a CGI program writes, with small limits.
    pub fn cgi_head(bytes: &[u8]) {
        let limits = crate::cgi_response::HeadLimits { bytes: 4096, fields: 100 };
        if let Ok(Some((head, at))) = crate::cgi_response::parse_head(bytes, limits) {
            assert!(at <= bytes.len());
            head.local_redirect();
        }
    }
}
