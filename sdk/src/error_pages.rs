//! Error pages: what answers when a request fails, by status or by the type of the error.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};

use crate::application::{BoxFuture, contain};
use crate::attributes::{Attributes, Value};
use crate::body::Body;
use crate::chain::Chain;
use crate::dispatch::without_content;
use crate::dispatcher::{RequestDispatcher, Target};
use crate::facts::RequestFacts;
use crate::running::{Running, caught};
use crate::servlet::AnyServlet;
use crate::{DispatcherType, Error, Request, Response, Servlet};

/// Which failures an error page is for.
#[derive(Clone)]
pub(crate) enum For {
    Status(StatusCode),
    Type(ErrorType),
    Everything,
}

/// A type of errors that pages can be for, with a name for configuration files.
#[derive(Clone, Copy)]
pub(crate) struct ErrorType {
    pub(crate) name: &'static str,
    is: fn(&(dyn std::error::Error + 'static)) -> bool,
}

impl ErrorType {
    pub(crate) fn of<E: std::error::Error + 'static>() -> Self {
        let name = std::any::type_name::<E>();
        // Without the modules, and without type arguments, which have modules of their own.
        let name = name.split('<').next().unwrap_or(name);
        Self { name: name.rsplit("::").next().unwrap_or(name), is: |error| error.is::<E>() }
    }
}

/// What answers.
#[derive(Clone)]
pub(crate) enum To {
    Path(String),
    Servlet(Arc<dyn AnyServlet>),
}

#[derive(Clone)]
pub(crate) struct ErrorPage {
    pub(crate) of: For,
    pub(crate) to: To,
    pub(crate) from_file: bool,
}

/// What an error page is: a path of the application, or a servlet (`get(…)`, `any(…)`) that stands at no path.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error page",
    note = "write a path of the application, \"/errors/404.html\", or a servlet such as `any(function)`"
)]
pub trait IntoErrorPage {
    /// The page.
    #[doc(hidden)]
    fn into_error_page(self) -> ErrorPageTarget;
}

/// See [`IntoErrorPage`].
#[doc(hidden)]
pub struct ErrorPageTarget(pub(crate) To);

impl IntoErrorPage for &str {
    fn into_error_page(self) -> ErrorPageTarget {
        ErrorPageTarget(To::Path(self.to_owned()))
    }
}

impl IntoErrorPage for String {
    fn into_error_page(self) -> ErrorPageTarget {
        ErrorPageTarget(To::Path(self))
    }
}

impl<S: Servlet> IntoErrorPage for S {
    fn into_error_page(self) -> ErrorPageTarget {
        ErrorPageTarget(To::Servlet(Arc::new(self)))
    }
}

/// What went wrong, as an error page sees it (Servlet 6.1, section 10.9.1).
#[derive(Debug, Clone)]
pub struct ErrorInfo {
    status: StatusCode,
    error: Option<Arc<Error>>,
    exception_type: Option<&'static str>,
    request_uri: String,
    servlet_name: Option<String>,
    method: Method,
    query: Option<String>,
}

impl ErrorInfo {
    pub(crate) const ATTRIBUTES: [&'static str; 8] = [
        "status_code",
        "message",
        "exception",
        "exception_type",
        "request_uri",
        "servlet_name",
        "method",
        "query_string",
    ];

    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message of the error; empty where a servlet answered with a status alone.
    ///
    /// That of a 5xx may tell what clients should not know.
    pub fn message(&self) -> &str {
        self.error.as_ref().map_or("", |error| error.message())
    }

    /// The error, with its causes, unless a servlet answered with a status alone.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_deref()
    }

    /// Name of the error's type, where a page is for that type.
    pub fn exception_type(&self) -> Option<&str> {
        self.exception_type
    }

    /// Path of the request that failed, as the client sent it.
    pub fn request_uri(&self) -> &str {
        &self.request_uri
    }

    /// Name of the servlet that the request was for.
    pub fn servlet_name(&self) -> Option<&str> {
        self.servlet_name.as_deref()
    }

    /// Method of the request that failed; that of the request to the error page is GET.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Query of the request that failed.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<Value> {
        let text = |text: &str| Some(Arc::new(text.to_owned()) as Value);
        match name {
            "status_code" => Some(Arc::new(self.status.as_u16())),
            "message" => text(self.message()),
            "exception" => Some(self.error.clone()?),
            "exception_type" => text(self.exception_type?),
            "request_uri" => text(&self.request_uri),
            "servlet_name" => text(self.servlet_name()?),
            "method" => text(self.method.as_str()),
            "query_string" => text(self.query()?),
            _ => None,
        }
    }
}

/// A servlet or filter panicked: the source of the error of its request. The log has message and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application panicked")
    }
}

impl std::error::Error for Panicked {}

/// The error pages of an application.
#[derive(Default)]
pub(crate) struct ErrorPages(pub(crate) Vec<ErrorPage>);

impl ErrorPages {
    /// The page for a failure: by type before by status, the error itself before its causes (Servlet 6.1, section 10.9.2).
    fn find(&self, status: StatusCode, error: Option<&Error>) -> Option<(&ErrorPage, Option<&'static str>)> {
        let mut cause = error.and_then(Error::source);
        while let Some(error) = cause {
            for page in &self.0 {
                if let For::Type(kind) = &page.of
                    && (kind.is)(error)
                {
                    return Some((page, Some(kind.name)));
                }
            }
            cause = error.source();
        }
        let by_status = self.0.iter().find(|page| matches!(&page.of, For::Status(of) if *of == status));
        by_status.or_else(|| self.0.iter().find(|page| matches!(page.of, For::Everything))).map(|page| (page, None))
    }
}

