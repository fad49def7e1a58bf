//! `[protect]`: what requests are refused before any application sees them, and what is added to its answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `[protect]`. Everything is off by default, and costs nothing then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// Host names that are answered, `*.example.com` for every name below; others get 421. Default: all.
    pub hosts: Vec<String>,
    /// Addresses and networks that are served; others get 403. Default: all.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<Network>,
    /// Addresses and networks that get 403, also where `allow` has them.
    #[schemars(with = "Vec<String>")]
    pub deny: Vec<Network>,
    /// Whether plain requests are sent to `https://` (308). Default false.
    pub https_redirect: bool,
    /// The port they are sent to. Default 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_port: Option<u16>,
    /// How long browsers come by TLS alone (Strict-Transport-Security, RFC 6797): `"365d"`. Default: not said.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub hsts: Option<Duration>,
    /// Whether that goes for all names below, too. Default false.
    pub hsts_subdomains: bool,
    /// Whether answers get the usual security headers where the application sets none of its own. Default false.
    pub security_headers: bool,
    /// Whether requests that change something are refused when another site sends them (by Sec-Fetch-Site and Origin).
    /// Default false.
    pub csrf: bool,
    /// Other sites that may send them all the same: `"https://shop.example"`.
    pub trusted_origins: Vec<String>,
    /// More headers for every answer that has none of the name, or other values for those of `security_headers`.
    pub headers: BTreeMap<String, String>,
    /// `[protect.rate]`: how often one address may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// `[protect.cors]`: which other sites' scripts may read answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

impl Protect {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        for name in &self.hosts {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            if let Err(error) = wharf_mapping::parse_host(bare) {
                return Err(("protect.hosts".into(), format!("'{name}' is not a host name: {error}")));
            }
        }
        for (name, value) in &self.headers {
            let valid =
                http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
            if !valid {
                return Err(("protect.headers".into(), format!("'{name}: {value}' is not a valid header")));
            }
        }
        let origins = self.cors.iter().flat_map(|cors| cors.origins.iter().filter(|o| *o != "*"));
        for (key, origin) in self
            .trusted_origins
            .iter()
            .map(|o| ("protect.trusted_origins", o))
            .chain(origins.map(|o| ("protect.cors", o)))
        {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !rest.is_some_and(|host| !host.is_empty() && wharf_mapping::parse_host(host).is_ok()) {
                return Err((key.into(), format!("'{origin}' is not an origin: write \"https://shop.example\"")));
            }
        }
        if let Some(rate) = &self.rate
            && (rate.requests == 0 || rate.per.is_zero())
        {
            return Err(("protect.rate".into(), "requests and per must be more than nothing".into()));
        }
        if let Some(cors) = &self.cors {
            if cors.credentials && cors.origins.iter().any(|o| o == "*") {
                let what = "credentials = true needs the origins by name: browsers refuse '*' with credentials";
                return Err(("protect.cors".into(), what.into()));
            }
            for method in &cors.methods {
                if http::Method::from_bytes(method.as_bytes()).is_err() {
                    return Err(("protect.cors".into(), format!("'{method}' is not a method")));
                }
            }
            for name in cors.headers.iter().chain(&cors.expose) {
                if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                    return Err(("protect.cors".into(), format!("'{name}' is not a header name")));
                }
            }
        }
        Ok(())
    }
}

/// `[protect.rate]`: requests of one address (of one /64 network of IPv6); more are answered with 429.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rate {
    /// So many. Default 100.
    pub requests: u32,
    /// In such a time. Default `"1s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub per: Duration,
    /// So many at once. Default: `requests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Name of a resource of kind `cache` in which several containers count together: at most `requests` (or `burst`) in each `per`,
    /// on top of what each of them allows. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { requests: 100, per: Duration::from_secs(1), burst: None, shared: None }
    }
}

/// `[protect.cors]`: Cross-Origin Resource Sharing, as the Fetch standard has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Sites whose scripts may ask: `"https://shop.example"`, or `"*"` for all.
    pub origins: Vec<String>,
    /// Methods they may use. Default GET, HEAD and POST.
    pub methods: Vec<String>,
    /// Request headers they may set, beyond those that are always allowed.
    pub headers: Vec<String>,
    /// Response headers they may read, beyond those that are always readable.
    pub expose: Vec<String>,
    /// Whether cookies and passwords are sent along. Default false.
    pub credentials: bool,
    /// How long browsers may remember the answer. Default: as they like.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub max_age: Option<Duration>,
}

/// An address or a network: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// As the type that routes and firewalls use.
    pub const fn net(&self) -> IpNet {
        self.0
    }

    /// Whether the address is in it. An IPv4 address that IPv6 carries is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(|a| IpNet::from(a.to_canonical()));
        address
            .or_else(|_| text.parse::<IpNet>().map(|n| n.trunc()))
            .map(Self)
            .map_err(|_| format!("'{text}' is neither an address nor a network: write \"192.0.2.7\" or \"10.0.0.0/8\""))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "11.0.0.1"),
            ("10.9.9.9/8", "10.0.0.1", "::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "localhost", "10.0.0.0/8 "] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }
}
