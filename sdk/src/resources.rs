//! The default servlet: an application's own files (Servlet 6.1, sections 4.6, 10.5 and 10.10).

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;
use tower_service::Service as _;
use wharf_mapping::{is_private, range};

use crate::resource_root::ResourceRoot;
use crate::resource_source::{Embedded, Find, Source};
use crate::{App, Body, BoxError, Error, Request, Response, Servlet, ServletConfig, ServletContext};

/// The files of a folder, as a servlet.
///
/// GET and HEAD, with ranges, conditional requests (`ETag`, `Last-Modified`), the type by the name's ending, and `x.css.br`,
/// `x.css.zst` or `x.css.gz` in place of `x.css` for clients that take it. A folder is answered by its welcome file
/// ([`App::welcome_files`]; `index.html` where there are none), never by a listing. Dot files, `app.toml`, modules, `WEB-INF`,
/// `META-INF` and `APP-PRIVATE` are never served, nor is anything that a link leads to outside of the folder.
///
/// ```
/// use wharf_sdk::{App, Resources, get};
///
/// // `static` in the folder that the application was deployed as; a servlet's own pattern comes first.
/// let app = App::new().servlet("now", "/now", get(|_| async { "now" })).resources(Resources::new("static"));
/// ```
#[derive(Debug)]
#[must_use]
pub struct Resources {
    place: Place,
    cache_control: Option<String>,
    open: OnceLock<Open>,
}

enum Place {
    Folder(PathBuf),
    Embedded(Arc<Find>),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.fmt(f),
            Self::Embedded(_) => f.write_str("Embedded"),
        }
    }
}

#[derive(Debug)]
struct Open {
    source: Source,
    files: ServeDir<DefaultServeDirFallback, Source>,
    cache_control: Option<HeaderValue>,
}

impl Resources {
    /// Those in this folder: absolute, or relative to the folder that the application was deployed as; `""` for all of that.
    ///
    /// The application does not start when the folder is not there, or it is relative and the application was deployed
    /// as a file.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { place: Place::Folder(folder.into()), cache_control: None, open: OnceLock::new() }
    }

    /// Those that the module carries: `find` gives the content of the file with a path such as `css/style.css`. It fits what `include_dir`
    /// and `rust-embed` give; for a few files a `match` will do.
    ///
    /// A folder is where a welcome file is. The files count as changed when the application starts, so that clients ask once after
    /// each redeploy.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use wharf_sdk::{App, Resources};
    ///
    /// fn find(path: &str) -> Option<Cow<'static, [u8]>> {
    ///     let content: &[u8] = match path {
    ///         "index.html" => b"<!doctype html><title>Hello</title>",
    ///         "css/style.css" => b"body { margin: 2rem }",
    ///         _ => return None,
    ///     };
    ///     Some(content.into())
    /// }
    ///
    /// let app = App::new().resources(Resources::embedded(find));
    /// ```
    pub fn embedded(find: impl Fn(&str) -> Option<Cow<'static, [u8]>> + Send + Sync + 'static) -> Self {
        Self { place: Place::Embedded(Arc::new(find)), cache_control: None, open: OnceLock::new() }
    }

    /// Sends this `Cache-Control` with every file, such as `max-age=3600`. Without it clients ask each time whether a file
    /// has changed, or guess.
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = Some(value.into());
        self
    }

    async fn serve(&self, request: Request) -> Result<Response, Error> {
        let open = self.open.get().ok_or_else(|| Error::unavailable("not started"))?;
        // At `/files/*` a file's path is what follows `/files`, at every other pattern it is all of the path.
        let is_prefix = request.mapping().is_some_and(|mapping| mapping.mapping_match() == "PATH");
        let (prefix, path) = match (is_prefix, request.path_info()) {
            (true, info) => (request.servlet_path(), info.unwrap_or_default()),
            (false, _) => ("", &*request.path()),
        };
        if is_private(path) {
            return Ok(Response::status(StatusCode::NOT_FOUND));
        }
        let welcome = if path.ends_with('/') {
            match open.source.first_file(path, &welcome_files(request.context())).await? {
                Some(file) => Some(file),
                None => return Ok(Response::status(StatusCode::NOT_FOUND)),
            }
        } else {
            None
        };
        let (prefix, path) = (encoded(prefix), encoded(welcome.as_deref().unwrap_or(path)));
        let query = request.query().map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{}{path}{query}", if path.starts_with('/') { "" } else { "/" });
        let target: Uri = target.parse().map_err(|_| Error::bad_request("not a path of a file"))?;

        if path.is_empty() {
            // The folder itself, by its name without a slash.
            let location = format!("{}{prefix}/{query}", request.context_path());
            return Response::redirect(&location);
        }
        let files = open.files.clone().redirect_path_prefix(format!("{}{prefix}", request.context_path()));
        let mut headers = request.headers().clone();
        let is_head = *request.method() == Method::HEAD;
        if range::prepare(&mut headers, is_head) {
            let mut plain = headers.clone();
            for name in range::CONDITIONS {
                plain.remove(name);
            }
            let file = ask(files.clone(), Method::HEAD, target.clone(), plain).await;
            range::settle(&mut headers, file.headers());
        }
        let answer = ask(files, if is_head { Method::HEAD } else { Method::GET }, target, headers).await;
        Ok(dressed(answer, open.cache_control.as_ref()))
    }
}

