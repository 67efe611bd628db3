//! Operating a host: listeners, changing settings, taking it out of service, backups.

mod alerts;
mod backup;
mod deploy;
mod drain;
mod listeners;
mod master_key;
mod reload;
mod traces;

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority, and a directory for PEM files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Certified {
    chain: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
    private: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), issuer }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The authority's own certificate, in a file.
    fn file(&self) -> PathBuf {
        self.write("ca.pem", "CERTIFICATE", self.issuer.der())
    }

    /// A certificate for a name or an address, in files whose names start with `file`.
    fn certify(&self, file: &str, name: &str) -> Certified {
        let pair = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&pair, &self.issuer).unwrap();
        let der = certificate.der().clone();
        let private = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        Certified {
            chain: self.write(&format!("{file}.pem"), "CERTIFICATE", &der),
            key: self.write(&format!("{file}.key"), "PRIVATE KEY", &pair.serialize_der()),
            der,
            private,
        }
    }

    fn write(&self, name: &str, label: &str, der: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, pem(label, der)).unwrap();
        path
    }
}

/// Lines of a table that enable TLS on its listener.
fn speaks(certificate: &Path, key: &Path) -> String {
    format!("tls_certificate = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
