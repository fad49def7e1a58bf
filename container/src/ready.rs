//! `wharf ready`: whether a running container is ready, for whatever starts and watches it.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use crate::cli::{Global, ReadyArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::out;

/// It is asked so often while it is waited for.
const EVERY: Duration = Duration::from_millis(100);

/// Says whether it is ready; waits for that where that is asked.
pub(crate) fn ready(global: &Global, args: &ReadyArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(global)?;
    let end = Instant::now() + Duration::from_secs(args.wait);
    loop {
        match client.text(Method::GET, "/readyz", Bytes::new()) {
            Ok(text) => {
                out::print(text)?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(failure) if Instant::now() >= end => return Err(failure),
            Err(_) => sleep(EVERY),
        }
    }
}
