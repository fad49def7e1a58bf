//! `[deploy.source]`: where applications come from, for a fleet of containers.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[deploy.source]`: an object store whose files are brought into the deploy folder, and kept as they are there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `s3://BUCKET/PREFIX`, or `file:///FOLDER`.
    pub url: String,
    /// How often it is looked at. Default `"10s"`.
    #[serde(default = "interval", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// `s3`: the server, where it is not Amazon's: `"http://10.0.0.7:9000"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `s3`: the region. Default that of the environment (`AWS_REGION`), else `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `s3`: the access key; may hold `${env:NAME}` and `${file:PATH}`. Default what the environment has (`AWS_ACCESS_KEY_ID`, a web
    /// identity, the machine's role).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// `s3`: its secret, never shown; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "super::resource::secret")]
    pub secret_key: Option<String>,
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("url", &self.url).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Source {
    /// Rules that the types do not hold.
    ///
    /// # Errors
    /// The key at fault, and what is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        let bad = |key: &str, what: &str| Err((key.to_owned(), what.to_owned()));
        if !self.url.starts_with("s3://") && !self.url.starts_with("file:///") {
            return bad("url", "must begin with s3:// or file:///, as \"s3://releases/prod\"");
        }
        if self.interval.is_zero() {
            return bad("interval", "must be longer than nothing");
        }
        if self.access_key.is_some() != self.secret_key.is_some() {
            return bad("access_key", "and secret_key belong together");
        }
        Ok(())
    }
}
