//! The answer to a request that nothing else answers: a plain page for people, problem details for programs.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Response, StatusCode};
use wharf_kernel::Body;

/// Makes the response for a status: HTML, or `application/problem+json` (RFC 9457) where the client prefers JSON.
///
/// `detail` is a sentence for the client; it is escaped. `id` is the request id, which leads to the log.
pub fn render(status: StatusCode, detail: &str, id: &str, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    fill(&mut response, detail, id, prefers_json(headers.get(ACCEPT)));
    response
}

/// Gives a response without content the default page for its status.
pub(crate) fn fill(response: &mut Response<Body>, detail: &str, id: &str, json: bool) {
    let (content_type, text) = page(response.status(), detail, id, json);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.remove(http::header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(text);
}

/// The default page for a status: its media type and its text.
pub(crate) fn page(status: StatusCode, detail: &str, id: &str, json: bool) -> (&'static str, String) {
    let reason = status.canonical_reason().unwrap_or("Error");
    let detail = if detail.is_empty() { explanation(status) } else { detail };
    if json {
        let (reason, detail, id) = (json_text(reason), json_text(detail), json_text(id));
        let status = status.as_u16();
        let text = format!(r#"{{"title":{reason},"status":{status},"detail":{detail},"requestId":{id}}}"#);
        ("application/problem+json", text)
    } else {
        let title = format!("{} {}", status.as_u16(), escape_html(reason));
        let text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>body{{font-family:system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em;color:#222}}\
             small{{color:#666}}</style></head>\n<body><h1>{title}</h1>\n<p>{}</p>\n<p><small>Request {}</small></p>\n\
             </body></html>\n",
            escape_html(detail),
            escape_html(id)
        );
        ("text/html; charset=utf-8", text)
    }
}

/// True when `Accept` names a JSON type and ranks it no lower than HTML. Quality values decide, not the order.
pub(crate) fn prefers_json(accept: Option<&HeaderValue>) -> bool {
    let (mut json, mut html) = (0_u16, 0_u16);
    for item in accept.and_then(|v| v.to_str().ok()).unwrap_or_default().split(',') {
        let mut parts = item.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        match &*media {
            "application/json" | "application/problem+json" => json = json.max(quality),
            "text/html" | "application/xhtml+xml" => html = html.max(quality),
            _ => {}
        }
    }
    json > html
}

fn explanation(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request is not valid.",
        401 => "You need to sign in to see this.",
        403 => "You are not allowed to see this.",
        404 => "There is nothing at this address.",
        405 => "This address does not take this method.",
        408 => "The request took too long to arrive.",
        413 => "The request body is larger than allowed.",
        414 => "The address is longer than allowed.",
        421 => "This server does not answer for that host.",
        417 => "The expectation of the request can't be met.",
        429 => "There were too many requests.",
        431 => "The request headers are larger than allowed.",
        500 => "The application could not answer the request.",
        501 => "The server does not know how to answer this.",
        502 => "A server behind this one gave no valid answer.",
        503 => "The application is not available at the moment.",
        504 => "A server behind this one did not answer in time.",
        _ if status.is_client_error() => "The request can't be answered.",
        _ => "The request could not be answered.",
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A JSON string literal (RFC 8259, section 7).
fn json_text(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' || "<>&\u{2028}\u{2029}".contains(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_prefer_it() {
        let rows = [
            ("*/*", false),
            ("application/json", true),
            ("Application/Problem+JSON, */*", true),
            ("text/html, application/json", false),
            ("text/html;q=0.5, application/json", true),
            ("application/json;q=0", false),
        ];
        for (value, expected) in rows {
            assert_eq!(prefers_json(Some(&HeaderValue::from_static(value))), expected, "{value}");
        }
        assert!(!prefers_json(None));
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape_html("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(json_text("a\"b\\\n<é"), "\"a\\\"b\\\\\\u000a\\u003cé\"");
    }

    #[test]
    fn a_page_names_the_status_and_the_request() {
        let page = render(StatusCode::NOT_FOUND, "", "abc1", &HeaderMap::new());
        assert_eq!(page.status(), 404);
        assert_eq!(page.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    }
}
