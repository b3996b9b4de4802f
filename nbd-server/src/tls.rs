//! TLS without I/O: certificates from PEM files, and records in memory.
//!
//! X.509 only. Files have the names that qemu, libvirt and nbdkit use, so one folder serves all of them.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

/// Plaintext that is encrypted at once.
const PIECE: usize = 64 << 10;

/// The largest PEM file that is read: a thousand certificates.
const MAX_PEM: u64 = 4 << 20;

/// A server's certificate and key, and whose clients it lets in.
#[derive(Clone, Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// Whether it lets in only who shows a certificate.
    authenticates: bool,
}

/// Whom a client trusts, and its own certificate if it has one.
#[derive(Clone, Debug)]
pub struct TlsClient(Arc<ClientConfig>);

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They must, and it must be signed by the authority in `ca-cert.pem`.
    Required,
    /// Nobody asks them for one: the connection is secret, but open to everyone.
    Ignored,
}

impl TlsServer {
    /// From `server-cert.pem`, `server-key.pem` and, if clients need certificates, `ca-cert.pem` in a folder.
    ///
    /// # Errors
    /// If a file is missing, malformed, or does not belong with the others.
    pub fn from_folder(folder: &Path, clients: ClientCertificates) -> io::Result<Self> {
        let ca = match clients {
            ClientCertificates::Required => Some(read(&folder.join("ca-cert.pem"))?),
            ClientCertificates::Ignored => None,
        };
        let (cert, key) = (read(&folder.join("server-cert.pem"))?, read(&folder.join("server-key.pem"))?);
        Self::from_pem(&cert, &key, ca.as_deref())
    }

    /// From the text of PEM files: the certificate with those that lead to its authority, the key, and the authority that signs
    /// clients' certificates, if they must have one.
    ///
    /// # Errors
    /// If they are malformed or do not belong together.
    pub fn from_pem(cert: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> io::Result<Self> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(invalid)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(roots(ca)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
                builder.with_client_cert_verifier(verifier.build().map_err(invalid)?)
            }
        };
        let config = builder.with_single_cert(certificates(cert)?, private_key(key)?).map_err(invalid)?;
        Ok(Self { config: Arc::new(config), authenticates: client_ca.is_some() })
    }

    /// Whether it lets in only who shows a certificate.
    pub(crate) const fn authenticates(&self) -> bool {
        self.authenticates
    }

    pub(crate) fn session(&self) -> io::Result<Tls> {
        Ok(Tls::new(ServerConnection::new(Arc::clone(&self.config)).map_err(invalid)?.into()))
    }
}

impl TlsClient {
    /// From `ca-cert.pem` and, if both are there, `client-cert.pem` and `client-key.pem` in a folder.
    ///
    /// # Errors
    /// If a file is missing, malformed, or does not belong with the others.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        let ca = read(&folder.join("ca-cert.pem"))?;
        let (cert, key) = (folder.join("client-cert.pem"), folder.join("client-key.pem"));
        if !(cert.exists() || key.exists()) {
            return Self::from_pem(&ca, None);
        }
        let (cert, key) = (read(&cert)?, read(&key)?);
        Self::from_pem(&ca, Some((&cert, &key)))
    }

    /// From the text of PEM files: the authority that signs servers' certificates, and the client's own certificate and key.
    ///
    /// # Errors
    /// If they are malformed or do not belong together.
    pub fn from_pem(ca: &[u8], own: Option<(&[u8], &[u8])>) -> io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_root_certificates(roots(ca)?);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(invalid)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// With a configuration of rustls, for callers who trust in ways of their own.
    #[must_use]
    pub const fn from_config(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    /// A session with a server that must prove to be `name`.
    pub(crate) fn session(&self, name: &str) -> io::Result<Tls> {
        let name = ServerName::try_from(name.to_owned()).map_err(invalid)?;
        Ok(Tls::new(ClientConnection::new(Arc::clone(&self.0), name).map_err(invalid)?.into()))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    #[allow(clippy::disallowed_methods, reason = "certificates that the caller names")]
    let file = std::fs::File::open(path).map_err(explain)?;
    let mut bytes = Vec::new();
    file.take(MAX_PEM).read_to_end(&mut bytes).map_err(explain)?;
    Ok(bytes)
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(invalid)
}

fn private_key(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(invalid)
}

fn roots(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(invalid)?;
    }
    if roots.is_empty() {
        return Err(invalid("there is no certificate of an authority"));
    }
    Ok(roots)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// One end of a TLS connection, in memory.
pub(crate) struct Tls {
    connection: Connection,
    /// Records received and not yet looked at.
    received: Vec<u8>,
    taken: usize,
}

impl Tls {
    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Self { connection, received: Vec::new(), taken: 0 }
    }

    /// Takes what came from the socket.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.received.drain(..self.taken);
        self.taken = 0;
        self.received.extend_from_slice(bytes);
    }

    /// Goes on with the handshake as far as what was fed allows, appends what is to be sent, and returns whether it is over.
    ///
    /// # Errors
    /// If the peer does not prove who it is, or does not speak TLS; what is to be sent says so to it.
    pub(crate) fn handshake(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut digested = Ok(true);
        while self.connection.is_handshaking() && matches!(digested, Ok(true)) {
            digested = self.digest();
        }
        self.send_pending(out)?;
        digested.map(|_| !self.connection.is_handshaking())
    }

    /// Decrypts into `buf`; `None` if more must be fed first, 0 at the end of the connection.
    pub(crate) fn receive(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.connection.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many peers close the socket without saying so in TLS first. The protocol within has lengths of its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
                result => return result.map(Some),
            }
            if !self.digest()? {
                return Ok(None);
            }
        }
    }

    /// Encrypts `bytes` and appends the records.
    pub(crate) fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.connection.writer().write_all(piece)?;
            self.send_pending(out)?;
        }
        Ok(())
    }

    /// Looks at records that were fed; returns whether there were any.
    fn digest(&mut self) -> io::Result<bool> {
        let mut rest = self.received.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(false);
        }
        self.taken += self.connection.read_tls(&mut rest)?;
        self.connection.process_new_packets().map_err(invalid)?;
        Ok(true)
    }

    fn send_pending(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(out)?;
        }
        Ok(())
    }
}
