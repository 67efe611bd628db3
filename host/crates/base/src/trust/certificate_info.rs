//! Parses the parts of a certificate (RFC 5280 section 4.1) that decide how it can be trusted and that the TLS library
//! does not expose: version, validity period, whether it is an authority, and its names.
//!
//! Signatures and names are verified only by the TLS library. Nothing in this module makes a certificate valid.

use rustls::CertificateError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// 3 for all certificates that TLS uses today.
    pub version: u8,
    /// The issuer's name in DER, without the tag and length of its sequence.
    pub issuer: Vec<u8>,
    /// In seconds since the Unix epoch.
    pub not_before: i64,
    /// In seconds since the Unix epoch.
    pub not_after: i64,
    /// Whether it may sign other certificates (basic constraints).
    pub is_ca: bool,
    /// Whether it has a subject alternative name extension.
    pub has_subject_alt_names: bool,
    /// The common name of its subject, which identified hosts before subject alternative names.
    pub common_name: Option<String>,
}

const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

impl CertificateInfo {
    /// Parses DER. `None` if it is not a certificate.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut body = Der(certificate.take(SEQUENCE)?);
        let version = match body.take(VERSION) {
            Some(version) => Der(version).take(INTEGER)?.first()?.saturating_add(1),
            None => 1,
        };
        body.take(INTEGER)?; // the serial number
        body.take(SEQUENCE)?; // the algorithm of the signature
        let issuer = body.take(SEQUENCE)?.to_vec();
        let mut validity = Der(body.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let common_name = common_name(body.take(SEQUENCE)?);
        body.take(SEQUENCE)?; // the key
        let mut info =
            Self { version, issuer, not_before, not_after, is_ca: false, has_subject_alt_names: false, common_name };
        // Unique ids may precede the extensions, but they are not used in practice.
        while let Some((tag, content)) = body.next() {
            if tag == EXTENSIONS {
                info.read_extensions(Der(content).take(SEQUENCE)?)?;
            }
        }
        Some(info)
    }

    /// Checks the validity period. `now_s` is in seconds since the Unix epoch.
    pub fn check_validity_period(&self, now_s: i64) -> Result<(), CertificateError> {
        if now_s < self.not_before {
            return Err(CertificateError::NotValidYet);
        }
        if now_s > self.not_after {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Der(extensions);
        while let Some(extension) = extensions.take(SEQUENCE) {
            let mut extension = Der(extension);
            let id = extension.take(OBJECT_ID)?;
            let _is_critical = extension.take(BOOLEAN);
            let value = extension.take(OCTET_STRING)?;
            match id {
                ALTERNATIVE_NAMES => self.has_subject_alt_names = true,
                BASIC_CONSTRAINTS => {
                    let flag = Der(Der(value).take(SEQUENCE)?).take(BOOLEAN);
                    self.is_ca = flag.is_some_and(|flag| flag.iter().any(|byte| *byte != 0));
                }
                _ => {}
            }
        }
        Some(())
    }
}

fn common_name(subject: &[u8]) -> Option<String> {
    let mut subject = Der(subject);
    std::iter::from_fn(|| subject.take(SET)).find_map(|names| {
        let mut name = Der(Der(names).take(SEQUENCE)?);
        let is_common_name = name.take(OBJECT_ID)? == COMMON_NAME;
        let (_, text) = name.next()?;
        is_common_name.then(|| String::from_utf8(text.to_vec()).ok()).flatten()
    })
}

/// The remaining input of a sequence of values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value and its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            // Certificates are limited to 64 KiB, so longer length fields cannot occur.
            0x81..=0x83 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next value, if it has that tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = Der(self.0);
        let (_, content) = ahead.next().filter(|(found, _)| *found == tag)?;
        self.0 = ahead.0;
        Some(content)
    }

    /// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` afterwards.
    fn time(&mut self) -> Option<i64> {
        let (tag, text) = self.next()?;
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = digits.split_at_checked(2)?;
                let year: i16 = year.parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = digits.split_at_checked(4)?;
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        let mut parts = rest.as_bytes().chunks(2).map(|part| std::str::from_utf8(part).ok()?.parse::<i8>().ok());
        let mut part = || parts.next().flatten();
        let date = jiff::civil::date(year, 1, 1).with().month(part()?).day(part()?).build().ok()?;
        let time = jiff::civil::Time::new(part()?, part()?, part()?, 0).ok()?;
        Some(date.to_datetime(time).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2025, 2, 3);
        params.not_after = rcgen::date_time_ymd(2051, 1, 1);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn parses_certificate_fields() {
        let plain = CertificateInfo::parse(&made(|_| {})).unwrap();
        assert_eq!((plain.version, plain.is_ca, plain.has_subject_alt_names), (3, false, false));
        // 2025-02-03 and 2051-01-01, at midnight.
        assert_eq!((plain.not_before, plain.not_after), (1_738_540_800, 2_556_144_000));
        let authority = made(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::OrganizationName, "Acme");
            params.distinguished_name.push(DnType::CommonName, "acme root");
        });
        let authority = CertificateInfo::parse(&authority).unwrap();
        assert!(authority.is_ca && !authority.has_subject_alt_names);
        let explicitly_none = made(|params| {
            params.is_ca = IsCa::ExplicitNoCa;
            params.subject_alt_names = vec![rcgen::SanType::DnsName("a.example".try_into().unwrap())];
        });
        let named = CertificateInfo::parse(&explicitly_none).unwrap();
        assert!(!named.is_ca && named.has_subject_alt_names);
    }

    #[test]
    fn finds_common_name_among_other_attributes() {
        let der = made(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Acme");
            params.distinguished_name.push(DnType::CommonName, "host.example");
        });
        assert_eq!(CertificateInfo::parse(&der).unwrap().common_name.as_deref(), Some("host.example"));
    }

    #[test]
    fn invalid_der_yields_none_without_panic() {
        let der = made(|_| {});
        for length in 0..der.len() {
            assert_eq!(CertificateInfo::parse(&der[..length]), None, "{length}");
        }
        for at in 0..der.len() {
            let mut broken = der.clone();
            broken[at] ^= 0xff;
            let _ = CertificateInfo::parse(&broken);
        }
    }
}
