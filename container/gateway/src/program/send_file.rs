//! `X-Sendfile` and `X-Accel-Redirect`: a program names a file, and the container sends it, from folders that the
//! configuration names and nowhere else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
};
use http::{Response, StatusCode};
use wharf_kernel::{Body, Lease};
use wharf_mapping::canonicalise;

use super::talk::Failure;
use crate::beneath::Beneath;
use crate::cgi_response::CgiHead;
use crate::endpoint::Files;

const SENDFILE: HeaderName = HeaderName::from_static("x-sendfile");
const ACCEL: HeaderName = HeaderName::from_static("x-accel-redirect");

/// The folders of an application.
pub(crate) struct SendFile {
    roots: Vec<(PathBuf, Files)>,
    /// Longest prefix first.
    prefixes: Vec<(String, Files)>,
}

impl SendFile {
    /// Opens them.
    pub(crate) fn open(
        sendfile_roots: &[PathBuf],
        accel_redirects: &BTreeMap<String, PathBuf>,
        base: &Path,
    ) -> io::Result<Self> {
        let files = |path: &Path| Beneath::open_root(path).map(Files::plain);
        let mut roots = Vec::new();
        for root in sendfile_roots {
            // Both names: programs may use either.
            let (named, real) = (std::path::absolute(base.join(root))?, std::fs::canonicalize(base.join(root))?);
            roots.push((named.clone(), files(&real)?));
            if real != named {
                roots.push((real.clone(), files(&real)?));
            }
        }
        let mut prefixes = Vec::new();
        for (prefix, root) in accel_redirects {
            prefixes.push((prefix.clone(), files(&base.join(root))?));
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self { roots, prefixes })
    }

    /// Takes the order to send a file out of a response's head: the folder, and the path in it. `None` where there is no such order.
    ///
    /// # Errors
    /// Where the file is in none of the folders.
    pub(crate) fn ordered(&self, head: &mut CgiHead) -> Result<Option<(&Files, String)>, Failure> {
        let (sendfile, accel) = (head.headers.remove(SENDFILE), head.headers.remove(ACCEL));
        let refuse = |name: &HeaderName, key: &str| {
            Failure::bad(format!("its {name} is in none of the folders that {key} names"))
        };
        if let Some(value) = sendfile {
            let refused = || refuse(&SENDFILE, "sendfile_roots");
            let path = Path::new(value.to_str().map_err(|_| refused())?);
            let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
            let found = self
                .roots
                .iter()
                .filter(|_| plain)
                .find_map(|(root, files)| Some((files, path.strip_prefix(root).ok()?.to_str()?.to_owned())));
            return found.map(Some).ok_or_else(refused);
        }
        if let Some(value) = accel {
            let refused = || refuse(&ACCEL, "accel_redirects");
            let path = canonicalise(value.to_str().map_err(|_| refused())?).map_err(|_| refused())?;
            let found = self
                .prefixes
                .iter()
                .find_map(|(prefix, files)| Some((files, path.decoded.strip_prefix(prefix.as_str())?.to_owned())));
            return found.map(Some).ok_or_else(refused);
        }
        Ok(None)
    }
}

/// Sends the file, with what the program said of it.
pub(crate) async fn send(
    files: &Files,
    path: &str,
    mut said: CgiHead,
    asked: &http::request::Parts,
    lease: Lease,
) -> Response<Body> {
    let mut response = files.send(path, asked, lease).await;
    if !response.status().is_success() && response.status() != StatusCode::NOT_MODIFIED {
        return response;
    }
    // What follows from the file itself is not the program's to say; its ETag and date are.
    for name in [CONTENT_LENGTH, CONTENT_RANGE, CONTENT_ENCODING, ACCEPT_RANGES] {
        said.headers.remove(name);
    }
    let headers = response.headers_mut();
    if response_is_new(&said.headers) {
        headers.remove(ETAG);
        headers.remove(LAST_MODIFIED);
    }
    let mut last = None;
    for (name, value) in said.headers {
        // Of several values of a name only the first comes with the name.
        let first = name.is_some();
        last = name.or(last);
        if let Some(name) = &last {
            if first {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
    }
    if response.status() == StatusCode::OK {
        *response.status_mut() = said.status;
    }
    response
}

fn response_is_new(said: &HeaderMap) -> bool {
    said.contains_key(ETAG) || said.contains_key(LAST_MODIFIED)
}
