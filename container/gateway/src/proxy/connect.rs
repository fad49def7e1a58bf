//! New connections to a backend: TCP, Unix socket, TLS, and the HTTP handshake.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use wharf_kernel::Body;
use wharf_kernel::options::{Protocol, ProxyOptions};
use wharf_worker::{Here, Socket, begun_again};

use super::target::{Place, Target};

/// Opens connections to one backend.
pub(crate) struct Connector {
    pub(crate) target: Target,
    protocol: Protocol,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// What the name stands for now. Empty before the first look-up.
    addresses: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
}

/// A connection that speaks HTTP.
pub(crate) enum Opened {
    /// For one request at a time.
    H1(http1::SendRequest<Body>),
    /// For many.
    H2(http2::SendRequest<Body>),
}

impl Connector {
    /// For a backend with these options.
    ///
    /// # Errors
    /// Certificates that can't be read, or a name that can't be on one.
    pub(crate) fn new(target: Target, options: &ProxyOptions) -> Result<Self, String> {
        let tls = if target.secure { Some(tls(&target, options)?) } else { None };
        let addresses = match &target.place {
            Place::Address(addr) => vec![*addr],
            _ => Vec::new(),
        };
        let addresses = ArcSwap::from_pointee(addresses);
        Ok(Self { target, protocol: options.protocol, tls, addresses, next: AtomicUsize::new(0) })
    }

    /// Looks the name up again. What fails leaves the addresses as they are.
    pub(crate) async fn look_up(&self) -> io::Result<()> {
        let Place::Name(name, port) = &self.target.place else { return Ok(()) };
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host((&**name, *port)).await?.collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("'{name}' has no address")));
        }
        if **self.addresses.load() != found {
            tracing::info!(backend = %self.target, addresses = ?found, "the name's addresses");
            self.addresses.store(Arc::new(found));
        }
        Ok(())
    }

    /// Opens a connection. Time limits are the caller's.
    pub(crate) async fn open(&self) -> io::Result<Opened> {
        match &self.target.place {
            Place::Unix(path) => self.handshake(unix(path).await?).await,
            Place::Address(_) | Place::Name(..) => {
                let stream = self.tcp().await?;
                let Some((tls, name)) = &self.tls else { return self.handshake(stream).await };
                let stream = tls.connect(name.clone(), stream).await?;
                if self.protocol == Protocol::H2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("the backend did not agree to speak h2"));
                }
                self.handshake(stream).await
            }
        }
    }

    async fn tcp(&self) -> io::Result<Socket<TcpStream>> {
        if self.addresses.load().is_empty() {
            self.look_up().await?;
        }
        let addresses = self.addresses.load_full();
        let begin = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for turn in 0..addresses.len() {
            let address = addresses[(begin + turn) % addresses.len()];
            match begun_again(|| TcpStream::connect(address)).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(Socket::new(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn handshake<S>(&self, stream: S) -> io::Result<Opened>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match self.protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::Builder::new()
                    .max_buf_size(256 * 1024)
                    .handshake::<_, Body>(io)
                    .await
                    .map_err(io::Error::other)?;
                wharf_worker::spawn(async move {
                    let _ = connection.with_upgrades().await;
                });
                Ok(Opened::H1(sender))
            }
            Protocol::H2 => {
                let (sender, connection) = http2::Builder::new(Here)
                    .timer(Here)
                    .keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(20))
                    .max_header_list_size(64 * 1024)
                    .handshake::<_, Body>(io)
                    .await
                    .map_err(io::Error::other)?;
                wharf_worker::spawn(async move {
                    let _ = connection.await;
                });
                Ok(Opened::H2(sender))
            }
        }
    }
}

async fn unix(path: &Path) -> io::Result<Socket<UnixStream>> {
    begun_again(|| UnixStream::connect(path)).await.map(Socket::new)
}

fn tls(target: &Target, options: &ProxyOptions) -> Result<(TlsConnector, ServerName<'static>), String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &options.tls.ca {
        let wrong = |e: &dyn std::fmt::Display| format!("proxy.tls.ca: {}: {e}", ca.display());
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| wrong(&e))? {
            roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"there is no certificate in the file"));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(format!(
                "backend '{target}': this machine has no trusted certificates; install ca-certificates or give proxy.tls.ca"
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match options.protocol {
        Protocol::H1 => b"http/1.1".to_vec(),
        Protocol::H2 => b"h2".to_vec(),
    }];
    let name = options.tls.server_name.clone().unwrap_or_else(|| target.name());
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("backend '{target}': '{name}' is not a name that a certificate can have"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
