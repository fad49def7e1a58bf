//! The content of a request on its way to a program's standard input.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Seek, Write};
use std::pin::Pin;

use bytes::Bytes;
use http_body::Body as HttpBody;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use wharf_kernel::Body;

use super::talk::Activity;

/// More than this of a body whose length is not known goes to a file.
const IN_MEMORY: usize = 64 << 10;

/// What a program is given to read.
pub(crate) enum Input {
    Nothing,
    /// Sent through a pipe, with its length.
    Stream(Body, u64),
    /// A temporary file without a name, with its length.
    Spooled(File, u64),
}

/// Why there is no input.
pub(crate) enum InputError {
    /// The client stopped, or sent too much.
    Client,
    /// The temporary file could not be written.
    Spool(io::Error),
}

impl Input {
    /// Prepares the content of a request: CGI tells its length before the content (RFC 3875, section 4.1.2), so that one of
    /// unknown length is received in whole first.
    pub(crate) async fn of(body: Body) -> Result<Self, InputError> {
        if body.is_end_stream() {
            return Ok(Self::Nothing);
        }
        match body.size_hint().exact() {
            Some(length) => Ok(Self::Stream(body, length)),
            None => spool(body).await,
        }
    }

    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Stream(_, length) | Self::Spooled(_, length) => Some(*length),
        }
    }
}

/// The next data of a body.
pub(crate) async fn data(body: &mut Body) -> Option<Result<Bytes, InputError>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(_) => return Some(Err(InputError::Client)),
        }
    }
}

async fn spool(mut body: Body) -> Result<Input, InputError> {
    let (mut file, mut memory): (Option<File>, Vec<u8>) = (None, Vec::new());
    let mut length = 0;
    while let Some(data) = data(&mut body).await {
        let data = data?;
        length += data.len() as u64;
        memory.extend_from_slice(&data);
        if memory.len() > IN_MEMORY {
            let (written, room) = append(file, memory).await?;
            (file, memory) = (Some(written), room);
        }
    }
    if file.is_none() {
        return Ok(Input::Stream(Body::from(Bytes::from(memory)), length));
    }
    let (mut file, _) = append(file, memory).await?;
    file.rewind().map_err(InputError::Spool)?;
    Ok(Input::Spooled(file, length))
}

/// Writes the bytes to the end of the file, which is made with the first ones, and gives their room back.
async fn append(file: Option<File>, mut bytes: Vec<u8>) -> Result<(File, Vec<u8>), InputError> {
    let work = move || {
        let mut file = match file {
            Some(file) => file,
            None => tempfile::tempfile()?,
        };
        file.write_all(&bytes)?;
        bytes.clear();
        Ok((file, bytes))
    };
    let written = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    written.map_err(InputError::Spool)
}

/// Sends a body to a program and closes the pipe. A program that reads no more is not wrong: what is left of the body is let go.
pub(crate) async fn pump(
    mut body: Body,
    mut pipe: impl AsyncWrite + Unpin,
    activity: Activity,
) -> Result<(), InputError> {
    while let Some(data) = data(&mut body).await {
        let data = data?;
        activity.touch();
        if pipe.write_all(&data).await.is_err() {
            return Ok(());
        }
        activity.touch();
    }
    Ok(())
}
