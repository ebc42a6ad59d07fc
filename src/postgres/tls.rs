//! TLS as libpq's `sslmode` names it, by rustls with the ring provider.
//!
//! Source of the rules: Postgres manual, "SSL Support"; RFC 5929 section 4 (tls-server-end-point).
//! The provider is always named, never the process's default: another crate could have set that.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedCipherSuite,
};

use crate::error::{Error, Result};
use crate::postgres::dsn::{RootCert, Source, SslMode};

/// The client configuration for `source`, whose mode is not `disable`.
pub(super) fn client_config(source: &Source) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("rustls refuses its own defaults").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(source, provider)?);
    let Some((cert, key)) = &source.client_cert else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(&format!("sslcert {} cannot be read", cert.display())).with_source(e))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| bad(&format!("sslkey {} cannot be read", key.display())).with_source(e))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| bad("sslcert and sslkey do not fit together").with_source(e))
}

fn bad(what: &str) -> Error {
    Error::config("TLS", what)
        .with_cure("check sslmode, sslrootcert (a PEM file, or `system`), sslcert and sslkey")
}

fn verifier(source: &Source, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let host = source.ssl_mode == SslMode::VerifyFull;
    let chain = host || source.ssl_mode == SslMode::VerifyCa;
    // As libpq: an authority that was named is held to, whatever the mode.
    if !chain && (source.ssl_mode == SslMode::Prefer || source.root_cert.is_none()) {
        return Ok(Arc::new(Verifier { inner: None, host, pinned: Vec::new(), provider }));
    }
    let certs = authorities(source.root_cert.as_ref())?;
    let pinned = match source.root_cert {
        Some(RootCert::File(_)) => certs.clone(),
        _ => Vec::new(),
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certs);
    let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|e| bad("no certificate authority was found").with_source(e))?;
    Ok(Arc::new(Verifier { inner: Some(inner), host, pinned, provider }))
}

fn authorities(from: Option<&RootCert>) -> Result<Vec<CertificateDer<'static>>> {
    Ok(match from {
        Some(RootCert::File(path)) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| {
                bad(&format!("sslrootcert {} cannot be read", path.display())).with_source(e)
            })?,
        Some(RootCert::System) | None => rustls_native_certs::load_native_certs().certs,
    })
}

/// Verifies as much as the mode asks for.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// The certificate must be for this host.
    host: bool,
    /// Certificates of the `sslrootcert` file. The server may show one of these as its own: what
    /// `openssl req -x509` makes is both, and libpq takes it so.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify_pinned(
        &self,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.host {
            verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return self.verify_pinned(end_entity, server_name);
        }
        let verdict = inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match verdict {
            // The name is looked at last, so the chain stands.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// tls-server-end-point: the certificate's hash by its own signature's hash function, SHA-256 in
/// place of MD5 and SHA-1. `None` where that function is not at hand (SHA-512) or not defined
/// (Ed25519): SCRAM then goes without channel binding.
pub(super) fn end_point(cert: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let wanted = signature_hash(cert)?;
    let hash = ring::ALL_CIPHER_SUITES.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => {
            let hash = suite.common.hash_provider;
            (hash.output_len() == wanted).then_some(hash)
        }
        SupportedCipherSuite::Tls12(_) => None,
    })?;
    Some(hash.hash(cert).as_ref().to_vec())
}

/// Length in bytes of the hash in a certificate's signature algorithm (RFC 5280, 4.1.1.2).
fn signature_hash(cert: &[u8]) -> Option<usize> {
    let (_, certificate, _) = der(cert)?;
    let (_, _, after_tbs) = der(certificate)?;
    let (_, algorithm, _) = der(after_tbs)?;
    let (_, oid, _) = der(algorithm)?;
    match oid {
        // 1.2.840.113549.1.1.x (RSA): md5, sha1, sha256, sha384
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05 | 0x0b] => Some(32),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c] => Some(48),
        // 1.2.840.10045.4: ECDSA with sha1, sha256, sha384
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => Some(32),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => Some(48),
        _ => None,
    }
}

/// Tag, content and what follows of one DER element.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
