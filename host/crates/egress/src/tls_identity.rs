//! TLS settings of one endpoint: its trusted certificates and the client certificate.

use std::net::IpAddr;

use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::CertificateError;
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use setgate_base::crypto;
use setgate_base::trust::{CertificateInfo, TrustAnchors, check_pinned};
use setgate_domain::id::Digest;
use setgate_domain::secret::Secret;

/// Limit for the certificates in one PEM text.
pub const CERTIFICATES_MAX: usize = 16;
/// Limit for one PEM text in bytes.
pub const PEM_BYTES_MAX: usize = 64 << 10;
/// Line length of PEM in characters (RFC 7468 section 2).
const LINE_CHARS: usize = 64;

/// Why certificates or a key are refused. Contains no part of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsIdentityError {
    /// The text is longer than [`PEM_BYTES_MAX`].
    #[error("it is longer than {PEM_BYTES_MAX} bytes")]
    TooLong,
    /// The text is not valid PEM.
    #[error("it cannot be read as PEM: {0}")]
    Pem(String),
    /// A private key among the certificates, which are readable by everybody who may read the subscription.
    #[error("it contains a private key: send only the certificates, and the key as `client_key_pem`")]
    KeyAmongCertificates,
    /// The expected item is missing.
    #[error("it contains no {0}")]
    Empty(&'static str),
    /// More than [`CERTIFICATES_MAX`] certificates.
    #[error("it contains {0} certificates: at most {CERTIFICATES_MAX} are allowed")]
    TooMany(usize),
    /// A certificate that the TLS library cannot parse.
    #[error("certificate {nth} cannot be used: {why}")]
    Certificate {
        /// Position of the certificate, starting at 1.
        nth: usize,
        /// The library's error message.
        why: String,
    },
    /// A certificate of a version that TLS does not accept from receivers or clients.
    #[error("certificate {nth} is not of version 3 and names no host: create a valid one: `{command}`")]
    Version {
        /// Position of the certificate, starting at 1.
        nth: usize,
        /// A command that creates a valid certificate.
        command: String,
    },
    /// The certificate is not an authority, and can never be valid as the receiver's own.
    #[error(
        "certificate {nth} is not a CA, so it is valid only for a receiver that presents exactly it, but {why}. Use the \
         CA that issued the receiver's certificate, or create a valid one: `{command}`"
    )]
    NeverValid {
        /// Position of the certificate, starting at 1.
        nth: usize,
        /// The reason.
        why: String,
        /// A command that creates a valid certificate.
        command: String,
    },
    /// A key that the TLS library cannot parse.
    #[error("the key cannot be used: {0}; give PKCS#8, PKCS#1 or SEC1 without a passphrase")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the key does not match the first certificate")]
    Mismatch,
}

/// Parsed certificates, without any other content of the PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates(Vec<CertificateDer<'static>>);

impl Certificates {
    /// Parses PEM text. Text between the certificates is ignored.
    pub fn parse(text: &str) -> Result<Self, TlsIdentityError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(TlsIdentityError::TooLong);
        }
        // Checked as text, because the parser skips unknown kinds, such as encrypted keys.
        if text.contains("PRIVATE KEY") {
            return Err(TlsIdentityError::KeyAmongCertificates);
        }
        let mut found = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            if let (SectionKind::Certificate, der) = section.map_err(pem_error)? {
                found.push(CertificateDer::from(der));
            }
        }
        match found.len() {
            0 => return Err(TlsIdentityError::Empty("certificate")),
            count if count > CERTIFICATES_MAX => return Err(TlsIdentityError::TooMany(count)),
            _ => {}
        }
        for (at, certificate) in found.iter().enumerate() {
            if CertificateInfo::parse(certificate).is_some_and(|info| info.version < 3) {
                return Err(TlsIdentityError::Version { nth: at + 1, command: openssl_command("HOST") });
            }
            ParsedCertificate::try_from(certificate).map_err(|error| invalid_certificate(at, &error))?;
        }
        Ok(Self(found))
    }

    /// Parses the trusted certificates of an endpoint: authorities, or the receiver's own certificate. At least one of
    /// them must be usable for `host`. `now_s` is the current time in seconds since the Unix epoch.
    pub fn parse_trusted(text: &str, host: &str, now_s: i64) -> Result<Self, TlsIdentityError> {
        let read = Self::parse(text)?;
        read.anchors()?;
        let mut first_unfit = None;
        for (at, der) in read.0.iter().enumerate() {
            match never_valid_reason(der, host, now_s) {
                None => return Ok(read),
                Some(why) => {
                    let unfit = TlsIdentityError::NeverValid { nth: at + 1, why, command: openssl_command(host) };
                    first_unfit.get_or_insert(unfit);
                }
            }
        }
        first_unfit.map_or(Ok(read), Err)
    }

    /// PEM of only the certificates.
    pub fn pem(&self) -> String {
        let mut text = String::new();
        for der in &self.0 {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let body = BASE64_STANDARD.encode(der);
            for line in body.as_bytes().chunks(LINE_CHARS) {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }

    /// SHA-256 of each certificate, which is its common fingerprint.
    pub fn fingerprints(&self) -> Vec<Digest> {
        self.0.iter().map(|der| Digest(crypto::sha256(der))).collect()
    }

    pub(super) fn anchors(&self) -> Result<TrustAnchors, TlsIdentityError> {
        let mut anchors = TrustAnchors::empty();
        for (at, der) in self.0.iter().enumerate() {
            anchors.add(der.clone()).map_err(|error| invalid_certificate(at, &error))?;
        }
        Ok(anchors)
    }

    /// Combines the certificates with the private key of the first one.
    pub(super) fn certified_key(self, key: &Secret) -> Result<CertifiedKey, TlsIdentityError> {
        if key.expose().len() > PEM_BYTES_MAX {
            return Err(TlsIdentityError::TooLong);
        }
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsIdentityError::Empty("private key without a passphrase"),
            error => pem_error(error),
        })?;
        let certified = CertifiedKey::from_der(self.0, key, &ring::default_provider());
        certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsIdentityError::Mismatch,
            error => TlsIdentityError::Key(error.to_string()),
        })
    }
}

