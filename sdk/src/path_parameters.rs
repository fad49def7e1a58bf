//! Path parameters: `;name=value` after the segments of a path.

use crate::Error;
use crate::parameters::decode_in;

/// One `;name=value` of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathParameter {
    /// Which segment it follows; the first one is 0.
    pub segment: usize,
    /// Its name, decoded.
    pub name: String,
    /// Its value, decoded; empty without `=`.
    pub value: String,
}

/// The parameters in a path as it was sent, in their order (RFC 3986, section 3.3).
///
/// # Errors
/// 400 when one is not percent-encoded UTF-8 text.
pub(crate) fn parse(path: &str) -> Result<Vec<PathParameter>, Error> {
    let bad = || Error::bad_request("a path parameter is not percent-encoded UTF-8 text");
    let decoded = |text| decode_in(text, crate::charset::Charset::Utf8, false).ok_or_else(bad);
    let mut parameters = Vec::new();
    for (segment, text) in path.strip_prefix('/').unwrap_or(path).split('/').enumerate() {
        for (name, value) in wharf_mapping::path_params(text) {
            parameters.push(PathParameter {
                segment,
                name: decoded(name.as_bytes())?.into_owned(),
                value: decoded(value.as_bytes())?.into_owned(),
            });
        }
    }
    Ok(parameters)
}
