//! The meta-variables of RFC 3875, section 4.1: what a program behind CGI or FastCGI is told about its request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use http::{HeaderName, Version};
use wharf_kernel::{Authenticated, Connection, PathElements};

use crate::script::Script;

/// What the variables are made from.
pub(crate) struct Facts<'a> {
    /// The head of the request.
    pub(crate) head: &'a http::request::Parts,
    /// Its path.
    pub(crate) path: &'a PathElements,
    /// The host that the client asked for.
    pub(crate) authority: &'a str,
    /// The connection that it came on.
    pub(crate) connection: &'a Connection,
    /// The program that answers it.
    pub(crate) script: &'a Script,
    /// The folder that the paths of the URL are translated to, as the program sees it.
    pub(crate) document_root: &'a Path,
    /// The length of the content, where there is any.
    pub(crate) content_length: Option<u64>,
    /// Whether the program may see `Authorization`.
    pub(crate) pass_authorization: bool,
    /// Variables from the configuration. They win.
    pub(crate) env: &'a BTreeMap<String, String>,
}

/// Names and values, each name once; what need not be made anew is borrowed from the request.
#[derive(Debug, Default, Clone)]
pub(crate) struct MetaVariables<'a>(Vec<(Cow<'a, str>, Cow<'a, [u8]>)>);

/// The bytes of a value.
pub(crate) trait Value<'a> {
    fn bytes(self) -> Cow<'a, [u8]>;
}

impl<'a> Value<'a> for &'a str {
    fn bytes(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn bytes(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self)
    }
}

impl<'a> Value<'a> for String {
    fn bytes(self) -> Cow<'a, [u8]> {
        Cow::Owned(self.into_bytes())
    }
}

impl<'a> Value<'a> for Vec<u8> {
    fn bytes(self) -> Cow<'a, [u8]> {
        Cow::Owned(self)
    }
}

impl<'a> MetaVariables<'a> {
    /// Sets one, in place of any of the same name.
    pub(crate) fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Value<'a>) {
        let (name, value) = (name.into(), value.bytes());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(found) => found.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds one of which there is none yet.
    fn add(&mut self, name: &'static str, value: impl Value<'a>) {
        self.0.push((Cow::Borrowed(name), value.bytes()));
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Makes those of a request.
    pub(crate) fn of(facts: &Facts<'a>) -> Self {
        let mut all = Self(Vec::with_capacity(48));
        all.server(facts);
        all.client(facts);
        all.request(facts);
        all.fields(facts);
        for (name, value) in facts.env {
            all.set(name.as_str(), value.as_str());
        }
        all
    }

    fn server(&mut self, facts: &Facts<'a>) {
        let connection = facts.connection;
        self.add("GATEWAY_INTERFACE", "CGI/1.1");
        self.add("SERVER_SOFTWARE", concat!("Wharf/", env!("CARGO_PKG_VERSION")));
        let version = match facts.head.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_3 => "HTTP/3.0",
            _ => "HTTP/1.1",
        };
        self.add("SERVER_PROTOCOL", version);
        let (host, port) = split_authority(facts.authority);
        match (host, connection.local) {
            ("", Some(local)) => self.add("SERVER_NAME", local.ip().to_string()),
            ("", None) => self.add("SERVER_NAME", "localhost"),
            (host, _) => self.add("SERVER_NAME", host),
        }
        let usual = if connection.secure { "443" } else { "80" };
        match connection.local_end() {
            Some(end) => {
                self.add("SERVER_PORT", &*end.port);
                self.add("SERVER_ADDR", &*end.address);
            }
            None => self.add("SERVER_PORT", port.unwrap_or(usual)),
        }
        self.add("REQUEST_SCHEME", if connection.secure { "https" } else { "http" });
        if connection.secure {
            self.add("HTTPS", "on");
        }
    }

    fn client(&mut self, facts: &Facts<'a>) {
        match facts.connection.remote_end() {
            Some(end) => {
                // Names of clients are not looked up; the address stands for the name then (section 4.1.9).
                self.add("REMOTE_HOST", &*end.address);
                self.add("REMOTE_ADDR", &*end.address);
                self.add("REMOTE_PORT", &*end.port);
            }
            // Not an address that a program could take for a client's.
            None => {
                self.add("REMOTE_HOST", "unix:");
                self.add("REMOTE_ADDR", "unix:");
            }
        }
        if let Some(client) = facts.head.extensions.get::<Authenticated>() {
            self.add("AUTH_TYPE", client.scheme.as_bytes());
            self.add("REMOTE_USER", client.user.as_bytes());
        }
    }

