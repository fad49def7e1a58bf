//! What TLS agreed on for the connection of a request, as it crosses the border.

use abi_stable::StableAbi;

use crate::RawStr;

/// What a TLS handshake agreed on, borrowed from whoever points to it. Text is UTF-8.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct TlsHead {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: RawStr,
    /// The cipher suite by its name in the IANA registry.
    pub cipher: RawStr,
    /// The name that the client asked for (SNI), empty for none.
    pub server_name: RawStr,
    /// The client's certificate in DER, empty for none.
    pub client_certificate: RawStr,
}

/// The same, to be read.
#[derive(Clone, Copy, Debug)]
pub struct TlsView<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite by its name in the IANA registry.
    pub cipher: &'a str,
    /// The name that the client asked for (SNI).
    pub server_name: Option<&'a str>,
    /// The client's certificate in DER.
    pub client_certificate: Option<&'a [u8]>,
}

impl TlsHead {
    /// Its parts.
    ///
    /// # Safety
    /// What the fields point to must live as long as `self`, and be UTF-8 in all but the certificate.
    pub unsafe fn view(&self) -> TlsView<'_> {
        // SAFETY: the caller's promise.
        let (version, cipher, server_name, certificate) = unsafe {
            (self.version.as_str(), self.cipher.as_str(), self.server_name.as_str(), self.client_certificate.as_bytes())
        };
        TlsView {
            version,
            cipher,
            server_name: Some(server_name).filter(|name| !name.is_empty()),
            client_certificate: Some(certificate).filter(|der| !der.is_empty()),
        }
    }
}
