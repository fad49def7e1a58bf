//! One line of the access log, in the two formats there are. What a client sent can't end a line or a quoted field.

use std::fmt::Write;
use std::time::SystemTime;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use wharf_kernel::AccessRecord;

/// The format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `remote - - [time] "request line" status bytes "referer" "user agent"`, which every log analyser reads.
    #[default]
    Combined,
    /// One JSON object for each request, with the request id, the application and the duration.
    Json,
}

/// Writes lines; remembers the text of the second it is in.
pub(crate) struct Lines {
    format: Format,
    second: u64,
    /// The second as `25/Nov/2026:00:30:02 +0000`.
    date: String,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Lines {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, second: u64::MAX, date: String::new() }
    }

    /// Appends the line of a record, with its line feed.
    pub(crate) fn append(&mut self, out: &mut String, record: &AccessRecord) {
        // Writing to a String can't fail.
        let _ = match self.format {
            Format::Combined => self.combined(out, record),
            Format::Json => json(out, record),
        };
        out.push('\n');
    }

    fn combined(&mut self, out: &mut String, record: &AccessRecord) -> std::fmt::Result {
        match record.remote {
            Some(remote) => write!(out, "{} - ", remote.ip())?,
            None => out.push_str("unix: - "),
        }
        match &record.user {
            // A blank would end the field.
            Some(user) => escape(out, user.replace(' ', "%20").as_bytes()),
            None => out.push('-'),
        }
        out.push_str(" [");
        out.push_str(self.date(record.time));
        out.push_str("] \"");
        escape(out, record.method.as_str().as_bytes());
        out.push(' ');
        target(out, record, escape);
        write!(out, " {:?}\" {} {} \"", record.version, record.status, record.bytes)?;
        field(out, record.referer.as_ref());
        out.push_str("\" \"");
        field(out, record.user_agent.as_ref());
        out.push('"');
        Ok(())
    }

    /// The common log format's date, in UTC.
    fn date(&mut self, time: SystemTime) -> &str {
        let second = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if second != self.second {
            self.second = second;
            // `2026-11-25T00:30:02Z`, taken apart.
            let text = humantime::format_rfc3339_seconds(time).to_string();
            let month = text[5..7].parse::<usize>().ok().and_then(|m| MONTHS.get(m.wrapping_sub(1))).unwrap_or(&"Jan");
            self.date = format!("{}/{month}/{}:{} +0000", &text[8..10], &text[..4], &text[11..19]);
        }
        &self.date
    }
}

fn target(out: &mut String, record: &AccessRecord, escape: fn(&mut String, &[u8])) {
    // In parts, for displaying an absolute-form target whole would cost an allocation for every line.
    let uri = &record.target;
    if let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) {
        escape(out, scheme.as_str().as_bytes());
        out.push_str("://");
        escape(out, authority.as_str().as_bytes());
    } else if let Some(authority) = uri.authority() {
        escape(out, authority.as_str().as_bytes());
    }
    if let Some(path) = uri.path_and_query() {
        escape(out, path.as_str().as_bytes());
    }
}

fn field(out: &mut String, value: Option<&HeaderValue>) {
    match value {
        Some(value) => escape(out, value.as_bytes()),
        None => out.push('-'),
    }
}

/// Quotes, backslashes, control characters and whatever is not ASCII become `\xHH`.
fn escape(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
}

