//! Whom the client takes for the server: whoever has a certificate of an authority that it trusts, or the one certificate whose fingerprint
//! it was told.

use super::error::RemoteError;
use crate::serve::fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the authorities that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The digits of a fingerprint, however it is written.
pub(super) fn parse_fingerprint(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|sign| *sign != ':').collect();
    match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(digits.to_ascii_uppercase()),
        false => Err("expected the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons".to_owned()),
    }
}

/// How the server is known: by its fingerprint, by the authorities in a file, or by those of this system.
pub(super) fn config(pin: Option<&str>, ca: Option<&Path>) -> Result<ClientConfig, RemoteError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(RemoteError::Tls)?;
    if let Some(pin) = pin {
        let pinned = Pinned { digits: pin.to_owned(), provider };
        return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned)).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca.map(Path::to_owned).or_else(bundle) {
        let failed = |source| RemoteError::Authority { path: path.clone(), source };
        for certificate in CertificateDer::pem_file_iter(&path).map_err(failed)? {
            // A bundle may have some that are too old to be understood.
            let _ = roots.add(certificate.map_err(failed)?);
        }
    }
    if roots.is_empty() {
        return Err(RemoteError::NoAuthority);
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn bundle() -> Option<PathBuf> {
    let told = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    told.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// Takes one certificate and no other, whatever names and dates are in it.
#[derive(Debug)]
struct Pinned {
    digits: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match fingerprint(certificate).replace(':', "") == self.digits {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_digits_with_or_without_colons() {
        let digits = "AB".repeat(32);
        assert_eq!(parse_fingerprint(&["ab"; 32].join(":")).as_deref(), Ok(&*digits));
        assert_eq!(parse_fingerprint(&digits).as_deref(), Ok(&*digits));
        assert!(parse_fingerprint(&digits[1..]).is_err() && parse_fingerprint(&"x".repeat(64)).is_err());
    }
}
