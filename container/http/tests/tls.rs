//! What an application learns of an encrypted connection.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::*;
use wharf_http::{Bound, Listen, Server, ServerConfig, Tls};
use wharf_kernel::settings::{self, ClientAuth};

#[test]
fn the_facts_of_the_handshake_reach_the_endpoint() {
    let dir = std::env::temp_dir().join(format!("wharf-http-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(parameters, ca_key);
    let key = KeyPair::generate().unwrap();
    let signed = |name: &str| CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let (server, client) = (signed("a.example"), signed("alice"));
    std::fs::write(dir.join("a.crt"), server.pem()).unwrap();
    std::fs::write(dir.join("a.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();

    let certificate =
        settings::Certificate { chain: dir.join("a.crt"), key: dir.join("a.key"), names: Vec::new(), default: false };
    let tls = settings::Tls {
        certificate: vec![certificate],
        client_auth: ClientAuth::Optional,
        client_ca: Some(dir.join("ca.pem")),
        ..settings::Tls::default()
    };
    let config = ServerConfig {
        listen: vec![Listen::Tls("127.0.0.1:0".parse().unwrap())],
        workers: 1,
        tls: Some(Tls::load(tls, false).unwrap()),
        ..ServerConfig::default()
    };
    let plain = start();
    let running = Server::start(&config, plain.pipeline.clone()).unwrap();
    running.accept();
    let Bound::Tls(addr) = running.bound()[0] else { panic!("a listener with TLS") };

    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let builder = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots.clone())
    };
    let ask = |config: ClientConfig| {
        let connection = ClientConnection::new(config.into(), ServerName::try_from("a.example").unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(addr).unwrap());
        stream.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let anonymous = ask(builder().with_no_client_auth());
    for part in ["true Some(", "\"TLSv1.3\"", "\"TLS_AES_", "server_name: Some(\"a.example\")", "certificate_der: None"]
    {
        assert!(anonymous.contains(part), "no {part} in {anonymous}");
    }
    let key_der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let known = ask(builder().with_client_auth_cert(vec![client.der().clone()], key_der).unwrap());
    let shown = format!("{:?}", bytes::Bytes::copy_from_slice(client.der()));
    assert!(known.contains(&shown), "{known}");
    assert!(get(plain.addr, "/tls").ends_with("false None"));
    std::fs::remove_dir_all(dir).unwrap();
}