/// The decrypted TLS settings of one endpoint. Without them, the host's own authorities are trusted and no client
/// certificate is presented.
#[derive(Debug, Clone, Default)]
pub struct TlsIdentity {
    /// PEM of the only certificates that are trusted.
    pub ca_pem: Option<String>,
    /// PEM of the client certificate with its intermediate certificates, and of its private key.
    pub client: Option<(String, Secret)>,
}

impl TlsIdentity {
    /// Whether the key belongs to the certificate.
    pub fn check_key(certificates: &Certificates, key: &Secret) -> Result<(), TlsIdentityError> {
        certificates.clone().certified_key(key).map(drop)
    }

    /// Identifies the settings in the client cache. `None` if there are no settings.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        if self.ca_pem.is_none() && self.client.is_none() {
            return None;
        }
        // Hashes of the parts have a fixed length, so the concatenation is unambiguous.
        let mut parts = Vec::new();
        let client = self.client.as_ref();
        for part in [
            self.ca_pem.as_deref(),
            client.map(|(certificates, _)| certificates.as_str()),
            client.map(|(_, key)| key.expose()),
        ] {
            match part {
                Some(text) => {
                    parts.push(1);
                    parts.extend(crypto::sha256(text.as_bytes()));
                }
                None => parts.push(0),
            }
        }
        Some(crypto::sha256(&parts))
    }
}

/// The reason why a certificate that is not an authority can never be valid for a receiver at that host. `None` if it
/// may be valid.
fn never_valid_reason(der: &CertificateDer<'_>, host: &str, now_s: i64) -> Option<String> {
    let info = CertificateInfo::parse(der)?;
    if info.is_ca {
        return None;
    }
    // URLs contain IPv6 addresses in brackets.
    let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']')).ok()?;
    Some(match check_pinned(der, &name, now_s).err()? {
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidForName if !info.has_subject_alt_names => {
            format!("it names no host (subjectAltName), and the endpoint's is `{host}`")
        }
        CertificateError::NotValidForName => format!("it is for other hosts than the endpoint's, `{host}`"),
        // The certificate may become valid later.
        _ => return None,
    })
}

/// A command that creates a self-signed certificate for the receiver and its key.
fn openssl_command(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let kind = if host.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -keyout key.pem \
         -out certificate.pem -subj /CN={host} -addext subjectAltName={kind}:{host}"
    )
}

fn pem_error(error: pem::Error) -> TlsIdentityError {
    // The parser's messages quote the text, which may be a private key.
    TlsIdentityError::Pem(
        match error {
            pem::Error::MissingSectionEnd { .. } => "a section has no end",
            pem::Error::IllegalSectionStart { .. } => "a section begins with a malformed line",
            pem::Error::Base64Decode(_) => "a section is not base64",
            pem::Error::SectionTooLarge => "a section is too large",
            pem::Error::NoItemsFound => "it is empty",
            _ => "it is malformed",
        }
        .to_owned(),
    )
}

