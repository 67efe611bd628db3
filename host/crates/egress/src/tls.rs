//! TLS configuration: trusted authorities and client settings.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use setgate_base::trust::TrustAnchors;

use super::tls_identity::{Certificates, TlsIdentity, TlsIdentityError};

/// Why egress could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit is zero, so that nothing could ever be sent.
    #[error("`egress.{0}` is 0: nothing could ever be sent; leave it out for the default")]
    Zero(&'static str),
    /// A file of `ca_files` cannot be read or is not PEM.
    #[error("cannot read certificates from {path}: expected a PEM file")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// A file of `ca_files` contains no certificate.
    #[error("there is no certificate in {path}")]
    CaFileEmpty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of `ca_files` cannot be a trust anchor.
    #[error("a certificate in {path} cannot be trusted as an authority")]
    CaCertificate {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

/// Limit for the cached TLS sessions of one client, which is also the number of receivers that can resume a session.
const RESUMPTIONS_MAX: usize = 16;

/// The trust settings for endpoints without their own.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: TrustAnchors,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.anchors == other.anchors
    }
}

impl Trust {
    /// Loads the system's authorities (or those of `SSL_CERT_FILE`) and `ca_files`.
    pub(super) fn load(ca_files: &[PathBuf]) -> Result<Self, Error> {
        let mut anchors = TrustAnchors::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "some of the machine's certificate authorities cannot be read");
        }
        for certificate in native.certs {
            // System stores contain unusual certificates. Those that cannot be parsed are skipped, as in browsers.
            let _unreadable = anchors.add(certificate);
        }
        for path in ca_files {
            let failed = |source| Error::CaFile { path: path.clone(), source };
            let mut found = false;
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                let refused = |source| Error::CaCertificate { path: path.clone(), source };
                anchors.add(certificate.map_err(failed)?).map_err(refused)?;
                found = true;
            }
            if !found {
                return Err(Error::CaFileEmpty { path: path.clone() });
            }
        }
        if anchors.is_empty() {
            // Not an error, because a node may send only to plain http receivers. Every https attempt will fail with a
            // clear message.
            tracing::warn!(
                "no certificate authority is trusted: install the package ca-certificates or set egress.ca_files"
            );
        }
        let verifier = anchors.clone().verifier();
        Ok(Self { anchors, verifier })
    }

    /// The client configuration for an endpoint with that identity: TLS 1.2 and 1.3, with HTTP/2 preferred over
    /// HTTP/1.1 (ALPN). Sessions are resumed only among connections of this configuration.
    pub(super) fn client_config(&self, identity: &TlsIdentity) -> Result<ClientConfig, TlsIdentityError> {
        let verifier = match &identity.ca_pem {
            None => Arc::clone(&self.verifier),
            Some(pem) => Certificates::parse(pem)?.anchors()?.verifier(),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            // This is safe: the verifier performs the usual checks, and in addition matches some certificates exactly.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &identity.client {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let certified = Certificates::parse(certificates)?.certified_key(key)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(RESUMPTIONS_MAX);
        Ok(config)
    }
}

/// TLS for a server that the operator has configured. Trusts the system's authorities and these files.
///
/// # Errors
/// If a file contains no valid certificates.
pub fn operator_tls_config(ca_files: &[PathBuf]) -> Result<ClientConfig, Error> {
    let trust = Trust::load(ca_files)?;
    Ok(trust.client_config(&TlsIdentity::default()).expect("no settings that could be invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_ca_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            [path]
        };
        let missing = [folder.path().join("none.pem")];
        assert!(matches!(Trust::load(&missing), Err(Error::CaFile { .. })));
        assert!(matches!(Trust::load(&file("empty.pem", "")), Err(Error::CaFileEmpty { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Trust::load(&file("broken.pem", broken)), Err(Error::CaCertificate { .. })));
        assert!(Trust::load(&[]).unwrap().client_config(&TlsIdentity::default()).is_ok());
    }
}
