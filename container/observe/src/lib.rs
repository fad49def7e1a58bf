//! What the container shows of itself: the access log and the metrics.
#![forbid(unsafe_code)]

mod access_log;
mod line;
mod metrics;

pub use access_log::{AccessLog, AccessLogConfig, Target};
pub use line::Format;
pub use metrics::{CONTENT_TYPE, Metrics, Sources};
