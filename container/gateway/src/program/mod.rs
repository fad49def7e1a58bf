//! What CGI and FastCGI share: a request's way to a program and the answer's way back. Only how the program is reached differs.

pub(crate) mod errors;
pub(crate) mod input;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod runtime;
pub(crate) mod send_file;
pub(crate) mod slots;
pub(crate) mod talk;