    fn request(&mut self, facts: &Facts<'a>) {
        let (head, script) = (facts.head, facts.script);
        self.add("REQUEST_METHOD", head.method.as_str());
        self.add("QUERY_STRING", head.uri.query().unwrap_or_default());
        self.add("REQUEST_URI", head.uri.path_and_query().map_or("/", |target| target.as_str()));
        match facts.path.context() {
            "" => self.add("SCRIPT_NAME", &*script.name),
            context => self.add("SCRIPT_NAME", format!("{context}{}", script.name)),
        }
        self.add("SCRIPT_FILENAME", script.file.as_os_str().as_bytes());
        self.add("DOCUMENT_ROOT", facts.document_root.as_os_str().as_bytes());
        // Both are left out, not empty, where there is no path info (section 4.1.6 and what programs expect).
        if !script.path_info.is_empty() {
            self.add("PATH_INFO", script.path_info.as_bytes());
            let relative = script.path_info.trim_start_matches('/');
            self.add("PATH_TRANSLATED", facts.document_root.join(relative).into_os_string().into_vec());
        }
        if let Some(length) = facts.content_length {
            self.add("CONTENT_LENGTH", length.to_string());
        }
        if let Some(value) = head.headers.get(CONTENT_TYPE) {
            self.add("CONTENT_TYPE", value.as_bytes());
        }
    }

    /// `HTTP_*` (section 4.1.18). Fields of one name become one value.
    fn fields(&mut self, facts: &Facts<'a>) {
        for name in facts.head.headers.keys() {
            let shown = !is_withheld(name) || (*name == AUTHORIZATION && facts.pass_authorization);
            let Some(variable) = variable(name).filter(|_| shown) else { continue };
            let separator: &[u8] = if *name == COOKIE { b"; " } else { b", " };
            let mut values = facts.head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
            let mut value = Cow::Borrowed(values.next().unwrap_or_default());
            for more in values {
                value.to_mut().extend_from_slice(&[separator, more].concat());
            }
            // Header names are unique and the prefix is no other variable's.
            self.0.push((variable.into(), value));
        }
    }
}

/// The name of a field's variable. `None` for a name that is not made of letters, digits and `-`: with an underscore it
/// could pass for another field (`X_Forwarded_For`), with anything else for something that it is not.
fn variable(name: &HeaderName) -> Option<String> {
    let mut variable = String::with_capacity(5 + name.as_str().len());
    variable.push_str("HTTP_");
    for c in name.as_str().chars() {
        match c {
            '-' => variable.push('_'),
            c if c.is_ascii_alphanumeric() => variable.push(c.to_ascii_uppercase()),
            _ => return None,
        }
    }
    Some(variable)
}

/// Fields that no program sees: those with a variable of their own, those that concern the connection alone (RFC 9110,
/// section 7.6.1; a client's `Connection` names none beside them), those that carry a secret meant for the server, and
/// `Proxy`, whose variable many HTTP clients take for their proxy's address.
fn is_withheld(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-type"
            | "content-length"
            | "authorization"
            | "proxy-authorization"
            | "proxy"
            | "connection"
            | "proxy-connection"
            | "keep-alive"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
    )
}

