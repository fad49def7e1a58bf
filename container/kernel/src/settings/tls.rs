//! `[tls]` and `[server.http2]`: how encrypted connections are made, and what HTTP/2 may use up.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Acme;

/// `[tls]`: certificates and rules of the `https://` listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The oldest version spoken. Default `"1.2"`.
    pub min_version: TlsVersion,
    /// Whether clients show a certificate. Default `"none"`.
    pub client_auth: ClientAuth,
    /// PEM file with the certificates of the authorities that sign those of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Time for a handshake. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// How often the files are looked at for changes. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub reload_interval: Duration,
    /// `[[tls.certificate]]`: the certificates, found by the name that a client asks for.
    pub certificate: Vec<Certificate>,
    /// `[tls.acme]`: a certificate that an authority gives by itself (ACME, RFC 8555).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::Tls12,
            client_auth: ClientAuth::None,
            client_ca: None,
            handshake_timeout: Duration::from_secs(10),
            reload_interval: Duration::from_secs(5),
            certificate: Vec::new(),
            acme: None,
        }
    }
}

impl Tls {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let certificate = |what: String| Err(("tls.certificate".to_owned(), what));
        for name in self.certificate.iter().flat_map(|c| &c.names) {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            if let Err(error) = wharf_mapping::parse_host(bare) {
                return certificate(format!("'{name}' is not a host name: {error}"));
            }
        }
        if self.certificate.iter().filter(|c| c.default).count() > 1 {
            return certificate("more than one certificate has default = true".into());
        }
        if self.client_auth != ClientAuth::None && self.client_ca.is_none() {
            let what =
                "client certificates are asked for, but no authority is trusted: set tls.client_ca to a PEM file";
            return Err(("tls.client_auth".into(), what.into()));
        }
        if let Some(acme) = &self.acme {
            acme.check().map_err(|(key, what)| (format!("tls.acme.{key}"), what))?;
        }
        for (key, time) in
            [("tls.handshake_timeout", self.handshake_timeout), ("tls.reload_interval", self.reload_interval)]
        {
            if time.is_zero() {
                return Err((key.into(), "must be longer than nothing".into()));
            }
        }
        Ok(())
    }
}

/// `[[tls.certificate]]`: a certificate and its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file with the certificate and those between it and the root.
    pub chain: PathBuf,
    /// PEM file with its private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// Names it is used for; `*.example.com` for every name one label longer. Default: those in the certificate.
    #[serde(default)]
    pub names: Vec<String>,
    /// Whether clients that ask for no name, or for an unknown one, get it. Default: the first of the list.
    #[serde(default)]
    pub default: bool,
}

/// A version of TLS. Older ones are not spoken at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and AEAD ciphers alone.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; a certificate that is shown must be valid.
    Optional,
    /// Without a valid one there is no connection.
    Required,
}

/// `[server.http2]`: HTTP/2 (RFC 9113).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Whether it is offered on `https://` listeners. Default true.
    pub enabled: bool,
    /// Whether it is spoken without TLS to clients that begin with it ("prior knowledge"). Default false.
    pub cleartext: bool,
    /// Requests at a time on one connection. Default 100.
    pub max_streams: u32,
    /// Bytes of one request's body that a client may send ahead. Default 65536.
    pub stream_window: u32,
    /// The same for all requests of a connection together. Default 1048576.
    pub connection_window: u32,
    /// How long a connection may be silent before it is asked for a sign of life. Default `"20s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ping_interval: Duration,
    /// How long that sign may take. Default `"20s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ping_timeout: Duration,
    /// Requests that a client may cancel in 10 seconds. Default 200.
    pub max_resets: u32,
    /// PING, SETTINGS, PRIORITY, empty and unknown frames that it may send in 10 seconds. Default 1000.
    pub max_control_frames: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            enabled: true,
            cleartext: false,
            max_streams: 100,
            stream_window: 64 << 10,
            connection_window: 1 << 20,
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            max_resets: 200,
            max_control_frames: 1000,
        }
    }
}

impl Http2 {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        // RFC 9113, section 6.9.1: a window is at most 2^31 - 1.
        let bounds = 1..1 << 31;
        for (key, value) in [
            ("server.http2.max_streams", self.max_streams),
            ("server.http2.stream_window", self.stream_window),
            ("server.http2.connection_window", self.connection_window),
        ] {
            if !bounds.contains(&value) {
                return Err((key.into(), "must be from 1 to 2147483647".into()));
            }
        }
        Ok(())
    }
}
