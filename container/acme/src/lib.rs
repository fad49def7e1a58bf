//! Certificates from an authority that speaks ACME (RFC 8555): ordered, renewed and kept as files, which the TLS part reads as it reads
//! any others.
#![forbid(unsafe_code)]

mod authority;
mod pair;
mod renewal;

pub use renewal::Renewal;