/// The inside of a JSON string; bytes that are not UTF-8 become U+FFFD.
fn escape_json(out: &mut String, bytes: &[u8]) {
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // The last two end a line for some readers.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

fn json(out: &mut String, record: &AccessRecord) -> std::fmt::Result {
    let text = |out: &mut String, name: &str, bytes: &[u8]| {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":\"");
        escape_json(out, bytes);
        out.push('"');
    };
    write!(out, "{{\"time\":\"{}\"", humantime::format_rfc3339_millis(record.time))?;
    text(out, "id", record.id.as_bytes());
    match record.remote {
        Some(remote) => write!(out, ",\"remote\":\"{}\"", remote.ip())?,
        None => out.push_str(",\"remote\":null"),
    }
    if let Some(user) = &record.user {
        text(out, "user", user.as_bytes());
    }
    text(out, "method", record.method.as_str().as_bytes());
    out.push_str(",\"target\":\"");
    target(out, record, escape_json);
    write!(out, "\",\"protocol\":\"{:?}\"", record.version)?;
    text(out, "host", record.host.as_bytes());
    write!(
        out,
        ",\"status\":{},\"bytes\":{},\"duration_us\":{}",
        record.status,
        record.bytes,
        record.duration.as_micros()
    )?;
    for (name, value) in [("referer", &record.referer), ("user_agent", &record.user_agent)] {
        if let Some(value) = value {
            text(out, name, value.as_bytes());
        }
    }
    if let Some(app) = &record.app {
        text(out, "app", app.app.path.display().as_bytes());
        if !app.app.version.is_empty() {
            text(out, "version", app.app.version.as_str().as_bytes());
        }
        text(out, "virtual_host", app.app.host.as_bytes());
    }
    if record.aborted {
        out.push_str(",\"aborted\":true");
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wharf_kernel::{AppCounters, AppId, ContextPath, Version};

    use super::*;

    pub(crate) fn record(target: &str, agent: &[u8]) -> AccessRecord {
        let id =
            AppId { host: "default".into(), path: ContextPath::parse("/shop").unwrap(), version: Version::new("2") };
        AccessRecord {
            user: None,
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_566_602_250),
            remote: Some("192.0.2.7:4711".parse().unwrap()),
            method: http::Method::GET,
            target: target.parse().unwrap(),
            version: http::Version::HTTP_11,
            host: "shop.example".into(),
            status: 200,
            bytes: 42,
            duration: Duration::from_micros(1500),
            referer: None,
            user_agent: HeaderValue::from_bytes(agent).ok(),
            id: "00ff".into(),
            app: Some(AppCounters::new(id).local().clone()),
            aborted: false,
        }
    }

    fn line(format: Format, record: &AccessRecord) -> String {
        let mut out = String::new();
        Lines::new(format).append(&mut out, record);
        out
    }

    #[test]
    fn combined_is_what_analysers_read() {
        let text = line(Format::Combined, &record("/shop\"?a=b", b"curl \"8\"\\\t\xe9"));
        assert_eq!(
            text,
            "192.0.2.7 - - [25/Nov/2026:00:30:02 +0000] \"GET /shop\\x22?a=b HTTP/1.1\" 200 42 \"-\" \"curl \\x228\\x22\\x5C\\x09\\xE9\"\n"
        );
        let absolute = line(Format::Combined, &record("http://a:81/x?y", b""));
        assert!(absolute.contains("\"GET http://a:81/x?y HTTP/1.1\""), "{absolute}");
    }

    #[test]
    fn json_has_it_all() {
        let value: serde_json::Value =
            serde_json::from_str(&line(Format::Json, &record("/shop", b"a\"b\xe9"))).unwrap();
        assert_eq!(value["time"], "2026-11-25T00:30:02.250Z");
        assert_eq!((&value["app"], &value["version"]), (&"/shop".into(), &"2".into()));
        assert_eq!(
            (&value["status"], &value["duration_us"], &value["id"]),
            (&200.into(), &1500.into(), &"00ff".into())
        );
        assert_eq!(value["user_agent"], "a\"b\u{fffd}");
        assert_eq!(value["target"], "/shop");
    }

    proptest! {
        #[test]
        fn a_line_stays_one_line(agent in proptest::collection::vec(any::<u8>(), 0..40)) {
            let record = record("/", &agent);
            let text = line(Format::Combined, &record);
            prop_assert_eq!(text.matches('"').count(), 6);
            prop_assert!(text.bytes().rev().skip(1).all(|b| (0x20..0x7f).contains(&b)));
            let text = line(Format::Json, &record);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
