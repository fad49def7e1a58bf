//! Answers requests from a document root.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tower::ServiceExt;
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;
use wharf_kernel::{Body, BoxError, Endpoint, Exchange, Hold, Lease, ResponseFuture};

use crate::beneath::Beneath;
use wharf_mapping::{is_private, range};

/// The endpoint of one static site.
pub(crate) struct Files(ServeDir<DefaultServeDirFallback, Beneath>);

impl Files {
    /// Serves what is below `root`, mounted at `context`.
    pub(crate) fn new(root: Beneath, context: &str) -> Self {
        Self(
            ServeDir::with_backend("", root)
                .redirect_path_prefix(context)
                .precompressed_br()
                .precompressed_gzip()
                .ignore_multi_range_requests(true),
        )
    }

    /// Serves single files below `root`, to whoever names them: no index pages, no compressed variants.
    pub(crate) fn plain(root: Beneath) -> Self {
        let files = ServeDir::with_backend("", root).append_index_html_on_directories(false);
        Self(files.ignore_multi_range_requests(true))
    }

    /// Answers `asked`, whatever it was for, with the file at this path below the root, which is not encoded.
    pub(crate) async fn send(&self, path: &str, asked: &http::request::Parts, lease: Lease) -> Response<Body> {
        let encoded = percent_encoding::utf8_percent_encode(path, &IN_PATH);
        let Ok(target) = format!("/{encoded}").parse::<Uri>() else { return empty(StatusCode::NOT_FOUND) };
        let mut request = Request::new(Body::empty());
        if asked.method == Method::HEAD {
            *request.method_mut() = Method::HEAD;
        }
        *request.uri_mut() = target;
        *request.headers_mut() = asked.headers.clone();
        answer(self.0.clone(), request, lease).await
    }
}

/// What is encoded in a path: all but unreserved characters and the slash (RFC 3986, section 2.3).
const IN_PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

async fn answer(
    service: ServeDir<DefaultServeDirFallback, Beneath>,
    mut request: Request<Body>,
    lease: Lease,
) -> Response<Body> {
    let is_head = *request.method() == Method::HEAD;
    if range::prepare(request.headers_mut(), is_head) {
        let mut look = Request::new(Body::empty());
        *look.method_mut() = Method::HEAD;
        *look.uri_mut() = request.uri().clone();
        *look.headers_mut() = request.headers().clone();
        range::CONDITIONS.iter().for_each(|name| _ = look.headers_mut().remove(name));
        let Ok(file) = service.clone().oneshot(look).await;
        range::settle(request.headers_mut(), file.headers());
    }
    let Ok(mut response) = service.oneshot(request).await;
    if response.status().is_success() {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response.map(|body| Body::new(Leased { body, _lease: lease.held_for(Hold::Body) }))
}

impl Endpoint for Files {
    fn call(&self, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        let Exchange { request, path, .. } = *exchange;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Box::pin(std::future::ready(response));
        }
        let inner = path.encoded_inside();
        let target =
            request.uri().query().map_or_else(|| inner.parse(), |query| format!("{inner}?{query}").parse::<Uri>());
        let Ok(target) = target else { return Box::pin(std::future::ready(empty(StatusCode::BAD_REQUEST))) };
        if is_private(path.inside()) {
            return Box::pin(std::future::ready(empty(StatusCode::NOT_FOUND)));
        }
        let mut file_request = Request::new(Body::empty());
        *file_request.method_mut() = request.method().clone();
        *file_request.uri_mut() = target;
        *file_request.headers_mut() = request.into_parts().0.headers;
        Box::pin(answer(self.0.clone(), file_request, lease))
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A body that keeps its generation until it is sent.
struct Leased<B> {
    body: B,
    _lease: Lease,
}

impl<B> HttpBody for Leased<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
