//! Trust anchors, and verification of a receiver's certificate against them. [`super::client_verifier`] verifies clients.
//!
//! A certificate that may sign others is trusted as an authority. Any other certificate is trusted only as the
//! receiver's or client's own: the peer must present exactly this certificate, regardless of its issuer, as with curl
//! and Node. A certificate made with `openssl req -x509` is both and is trusted in both ways. The validity period is
//! always checked, and so is the host name of a receiver.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate_info::CertificateInfo;

#[derive(Debug, Clone)]
pub struct TrustAnchors {
    pub(super) authorities: RootCertStore,
    /// Certificates that must match exactly.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl PartialEq for TrustAnchors {
    fn eq(&self, other: &Self) -> bool {
        self.authorities.roots == other.authorities.roots && self.pinned == other.pinned
    }
}

impl TrustAnchors {
    /// No trust anchors.
    pub fn empty() -> Self {
        Self { authorities: RootCertStore::empty(), pinned: Vec::new() }
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Error> {
        let info = CertificateInfo::parse(&certificate);
        // Certificates before version 3 cannot state it, and some old authorities have version 1.
        let may_sign = info.as_ref().is_none_or(|info| info.is_ca || info.version < 3);
        if may_sign {
            self.authorities.add(certificate.clone())?;
        } else {
            ParsedCertificate::try_from(&certificate)?;
        }
        self.pinned.push(certificate);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.pinned.is_empty()
    }

    pub fn verifier(self) -> Arc<dyn ServerCertVerifier> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        // Building fails only if there are no authorities at all.
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(self.authorities), provider).build().ok();
        Arc::new(Verifier { authorities, pinned: self.pinned, algorithms })
    }
}

/// Whether a certificate is valid for that name and time.
pub fn check_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now_s: i64,
) -> Result<(), CertificateError> {
    let info = CertificateInfo::parse(certificate).ok_or(CertificateError::BadEncoding)?;
    info.check_validity_period(now_s)?;
    if !info.has_subject_alt_names {
        // The common name is accepted as a fallback, as in curl and Node, but only for certificates that must match
        // exactly.
        let is_for = info.common_name.is_some_and(|common_name| matches_common_name(name, &common_name));
        return if is_for { Ok(()) } else { Err(CertificateError::NotValidForName) };
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
    verify_server_name(&parsed, name).map_err(|_| CertificateError::NotValidForName)
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn matches_common_name(name: &ServerName<'_>, common_name: &str) -> bool {
    match name {
        ServerName::DnsName(name) => name.as_ref().eq_ignore_ascii_case(common_name),
        ServerName::IpAddress(ip) => common_name.parse::<IpAddr>().is_ok_and(|named| named == IpAddr::from(*ip)),
        _ => false,
    }
}

#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.contains(end_entity) {
            return check_pinned(end_entity, server_name, seconds(now))
                .map(|()| ServerCertVerified::assertion())
                .map_err(Error::InvalidCertificate);
        }
        match &self.authorities {
            Some(authorities) => {
                authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