fn invalid_certificate(at: usize, error: &rustls::Error) -> TlsIdentityError {
    TlsIdentityError::Certificate { nth: at + 1, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, Secret) {
        let made = rcgen::generate_simple_self_signed(["receiver.example".to_owned()]).unwrap();
        (pem("CERTIFICATE", made.cert.der()), Secret::new(pem("PRIVATE KEY", &made.signing_key.serialize_der())))
    }

    fn pem(kind: &str, der: &[u8]) -> String {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn pem_round_trip_drops_other_text() {
        let (one, _) = made();
        let (two, _) = made();
        let read = Certificates::parse(&format!("issued by us\n{one}# the next\n{two}")).unwrap();
        let written = read.pem();
        assert!(!written.contains("issued") && written.lines().all(|line| line.len() <= LINE_CHARS), "{written}");
        assert_eq!(Certificates::parse_trusted(&written, "receiver.example", 1_800_000_000).unwrap(), read);
        assert_eq!(read.fingerprints().len(), 2);
    }

    #[test]
    fn invalid_certificates_are_described() {
        let (one, key) = made();
        let many = one.repeat(CERTIFICATES_MAX + 1);
        let long = format!("{}{one}", " ".repeat(PEM_BYTES_MAX));
        let broken = pem("CERTIFICATE", b"not DER");
        let encrypted =
            format!("{one}-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let combined = format!("{one}{}", key.expose());
        for (text, expected) in [
            ("", "it contains no certificate"),
            ("hello", "it contains no certificate"),
            (many.as_str(), "at most 16"),
            (&long, "longer than 65536 bytes"),
            (&broken, "certificate 1 cannot be used"),
            (&combined, "contains a private key"),
            (&encrypted, "contains a private key"),
            (&one[..one.len() - 30], "has no end"),
        ] {
            let said = Certificates::parse(text).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
        assert!(Certificates::parse(&one.repeat(CERTIFICATES_MAX)).is_ok());
    }

    #[test]
    fn never_valid_certificate_is_refused_with_a_fix() {
        let made = |names: &[&str], year, is_ca| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            if is_ca {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            pem("CERTIFICATE", params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der())
        };
        let (good, other) = (made(&["a.example"], 2100, false), made(&["b.example"], 2100, false));
        let (expired, nameless) = (made(&["a.example"], 2020, false), made(&[], 2100, false));
        let read = |text: &str, host| Certificates::parse_trusted(text, host, 1_800_000_000).map(drop);
        for (text, why) in [
            (&other, "certificate 1 is not a CA"),
            (&other, "for other hosts than the endpoint's, `a.example`"),
            (&expired, "has expired"),
            (&nameless, "names no host"),
            (&nameless, "-addext subjectAltName=DNS:a.example`"),
            (&format!("{other}{expired}"), "certificate 1"),
        ] {
            let said = read(text, "a.example").unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        assert!(read(&other, "[::1]").unwrap_err().to_string().contains("subjectAltName=IP:::1`"));
        for text in [good.clone(), format!("{other}{good}"), made(&[], 2100, true), made(&["b.example"], 2020, true)] {
            assert_eq!(read(&text, "a.example"), Ok(()));
        }
        assert_eq!(read(&made(&["127.0.0.1"], 2100, false), "127.0.0.1"), Ok(()));
    }

    #[test]
    fn key_must_match_certificate_and_is_not_quoted() {
        let (one, key) = made();
        let (_, other) = made();
        let certificates = Certificates::parse(&one).unwrap();
        assert_eq!(TlsIdentity::check_key(&certificates, &key), Ok(()));
        assert_eq!(TlsIdentity::check_key(&certificates, &other), Err(TlsIdentityError::Mismatch));
        for text in [
            "",
            "hush",
            &one,
            &pem("PRIVATE KEY", b"hush"),
            "-----BEGIN PRIVATE KEY-----\nhu*sh\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY hush\n",
            &" ".repeat(PEM_BYTES_MAX + 1),
        ] {
            let said = TlsIdentity::check_key(&certificates, &Secret::new(text.to_owned())).unwrap_err().to_string();
            assert!(!said.contains("hu"), "{said}");
        }
    }

    #[test]
    fn digest_depends_on_each_part() {
        let (one, key) = made();
        let (two, other) = made();
        let with = |ca: Option<&String>, client: Option<(&String, &Secret)>| {
            let client = client.map(|(certificate, key)| (certificate.clone(), key.clone()));
            TlsIdentity { ca_pem: ca.cloned(), client }.digest()
        };
        assert_eq!(with(None, None), None);
        let all = [
            with(Some(&one), None),
            with(Some(&two), None),
            with(None, Some((&one, &key))),
            with(None, Some((&one, &other))),
            with(Some(&one), Some((&one, &key))),
        ];
        for (at, digest) in all.iter().enumerate() {
            assert!(digest.is_some() && !all[..at].contains(digest), "{at}");
        }
        assert_eq!(with(Some(&one), None), all[0]);
    }
}
