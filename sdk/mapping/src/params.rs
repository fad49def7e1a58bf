//! Path parameters: the `;name=value` parts of path segments (RFC 3986, section 3.3).

use std::borrow::Cow;

/// The path without its parameters.
///
/// ```
/// assert_eq!(wharf_mapping::strip_params("/a;x=1/b;y"), "/a/b");
/// ```
pub fn strip_params(path: &str) -> Cow<'_, str> {
    let Some(first) = path.find(';') else { return Cow::Borrowed(path) };
    let mut out = String::with_capacity(path.len());
    out.push_str(&path[..first]);
    for (i, segment) in path[first..].split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        out.push_str(segment.split(';').next().unwrap_or_default());
    }
    Cow::Owned(out)
}

/// The parameters of all segments in order, as they stand in the path (not decoded); a parameter without `=` has an empty
/// value.
///
/// ```
/// let all: Vec<_> = wharf_mapping::path_params("/a;x=1;y/b;z=").collect();
/// assert_eq!(all, [("x", "1"), ("y", ""), ("z", "")]);
/// ```
pub fn path_params(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.split('/')
        .flat_map(|segment| segment.split(';').skip(1))
        .filter(|p| !p.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}
