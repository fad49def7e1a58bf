//! Endpoints that are not modules. So far: folders of files.
#![forbid(unsafe_code)]

mod beneath;
mod endpoint;
mod hidden;
mod static_site;

pub use static_site::StaticSite;