async fn ask(
    mut files: ServeDir<DefaultServeDirFallback, Source>,
    method: Method,
    target: Uri,
    headers: HeaderMap,
) -> Response {
    let mut asked = http::Request::new(Body::empty());
    *asked.method_mut() = method;
    *asked.uri_mut() = target;
    *asked.headers_mut() = headers;
    match files.call(asked).await {
        Ok(answer) => answer.into(),
        Err(never) => match never {},
    }
}

/// What is right for every file.
fn dressed(mut response: Response, cache_control: Option<&HeaderValue>) -> Response {
    let status = response.status_code();
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return response;
    }
    let headers = response.headers_mut();
    if let Some(value) = cache_control {
        headers.insert(header::CACHE_CONTROL, value.clone());
    }
    if status.is_success() {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Without it, browsers take text for windows-1252.
        let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let text = text.filter(|value| value.starts_with("text/") && !value.contains(';'));
        if let Some(typed) = text.and_then(|text| HeaderValue::try_from(format!("{text}; charset=utf-8")).ok()) {
            headers.insert(header::CONTENT_TYPE, typed);
        }
    }
    response
}

/// The names of files that answer for their folder.
fn welcome_files(context: &ServletContext) -> Vec<String> {
    match context.welcome_files() {
        [] => vec!["index.html".to_owned()],
        names => names.to_vec(),
    }
}

/// Percent-encoded, but for unreserved characters and the slash (RFC 3986, section 2.3).
fn encoded(path: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

impl Servlet for Resources {
    async fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        let source = match (&self.place, config.context().folder()) {
            (Place::Embedded(find), _) => {
                let (find, welcome) = (Arc::clone(find), welcome_files(config.context()).into());
                Source::Embedded(Embedded { find, welcome, since: SystemTime::now() })
            }
            (Place::Folder(wanted), None) if !wanted.is_absolute() => {
                let wanted = wanted.display();
                return Err(format!(
                    "the files in '{wanted}' belong beside the module, but the application was deployed as a file: deploy it as a folder"
                )
                .into());
            }
            (Place::Folder(wanted), beside) => {
                let folder = beside.map_or_else(|| wanted.clone(), |beside| beside.join(wanted));
                let root = ResourceRoot::at(&folder);
                Source::Folder(root.map_err(|error| format!("resources: {}: {error}", folder.display()))?)
            }
        };
        let files = ServeDir::with_backend("", source.clone())
            .precompressed_br()
            .precompressed_zstd()
            .precompressed_gzip()
            .ignore_multi_range_requests(true);
        let cache_control = self.cache_control.as_deref().map(HeaderValue::try_from).transpose()?;
        self.open.get_or_init(|| Open { source, files, cache_control });
        Ok(())
    }

    async fn get(&self, request: Request) -> Result<Response, Error> {
        self.serve(request).await
    }

    async fn head(&self, request: Request) -> Result<Response, Error> {
        self.serve(request).await
    }
}

impl App {
    /// Adds the default servlet, named `default`: it answers with files where no other servlet's pattern fits.
    pub fn resources(self, resources: Resources) -> Self {
        self.servlet("default", "/", resources)
    }
}
