//! Whom transports trust over TLS, and what they show of us.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::session::{Access, Thumbprint};

/// How servers are recognised, and how we show who we are; `own` says that it is the server that the user named.
///
/// # Errors
/// `http.certificate` for certificates and keys that cannot be used.
pub(super) fn config(access: &Access, own: bool) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(access, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed("source.runtime", "cannot set up TLS").because(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match access.identity.as_ref().filter(|_| own) {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let unusable = || {
                wrong("the client's certificate or key cannot be used")
                    .hint("both are read in PEM, the key unencrypted")
            };
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| unusable())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable().because(error))?
        }
    })
}

fn verifier(access: &Access, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    if !access.thumbprints.is_empty() {
        return Ok(Arc::new(Pinned { known: access.thumbprints.clone(), provider: Arc::clone(provider) }));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&access.authorities)? {
        roots.add(certificate).map_err(|error| wrong("a trusted certificate cannot be used").because(error))?;
    }
    // What the system trusts and we cannot read is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::info!("no certificate authority is known here; install ca-certificates, or give --cacert");
        return Ok(Arc::new(Pinned { known: Vec::new(), provider: Arc::clone(provider) }));
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = builder.build().map_err(|error| wrong("the trusted certificates cannot be used").because(error))?;
    Ok(verifier)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| wrong("a file of certificates is not in PEM"))?;
    if found.is_empty() && !pem.is_empty() {
        return Err(wrong("a file of certificates has none in PEM"));
    }
    Ok(found)
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Usage, "http.certificate", what)
}

/// Trusts certificates that the user knows, whoever signed them, for whatever name and time.
#[derive(Debug)]
struct Pinned {
    known: Vec<Thumbprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (short, long) = (Sha1::digest(end_entity), Sha256::digest(end_entity));
        let fits = |known: &Thumbprint| match known {
            Thumbprint::Sha1(digest) => digest[..] == short[..],
            Thumbprint::Sha256(digest) => digest[..] == long[..],
        };
        if self.known.iter().any(fits) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
