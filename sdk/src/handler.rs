//! Functions and closures as servlets.

use std::future::Future;
use std::time::SystemTime;

use crate::application::BoxFuture;
use crate::dispatch::{Allowed, Verb, allow, conditional, not_allowed, not_implemented, without_content};
use crate::{Error, IntoResponse, Request, Response, Servlet};

type Handler = Box<dyn Fn(Request) -> BoxFuture<'static, Result<Response, Error>> + Send + Sync>;
type LastModified = Box<dyn Fn(&Request) -> Option<SystemTime> + Send + Sync>;

/// A servlet made of functions, one for each method.
///
/// ```
/// use wharf_sdk::{App, Error, Request, Response, TestClient, get};
///
/// async fn show(request: Request) -> Result<Response, Error> {
///     Ok(Response::html(format!("<p>You are at {}</p>", request.servlet_path())))
/// }
///
/// async fn take(mut request: Request) -> Result<String, Error> {
///     Ok(format!("{} bytes", request.bytes().await?.len()))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(App::new().servlet("place", "/place", get(show).post(take))).start().await.unwrap();
/// assert_eq!(client.post("/place").body("abc").send().await.text().await, "3 bytes");
/// assert_eq!(client.delete("/place").send().await.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
/// # });
/// ```
#[derive(Default)]
#[must_use]
pub struct Handlers {
    verbs: [Option<Handler>; 8],
    any: Option<Handler>,
    last_modified: Option<LastModified>,
}

macro_rules! verbs {
    ($($name:ident = $verb:ident, $text:literal;)*) => {
        impl Handlers {
            $(
                #[doc = concat!("The same with a function for ", $text, ".")]
                pub fn $name<F, R>(mut self, function: F) -> Self
                where
                    F: Fn(Request) -> R + Send + Sync + 'static,
                    R: Future<Output: IntoResponse> + Send + 'static,
                {
                    self.verbs[Verb::$verb as usize] = Some(boxed(function));
                    self
                }
            )*
        }
        $(
            #[doc = concat!("A servlet with a function for ", $text, ".")]
            pub fn $name<F, R>(function: F) -> Handlers
            where
                F: Fn(Request) -> R + Send + Sync + 'static,
                R: Future<Output: IntoResponse> + Send + 'static,
            {
                Handlers::default().$name(function)
            }
        )*
    };
}

verbs! {
    get = Get, "GET, and HEAD where it has none of its own";
    head = Head, "HEAD";
    post = Post, "POST";
    put = Put, "PUT";
    delete = Delete, "DELETE";
    patch = Patch, "PATCH";
    options = Options, "OPTIONS";
}

/// A servlet with one function for every method that has none of its own, even those nobody has heard of.
pub fn any<F, R>(function: F) -> Handlers
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output: IntoResponse> + Send + 'static,
{
    Handlers { any: Some(boxed(function)), ..Handlers::default() }
}

fn boxed<F, R>(function: F) -> Handler
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output: IntoResponse> + Send + 'static,
{
    Box::new(move |request| {
        let answer = function(request);
        Box::pin(async move { answer.await.into_response() })
    })
}

impl Handlers {
    /// The same with a function that says when what GET answers was last changed; see [`Servlet::last_modified`].
    pub fn last_modified(mut self, function: impl Fn(&Request) -> Option<SystemTime> + Send + Sync + 'static) -> Self {
        self.last_modified = Some(Box::new(function));
        self
    }

    fn allowed(&self) -> Allowed {
        let mut allowed = Allowed::default();
        for verb in Verb::all().filter(|verb| self.verbs[*verb as usize].is_some()) {
            allowed.insert(verb);
        }
        allowed
    }

    async fn run(&self, handler: &Handler, verb: Verb, request: Request) -> Result<Response, Error> {
        let changed = self.last_modified.as_ref().filter(|_| verb == Verb::Get).and_then(|f| f(&request));
        match changed {
            None => handler(request).await,
            Some(when) => conditional(when, request, handler).await,
        }
    }
}

impl Servlet for Handlers {
    async fn service(&self, request: Request) -> Result<Response, Error> {
        let verb = Verb::of(request.method());
        if let Some(verb) = verb {
            match (&self.verbs[verb as usize], &self.verbs[Verb::Get as usize]) {
                (Some(handler), _) => return self.run(handler, verb, request).await,
                (None, Some(get)) if verb == Verb::Head => {
                    return Ok(without_content(self.run(get, Verb::Get, request).await?));
                }
                _ => {}
            }
        }
        match (&self.any, verb) {
            (Some(any), _) => any(request).await,
            (None, None) => Ok(not_implemented()),
            (None, Some(Verb::Options)) => Ok(allow(self.allowed())),
            (None, Some(_)) => Ok(not_allowed(self.allowed())),
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.any {
            Some(_) => f.write_str("Handlers(any)"),
            None => write!(f, "Handlers({})", self.allowed()),
        }
    }
}