/// Host and port of an authority that was checked before. The brackets of an IPv6 address stay (section 4.1.14).
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_bracket..].rfind(':') {
        Some(at) => {
            let at = after_bracket + at;
            (&authority[..at], Some(&authority[at + 1..]).filter(|port| !port.is_empty()))
        }
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {

    use http::Request;
    use wharf_kernel::ContextPath;

    use super::*;

    struct Given {
        request: http::request::Builder,
        secure: bool,
        remote: Option<&'static str>,
        authority: &'static str,
        pass: bool,
        length: Option<u64>,
        user: Option<&'static str>,
        env: &'static [(&'static str, &'static str)],
        path_info: &'static str,
    }

    impl Default for Given {
        fn default() -> Self {
            Self {
                request: Request::builder().uri("/app/a%20b.cgi/x%2Cy?q=1&r"),
                secure: false,
                remote: Some("192.0.2.1:4711"),
                authority: "example.org:8080",
                pass: false,
                length: None,
                user: None,
                env: &[],
                path_info: "/x,y",
            }
        }
    }

    fn variables(given: Given) -> BTreeMap<String, String> {
        let mut request = given.request.body(()).unwrap();
        if let Some(user) = given.user {
            request.extensions_mut().insert(Authenticated::new(user, "Basic", []));
        }
        let (head, ()) = request.into_parts();
        let local = given.remote.map(|_| "198.51.100.7:8080".parse().unwrap());
        let connection = Connection::new(given.remote.map(|r| r.parse().unwrap()), local, given.secure);
        let context = ContextPath::parse("/app").unwrap();
        let path = PathElements::new("/app/a%20b.cgi/x,y", "/app/a b.cgi/x,y", &context, None);
        let script =
            Script { name: "/a b.cgi".into(), file: "/srv/app/a b.cgi".into(), path_info: given.path_info.into() };
        let env = given.env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let facts = Facts {
            head: &head,
            path: &path,
            authority: given.authority,
            connection: &connection,
            script: &script,
            document_root: Path::new("/srv/app"),
            content_length: given.length,
            pass_authorization: given.pass,
            env: &env,
        };
        let all = MetaVariables::of(&facts);
        let map: BTreeMap<String, String> =
            all.iter().map(|(n, v)| (n.to_owned(), String::from_utf8_lossy(v).into_owned())).collect();
        assert_eq!(map.len(), all.iter().count(), "a name stands twice: {all:?}");
        map
    }

    #[test]
    fn a_plain_request() {
        let all = variables(Given::default());
        let expected = [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", "example.org"),
            ("SERVER_PORT", "8080"),
            ("SERVER_ADDR", "198.51.100.7"),
            ("REQUEST_SCHEME", "http"),
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/app/a%20b.cgi/x%2Cy?q=1&r"),
            ("QUERY_STRING", "q=1&r"),
            ("SCRIPT_NAME", "/app/a b.cgi"),
            ("SCRIPT_FILENAME", "/srv/app/a b.cgi"),
            ("DOCUMENT_ROOT", "/srv/app"),
            ("PATH_INFO", "/x,y"),
            ("PATH_TRANSLATED", "/srv/app/x,y"),
            ("REMOTE_ADDR", "192.0.2.1"),
            ("REMOTE_HOST", "192.0.2.1"),
            ("REMOTE_PORT", "4711"),
        ];
        for (name, value) in expected {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        for name in ["CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_USER", "AUTH_TYPE", "HTTPS"] {
            assert!(!all.contains_key(name), "{name}");
        }
    }

    #[test]
    fn fields_become_variables_but_for_those_that_must_not() {
        let request = Request::builder()
            .uri("/app/")
            .header("accept", "a/b")
            .header("accept", "c/d")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-real-ip", "10.0.0.1")
            .header("x_real_ip", "forged")
            .header("x.dot", "1")
            .header("proxy", "http://evil")
            .header("connection", "x-real-ip, close")
            .header("transfer-encoding", "chunked")
            .header("authorization", "Basic eDp5")
            .header("proxy-authorization", "Basic eDp5")
            .header("content-type", "text/plain")
            .header("content-length", "99");
        let all = variables(Given { request, length: Some(3), ..Given::default() });
        let fields: Vec<_> =
            all.iter().filter(|(n, _)| n.starts_with("HTTP_")).map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(fields, [("HTTP_ACCEPT", "a/b, c/d"), ("HTTP_COOKIE", "a=1; b=2"), ("HTTP_X_REAL_IP", "10.0.0.1")]);
        assert_eq!((all["CONTENT_TYPE"].as_str(), all["CONTENT_LENGTH"].as_str()), ("text/plain", "3"));
    }

    #[test]
    fn authentication_is_passed_where_it_was_made_or_is_asked_for() {
        let request = || Request::builder().uri("/app/").header("authorization", "Basic eDp5");
        let all = variables(Given { request: request(), user: Some("ann"), ..Given::default() });
        assert_eq!((all["REMOTE_USER"].as_str(), all["AUTH_TYPE"].as_str()), ("ann", "Basic"));
        assert!(!all.contains_key("HTTP_AUTHORIZATION"));
        let all = variables(Given { request: request(), pass: true, ..Given::default() });
        assert_eq!(all["HTTP_AUTHORIZATION"], "Basic eDp5");
    }

    #[test]
    fn rarer_connections_and_paths() {
        let given = Given { secure: true, remote: None, authority: "[::1]:444", path_info: "", ..Given::default() };
        let all = variables(Given { env: &[("SERVER_NAME", "fixed"), ("X", "y")], ..given });
        assert_eq!((all["HTTPS"].as_str(), all["REQUEST_SCHEME"].as_str()), ("on", "https"));
        assert_eq!((all["SERVER_NAME"].as_str(), all["SERVER_PORT"].as_str()), ("fixed", "444"));
        assert_eq!((all["REMOTE_ADDR"].as_str(), all["X"].as_str()), ("unix:", "y"));
        assert!(!all.contains_key("PATH_INFO") && !all.contains_key("PATH_TRANSLATED"));
        assert_eq!(variables(Given { authority: "", ..Given::default() })["SERVER_NAME"], "198.51.100.7");
        let mapped = Given { remote: Some("[::ffff:192.0.2.9]:1"), ..Given::default() };
        assert_eq!(variables(mapped)["REMOTE_ADDR"], "192.0.2.9");
    }

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:1", "a", Some("1")),
            ("a:", "a", None),
            ("[::1]", "[::1]", None),
            ("[::1]:2", "[::1]", Some("2")),
            ("", "", None),
        ] {
            assert_eq!(split_authority(text), (host, port), "{text}");
        }
    }
}
