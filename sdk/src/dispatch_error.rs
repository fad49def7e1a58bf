//! Why a request can't be dispatched.

use std::fmt;

/// Dispatches on top of each other; one more is an error. Each is a call within a call, so this bounds the stack.
pub const MAX_DISPATCH_DEPTH: usize = 16;

/// Why a request can't be dispatched. Turned into an [`Error`](crate::Error) by `?`, it is a 500.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchError {
    /// The path leads above the context root, or is not valid; the text says why.
    Path(String),
    /// No servlet of the application takes the path.
    NotFound(String),
    /// The application has no servlet of this name.
    NoServlet(String),
    /// An asynchronous dispatch needs a path that begins with a slash.
    NotAbsolute(String),
    /// More than [`MAX_DISPATCH_DEPTH`] dispatches on top of each other: a loop, most likely.
    TooDeep(String),
    /// What was included does not exist (Servlet 6.1, section 9.3: `FileNotFoundException`).
    IncludeNotFound(String),
    /// The application is no [`App`](crate::App), or has been stopped: there is nothing to dispatch to.
    NoApp,
    /// The request has been answered already, by a timeout say, or its client went away.
    Over,
}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(text) => f.write_str(text),
            Self::NotFound(path) => write!(f, "dispatch to '{path}': no servlet takes this path"),
            Self::NoServlet(name) => write!(f, "dispatch to servlet '{name}': there is none of that name"),
            Self::NotAbsolute(path) => write!(f, "asynchronous dispatch to '{path}': the path must begin with '/'"),
            Self::TooDeep(to) => {
                write!(
                    f,
                    "dispatch to {to}: more than {MAX_DISPATCH_DEPTH} dispatches on top of each other; is it a loop?"
                )
            }
            Self::IncludeNotFound(path) => write!(f, "include of '{path}': there is no such resource"),
            Self::NoApp => f.write_str("dispatch: the application has no servlets, or has been stopped"),
            Self::Over => f.write_str("the request has been answered already, or its client went away"),
        }
    }
}

impl std::error::Error for DispatchError {}
