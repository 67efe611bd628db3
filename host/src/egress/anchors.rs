//! Certificates that are trusted, and how a receiver's is checked against them.
//!
//! A certificate that may sign others is an authority. Any other one is trusted as it is: it is good for a receiver that
//! shows exactly it, as with curl and Node, whoever has signed it. What `openssl req -x509` makes is both, and so is
//! trusted both ways. Time and name are checked in any case.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::facts::Facts;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Anchors {
    authorities: RootCertStore,
    /// Trusted as they are.
    exact: Vec<CertificateDer<'static>>,
}

impl PartialEq for Anchors {
    fn eq(&self, other: &Self) -> bool {
        self.authorities.roots == other.authorities.roots && self.exact == other.exact
    }
}

impl Anchors {
    /// Nobody is trusted.
    pub(super) fn none() -> Self {
        Self { authorities: RootCertStore::empty(), exact: Vec::new() }
    }

    /// Trusts one more.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Error> {
        let facts = Facts::read(&certificate);
        // Without version 3 there is no word on it: old authorities are of version 1.
        let may_sign = facts.as_ref().is_none_or(|facts| facts.is_authority || facts.version < 3);
        if may_sign {
            self.authorities.add(certificate.clone())?;
        }
        // A name is what makes it a receiver's.
        if !may_sign || facts.is_some_and(|facts| facts.has_alternative_names || facts.common_name.is_some()) {
            self.exact.push(certificate);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.exact.is_empty()
    }

    pub(super) fn verifier(self) -> Arc<dyn ServerCertVerifier> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        // It refuses to be made of nothing, and nothing else.
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(self.authorities), provider).build().ok();
        Arc::new(Verifier { authorities, exact: self.exact, algorithms })
    }
}

/// Whether a certificate is for that name and time.
pub(super) fn check_as_it_is(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now_s: i64,
) -> Result<(), CertificateError> {
    let facts = Facts::read(certificate).ok_or(CertificateError::BadEncoding)?;
    if now_s < facts.not_before {
        return Err(CertificateError::NotValidYet);
    }
    if now_s > facts.not_after {
        return Err(CertificateError::Expired);
    }
    if !facts.has_alternative_names {
        // As curl and Node do, and for a certificate that was given itself alone.
        let is_for = facts.common_name.is_some_and(|common_name| is_called(name, &common_name));
        return if is_for { Ok(()) } else { Err(CertificateError::NotValidForName) };
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
    verify_server_name(&parsed, name).map_err(|_| CertificateError::NotValidForName)
}

fn is_called(name: &ServerName<'_>, common_name: &str) -> bool {
    match name {
        ServerName::DnsName(name) => name.as_ref().eq_ignore_ascii_case(common_name),
        ServerName::IpAddress(ip) => common_name.parse::<IpAddr>().is_ok_and(|called| called == IpAddr::from(*ip)),
        _ => false,
    }
}

#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    exact: Vec<CertificateDer<'static>>,
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
        if self.exact.contains(end_entity) {
            let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return check_as_it_is(end_entity, server_name, now_s)
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