/// What an error page needs of a request that servlets have used up.
pub(crate) struct Remains {
    method: Method,
    uri: http::Uri,
    version: http::Version,
    headers: HeaderMap,
    extensions: http::Extensions,
    facts: RequestFacts,
    attributes: Attributes,
}

impl Remains {
    pub(crate) fn of(request: &mut Request) -> Self {
        let attributes = request.dispatch_state_mut().attributes.clone();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
            facts: request.facts().copied(),
            attributes,
        }
    }

    /// The request to the error page: a GET without content.
    fn request(self, info: ErrorInfo) -> Request {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::GET;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.headers = self.headers;
        for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::TRANSFER_ENCODING, header::CONTENT_ENCODING]
        {
            parts.headers.remove(name);
        }
        // The page is not what the client has a copy or a part of.
        for name in [
            header::IF_MODIFIED_SINCE,
            header::IF_NONE_MATCH,
            header::IF_MATCH,
            header::IF_UNMODIFIED_SINCE,
            header::RANGE,
        ] {
            parts.headers.remove(name);
        }
        parts.extensions = self.extensions;
        let mut request = Request::from_parts(parts, Body::empty(), self.facts);
        let state = request.dispatch_state_mut();
        state.attributes = self.attributes;
        state.error = Some(Arc::new(info));
        state.kind = DispatcherType::Error;
        request
    }
}

/// What describes content (RFC 9110, sections 8 and 14.4; RFC 6266), and so is wrong for other content.
const OF_CONTENT: [header::HeaderName; 11] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
    header::TRAILER,
];

/// Whether a response is what `sendError` makes: an error status, and no content of its own.
pub(crate) fn is_bare_error(response: &Response) -> bool {
    let status = response.status_code();
    (status.is_client_error() || status.is_server_error()) && response.body().is_empty()
}

/// Turns the outcome of a request into what is sent, by way of an error page where there is one for it.
pub(crate) fn finish<'a>(
    app: &'a Arc<Running>,
    result: Result<Response, Error>,
    remains: Remains,
) -> BoxFuture<'a, Response> {
    Box::pin(async move {
        let (status, headers, error) = match result {
            Ok(response) if !is_bare_error(&response) => return response,
            Ok(response) => (response.status_code(), response.into_http().into_parts().0.headers, None),
            Err(error) => (error.status(), HeaderMap::new(), Some(error)),
        };
        let Some((page, exception_type)) = app.error_pages.find(status, error.as_ref()) else {
            return match error {
                Some(error) => error.into_response(),
                None => bare(status, headers),
            };
        };
        if let Some(error) = &error {
            error.log();
        }
        let is_head = remains.method == Method::HEAD;
        let info = ErrorInfo {
            status,
            error: error.map(Arc::new),
            exception_type,
            request_uri: remains.facts.request_uri().to_owned(),
            servlet_name: app.servlet_info(remains.facts.servlet()).map(|servlet| servlet.name.clone()),
            method: remains.method.clone(),
            query: remains.uri.query().map(str::to_owned),
        };
        let request = remains.request(info);
        // A page that fails has no page of its own: the container's takes its place (Servlet 6.1, section 10.9.2).
        let mut answered = match caught(|| run(app, page, request)).await {
            Ok(Ok(answered)) if !is_bare_error(&answered) => answered,
            failed => {
                match failed {
                    Ok(Ok(answered)) => failed_page(page, &format!("it answered {}", answered.status_code())),
                    Ok(Err(error)) => failed_page(page, &format!("{error:#}")),
                    Err(payload) => {
                        contain(move || drop(payload));
                        failed_page(page, "it panicked");
                    }
                }
                return bare(status, headers);
            }
        };
        if answered.status_code().is_success() {
            answered = answered.with_status(status);
        }
        // What goes with the status, such as `Allow`, stays; what described the content that is not sent goes.
        for name in headers.keys() {
            let of_content = OF_CONTENT.contains(name);
            if !of_content && (*name == header::SET_COOKIE || !answered.headers().contains_key(name)) {
                for value in headers.get_all(name) {
                    answered.headers_mut().append(name, value.clone());
                }
            }
        }
        if is_head { without_content(answered) } else { answered }
    })
}

fn bare(status: StatusCode, headers: HeaderMap) -> Response {
    let mut response = Response::status(status);
    *response.headers_mut() = headers;
    response
}

fn failed_page(page: &ErrorPage, why: &str) {
    let name = match &page.to {
        To::Path(path) => path,
        To::Servlet(_) => "of the builder",
    };
    tracing::error!(target: "wharf_sdk", "the error page {name} failed: {why}");
}

async fn run(app: &Arc<Running>, page: &ErrorPage, mut request: Request) -> Result<Response, Error> {
    match &page.to {
        To::Servlet(servlet) => servlet.service(request).await,
        To::Path(path) => {
            let target = Target::find(app, request.context_path(), "/", path)?;
            RequestDispatcher::to_path(Arc::clone(app), target).enter(&mut request, DispatcherType::Error)?;
            Chain::new(Arc::clone(app)).run(request).await
        }
    }
}
