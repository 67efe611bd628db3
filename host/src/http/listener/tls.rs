//! TLS of a listener: certificate, key and, for mTLS, the certificate authorities and certificates of its clients. Read at
//! the start and at each reload of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use setgate_base::trust::{CertificateInfo, TrustAnchors};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::settings::Listener;

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
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(in_file(certificate))?;
    let builder = match &listener.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(clients(path)?),
    };
    let mut config = builder.with_single_cert(shown, private).map_err(in_file(certificate))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Creates a self-signed client certificate and its key.
const OPENSSL: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -keyout key.pem \
                       -out certificate.pem -subj /CN=client";

/// Verifies clients against the certificates in the file; see [`TrustAnchors`].
fn clients(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let failed = |why: String| Error { path: path.to_owned(), why };
    let mut anchors = TrustAnchors::empty();
    for (at, certificate) in chain(path)?.into_iter().enumerate() {
        let nth = at + 1;
        if let Some(info) = CertificateInfo::parse(&certificate) {
            if info.version < 3 {
                return Err(failed(format!(
                    "certificate {nth} in it is not of version 3, so TLS refuses clients that present it; create a proper one: `{OPENSSL}`"
                )));
            }
            // Not an error: the expiry of one client's certificate must not prevent a restart of the host. The validity
            // period of an authority is not checked.
            if info.check_validity_period(seconds_now()) == Err(CertificateError::Expired) {
                warn!(
                    path = %path.display(), certificate = nth,
                    "certificate in `client_ca` has expired: clients that present it are refused; replace the certificate"
                );
            }
        }
        anchors.add(certificate).map_err(|error| {
            failed(format!("certificate {nth} in it cannot be used: {error}; create a proper one: `{OPENSSL}`"))
        })?;
    }
    Ok(anchors.client_verifier())
}

/// Seconds since the Unix epoch, of the clock that rustls uses for validity periods.
fn seconds_now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |why: String| Error { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(format!("no certificates in PEM: {error}")))?;
    if chain.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(chain) }
}
