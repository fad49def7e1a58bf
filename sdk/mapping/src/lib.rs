//! The rules by which a request finds its servlet, shared by the container and the SDK: the one canonicalisation of a
//! path, the servlet mapping rules of Servlet 6.1 chapter 12, the Host header, and the names of deployed files; and the short texts of a request.
//!
//! Everything here is a pure function of its arguments.
#![forbid(unsafe_code)]

pub mod host;
pub mod name;
pub mod params;
pub mod path;
pub mod private;
pub mod range;
pub mod servlets;
mod short_text;

pub use host::{HostError, HostPort, parse_host};
pub use name::{AppName, NameError};
pub use params::{path_params, strip_params};
pub use path::{CanonicalPath, PathError, canonicalise, normalise};
pub use private::is_private;
pub use servlets::{MappingError, Match, MatchKind, ServletMap};
pub use short_text::ShortText;
