//! Verification of a client's certificate: an authority among the trust anchors has issued it, or it matches one of them
//! exactly. For an exact match, neither a name nor an extended key usage is required.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate_info::CertificateInfo;
use super::trust_anchors::{TrustAnchors, seconds};

impl TrustAnchors {
    /// Requires a certificate of every client.
    pub fn client_verifier(self) -> Arc<dyn ClientCertVerifier> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        // Clients with several certificates select one by these issuer names.
        let mut issuers = self.authorities.subjects();
        for info in self.pinned.iter().filter_map(|certificate| CertificateInfo::parse(certificate)) {
            let issuer = DistinguishedName::in_sequence(&info.issuer);
            if !issuers.iter().any(|known| known.as_ref() == issuer.as_ref()) {
                issuers.push(issuer);
            }
        }
        // Building fails only if there are no authorities at all.
        let authorities =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities), provider).build().ok();
        Arc::new(Verifier { authorities, pinned: self.pinned, issuers, algorithms })
    }
}

#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    issuers: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.issuers
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.pinned.contains(end_entity) {
            let info = CertificateInfo::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
            info.check_validity_period(seconds(now))?;
            return Ok(ClientCertVerified::assertion());
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn named(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2045, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        params
    }

    fn by_itself(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        named(name, change).self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn may_sign(params: &mut CertificateParams) {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }

    #[test]
    fn client_needs_pinned_or_ca_issued_certificate() {
        let authority = CertifiedIssuer::self_signed(named("staff", may_sign), KeyPair::generate().unwrap()).unwrap();
        let of_staff = named("person", |_| {}).signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
        let own = by_itself("person", |_| {});
        let own_that_signs = by_itself("person", may_sign);
        let expired = by_itself("person", |params| params.not_after = date_time_ymd(2026, 1, 1));
        let later = by_itself("person", |params| params.not_before = date_time_ymd(2040, 1, 1));
        // In 2033.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
        let outcome = |trusted: &[&CertificateDer<'static>], shown: &CertificateDer<'static>| {
            let mut anchors = TrustAnchors::empty();
            for certificate in trusted {
                anchors.add((*certificate).clone()).unwrap();
            }
            anchors.client_verifier().verify_client_cert(shown, &[], now).map(drop)
        };
        let good = |trusted: &[&CertificateDer<'static>], shown| assert_eq!(outcome(trusted, shown), Ok(()));
        good(&[&own], &own);
        good(&[&own_that_signs], &own_that_signs);
        good(&[of_staff.der()], of_staff.der());
        good(&[authority.der()], of_staff.der());
        good(&[authority.der(), &own], of_staff.der());
        good(&[authority.der(), &own], &own);
        // Other certificates with the same name.
        assert_eq!(outcome(&[&own], &by_itself("person", |_| {})), Err(CertificateError::UnknownIssuer.into()));
        assert!(outcome(&[authority.der(), &own], &by_itself("person", |_| {})).is_err());
        assert!(outcome(&[authority.der()], &own).is_err());
        assert_eq!(outcome(&[&expired], &expired), Err(CertificateError::Expired.into()));
        assert_eq!(outcome(&[&later], &later), Err(CertificateError::NotValidYet.into()));
    }

    #[test]
    fn clients_receive_issuer_hints() {
        let authority = CertifiedIssuer::self_signed(named("staff", may_sign), KeyPair::generate().unwrap()).unwrap();
        let another = CertifiedIssuer::self_signed(named("guests", may_sign), KeyPair::generate().unwrap()).unwrap();
        let guest = named("guest", |_| {}).signed_by(&KeyPair::generate().unwrap(), &another).unwrap();
        let mut anchors = TrustAnchors::empty();
        for certificate in [authority.der().clone(), guest.der().clone(), by_itself("own", |_| {})] {
            anchors.add(certificate).unwrap();
        }
        let verifier = anchors.client_verifier();
        let names: Vec<_> =
            verifier.root_hint_subjects().iter().map(|name| String::from_utf8_lossy(name.as_ref())).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        for (name, expected) in names.iter().zip(["staff", "guests", "own"]) {
            assert!(name.ends_with(expected), "{name:?}");
        }
    }
}
