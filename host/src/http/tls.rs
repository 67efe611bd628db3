//! TLS of a listener: certificate, key and, for mTLS, the certificate authorities of its clients. Read at the start and
//! at each reload of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Listener;

/// A TLS file of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be started with `{}`: {why}", path.display())]
pub struct Error {
    path: PathBuf,
    why: String,
}

/// The current TLS configuration of a listener; clones share it.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl Tls {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    /// The acceptor for one more connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }

    /// Replaces the configuration for new connections. Open ones keep theirs, and none of their sessions can be
    /// resumed.
    pub fn put(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }
}

/// Reads and checks a listener's files. `None` if the listener does not use TLS.
///
/// # Errors
/// If a file is missing or not PEM, or if certificate and key do not match; names the file.
pub fn read(listener: &Listener) -> Result<Option<Arc<ServerConfig>>, Error> {
    let (Some(certificate), Some(key)) = (&listener.tls_certificate, &listener.tls_key) else { return Ok(None) };
    let shown = chain(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Error { path: key.clone(), why: format!("no private key in PEM: {error}") })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let in_file = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls::Error| Error { path, why: error.to_string() }
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(in_file(certificate))?;
    let builder = match &listener.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in chain(path)? {
                roots.add(authority).map_err(in_file(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| Error { path: path.clone(), why: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(shown, private).map_err(in_file(certificate))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |why: String| Error { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(format!("no certificates in PEM: {error}")))?;
    if chain.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(chain) }
}
