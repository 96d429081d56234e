//! Servers with a certificate that an authority of the site has signed.

use super::client::{Client, trusted};
use core::time::Duration;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use ureq::tls::RootCerts;

/// A server at 127.0.0.1 that answers everything with a text; its address, and the certificate of the authority as PEM.
fn server() -> (String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, authority_key);
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut lines = BufReader::new(&mut stream).lines();
            // A client that does not trust the server ends the connection.
            if lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).count() > 0 {
                drop(lines);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").unwrap();
            }
        }
    });
    (address, authority.pem())
}

#[test]
fn a_server_is_trusted_by_the_authority_of_the_site_and_by_nothing_else() {
    let ((address, authority), (_, stranger)) = (server(), server());
    let ask = |roots| Client::with(roots, Duration::from_millis(1)).text(|| address.clone());
    assert_eq!(ask(trusted(authority.as_bytes()).unwrap()).unwrap(), "good");
    for roots in [trusted(stranger.as_bytes()).unwrap(), RootCerts::WebPki] {
        let error = ask(roots).unwrap_err().to_string();
        assert!(error.contains("the server cannot be trusted"), "{error}");
    }
    assert!(trusted(b"no certificate").is_none());
}
