//! The key of a JWK: its type-specific members (RFC 7518 section 6, RFC 8037 section 2).

use setgate_domain::algorithm::Algorithm;
use setgate_domain::json::{Object, quote};

use crate::base64url;
use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN};
use crate::shown::shown;
use crate::skip_reason::SkipReason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// The point in uncompressed form: 4, x, y (SEC 1 section 2.3.3).
    P256([u8; POINT_BYTES]),
    /// RFC 8032 section 5.1.5.
    Ed25519([u8; COORDINATE_BYTES]),
}

/// Length in bytes of a coordinate of P-256 and of an Ed25519 key.
pub(crate) const COORDINATE_BYTES: usize = 32;
/// Length in bytes of an uncompressed point of P-256.
pub(crate) const POINT_BYTES: usize = 1 + 2 * COORDINATE_BYTES;
/// First byte of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// Largest RSA exponent: what `ring` supports. It bounds the cost of a key that a stranger chose.
const RSA_EXPONENT_MAX: u64 = (1 << 33) - 1;

impl Material {
    /// Reads the members of a JWK of this `kty`.
    pub(crate) fn parse(kty: &str, object: &Object<'_>) -> Result<Self, SkipReason> {
        match kty {
            "RSA" => Self::rsa(bytes(object, "n")?, bytes(object, "e")?),
            "EC" => {
                curve(object, "P-256")?;
                Ok(Self::p256(coordinate(object, "x")?, coordinate(object, "y")?))
            }
            "OKP" => {
                curve(object, "Ed25519")?;
                Ok(Self::Ed25519(coordinate(object, "x")?))
            }
            other => Err(SkipReason::KeyType { kty: shown(other) }),
        }
    }

    /// Modulus and exponent, both big-endian.
    pub(crate) fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, SkipReason> {
        let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
        let bits = bits(&n);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(SkipReason::RsaBits { bits });
        }
        let exponent = if e.len() > 8 { u64::MAX } else { e.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)) };
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !(3..=RSA_EXPONENT_MAX).contains(&exponent) || !is_odd(&e) || !is_odd(&n) {
            return Err(SkipReason::RsaRange);
        }
        Ok(Self::Rsa { n, e })
    }

    fn p256(x: [u8; COORDINATE_BYTES], y: [u8; COORDINATE_BYTES]) -> Self {
        let mut point = [UNCOMPRESSED; POINT_BYTES];
        point[1..=COORDINATE_BYTES].copy_from_slice(&x);
        point[1 + COORDINATE_BYTES..].copy_from_slice(&y);
        Self::P256(point)
    }

    /// Whether signatures of this algorithm are made with such keys.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    /// The required members as JSON, in the order of their names: the input of a thumbprint (RFC 7638 section 3.2).
    pub(crate) fn members(&self) -> Vec<(&'static str, String)> {
        let number = |bytes: &[u8]| quote(&base64url::encode(bytes));
        match self {
            Self::Rsa { n, e } => vec![("e", number(e)), ("kty", quote("RSA")), ("n", number(n))],
            Self::P256(point) => {
                let (x, y) = point[1..].split_at(COORDINATE_BYTES);
                vec![("crv", quote("P-256")), ("kty", quote("EC")), ("x", number(x)), ("y", number(y))]
            }
            Self::Ed25519(x) => vec![("crv", quote("Ed25519")), ("kty", quote("OKP")), ("x", number(x))],
        }
    }

    /// Allocated bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Rsa { n, e } => n.capacity() + e.capacity(),
            Self::P256(_) | Self::Ed25519(_) => 0,
        }
    }
}

/// A string member that must be there.
pub(crate) fn required(object: &Object<'_>, member: &'static str) -> Result<String, SkipReason> {
    object.string(member).ok_or(SkipReason::Member { member })
}

fn curve(object: &Object<'_>, expected: &str) -> Result<(), SkipReason> {
    let crv = required(object, "crv")?;
    if crv == expected { Ok(()) } else { Err(SkipReason::Curve { crv: shown(&crv) }) }
}

fn bytes(object: &Object<'_>, member: &'static str) -> Result<Vec<u8>, SkipReason> {
    base64url::decode(required(object, member)?).ok_or(SkipReason::Encoding { member })
}

fn coordinate(object: &Object<'_>, member: &'static str) -> Result<[u8; COORDINATE_BYTES], SkipReason> {
    let bytes = bytes(object, member)?;
    <[u8; COORDINATE_BYTES]>::try_from(bytes.as_slice()).map_err(|_| SkipReason::Length { member, bytes: bytes.len() })
}

/// Some encoders add a zero so that the number is not read as negative. RFC 7518 section 2 forbids it.
fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// Length in bits of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}
