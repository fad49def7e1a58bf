//! What TLS agreed on for the connection of a request.

use wharf_abi::TlsView;

/// What TLS agreed on for the connection of a request (Servlet 6.1, section 3.9).
///
/// The connection is the one to the container: of a client behind a proxy that ends TLS, nothing is known but that the
/// connection is secure ([`Request::is_secure`](crate::Request::is_secure)).
///
/// ```
/// # use wharf_sdk::Request;
/// fn who(request: &Request) -> String {
///     match request.tls() {
///         Some(tls) => format!("{} with {}", tls.version(), tls.cipher_suite()),
///         None => "in the clear, or behind a proxy".into(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a>(TlsView<'a>);

impl<'a> Tls<'a> {
    pub(crate) fn new(view: TlsView<'a>) -> Self {
        Self(view)
    }

    /// The protocol: `TLSv1.2` or `TLSv1.3` (`jakarta.servlet.request.secure_protocol`).
    pub fn version(&self) -> &'a str {
        self.0.version
    }

    /// The cipher suite by its name in the IANA registry (`jakarta.servlet.request.cipher_suite`).
    pub fn cipher_suite(&self) -> &'a str {
        self.0.cipher
    }

    /// Bits in the key of its cipher (`jakarta.servlet.request.key_size`); `None` for a suite this SDK does not know.
    pub fn key_size(&self) -> Option<u16> {
        key_size(self.0.cipher)
    }

    /// The host name that the client asked for in the handshake, in lower case (SNI).
    pub fn server_name(&self) -> Option<&'a str> {
        self.0.server_name
    }

    /// The client's certificate in DER (the first of `jakarta.servlet.request.X509Certificate`). The container has checked it
    /// against `tls.client_ca`.
    pub fn client_certificate(&self) -> Option<&'a [u8]> {
        self.0.client_certificate
    }
}

fn key_size(cipher: &str) -> Option<u16> {
    let has = |name: &str| cipher.contains(name);
    if has("AES_256_") || has("CHACHA20_") {
        Some(256)
    } else if has("AES_128_") {
        Some(128)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_key_is_in_the_name_of_the_suite() {
        for (cipher, bits) in [
            ("TLS_AES_128_GCM_SHA256", Some(128)),
            ("TLS13_AES_256_GCM_SHA384", Some(256)),
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", Some(256)),
            ("TLS_NULL_WITH_NULL_NULL", None),
        ] {
            assert_eq!(key_size(cipher), bits, "{cipher}");
        }
    }
}
