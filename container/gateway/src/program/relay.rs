//! The answer of a program on its way to the client: its head read, its orders followed, its content streamed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use wharf_kernel::{Body, BoxError, Hold, Lease};

use super::request::{Asked, Common, Next};
use super::send_file;
use super::talk::{Client, Failure, Piece, Talk};
use crate::cgi_response::CgiHead;

/// Pieces of content, of up to 64 KiB each, between program and client.
const PIECES: usize = 2;

/// Answers the client with what follows a head, to the end of the program's output. A streamed answer is not whole until
/// [`Talk::finish`], so that the caller can look at how the program ended before.
pub(crate) async fn relay<R: AsyncRead + Unpin>(
    app: &Common,
    asked: &Asked,
    mut head: CgiHead,
    talk: &mut Talk<'_, R>,
    lease: &mut Option<Lease>,
) -> Result<Next, Failure> {
    talk.idle = app.idle_timeout;
    if let Some(target) = head.local_redirect() {
        let target = target.to_owned();
        talk.discard().await?;
        return Ok(Next::Redirect(target));
    }
    if let Some((files, path)) = app.send_file.ordered(&mut head)? {
        let Some(lease) = lease.take() else { return Ok(Next::Done) };
        let response = send_file::send(files, &path, head, &asked.head, lease).await;
        talk.client.answer(response, Client::Served);
        talk.discard().await?;
        return Ok(Next::Done);
    }
    let bodiless = asked.head.method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        talk.client.answer(response(head, Body::empty()), Client::Served);
        *lease = None;
        talk.discard().await?;
        return Ok(Next::Done);
    }
    if talk.ended {
        // What is there whole is sent whole.
        let body = Body::from(talk.buffer.split().freeze());
        *lease = None;
        talk.client.answer(response(head, body), Client::Served);
        return Ok(Next::Done);
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    let content = Content { pieces, whole: false, _lease: lease.take().map(|lease| lease.held_for(Hold::Body)) };
    talk.client.answer(response(head, Body::new(content)), Client::Reading(sender));
    talk.content().await?;
    Ok(Next::Done)
}

fn response(head: CgiHead, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// The content of a response, as it comes.
struct Content {
    pieces: mpsc::Receiver<Piece>,
    whole: bool,
    _lease: Option<Lease>,
}

impl HttpBody for Content {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.whole {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.whole = true;
                None
            }
            None => {
                self.whole = true;
                Some(Err("the program did not end its answer".into()))
            }
        })
    }
}
