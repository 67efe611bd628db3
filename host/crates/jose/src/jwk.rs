//! Public keys as JWK (RFC 7517).

use ring::digest;
use serde_json::value::RawValue;
use setgate_domain::algorithm::Algorithm;
use setgate_domain::json::{JsonLimits, Object, check_object, quote, write_object};

use crate::algorithm::HeaderAlgorithm;
use crate::base64url;
use crate::limits::{JSON_DEPTH_MAX, JWKS_BYTES_MAX, KID_BYTES_MAX};
use crate::material::{Material, required};
use crate::shown::shown;
use crate::skip_reason::SkipReason;

/// A public key that verifies signatures of at least one [`Algorithm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicJwk {
    kid: Option<String>,
    alg: Option<Algorithm>,
    pub(crate) material: Material,
}

impl PublicJwk {
    /// Parses one public key.
    ///
    /// # Errors
    /// A [`SkipReason`] if the key cannot verify signatures here. Text that is not valid JSON, or has a duplicate
    /// member name, is [`SkipReason::NotAnObject`].
    pub fn parse(json: &str) -> Result<Self, SkipReason> {
        let limits = JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: JWKS_BYTES_MAX };
        let object = check_object(json.as_bytes(), limits).map_err(|_| SkipReason::NotAnObject)?;
        Self::from_object(&object)
    }

    /// Reads a key whose JSON has been checked.
    pub(crate) fn from_object(object: &Object<'_>) -> Result<Self, SkipReason> {
        let kid = optional(object, "kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err(SkipReason::Kid);
        }
        let kty = required(object, "kty")?;
        if object.get("d").is_some() {
            return Err(SkipReason::Private);
        }
        check_purpose(object)?;
        let material = Material::parse(&kty, object)?;
        let alg = optional(object, "alg")?.map(|alg| parse_algorithm(&alg)).transpose()?;
        Self::new(kid, alg, material)
    }

    /// # Errors
    /// [`SkipReason::AlgorithmMismatch`].
    pub(crate) fn new(kid: Option<String>, alg: Option<Algorithm>, material: Material) -> Result<Self, SkipReason> {
        match alg {
            Some(alg) if !material.fits(alg) => Err(SkipReason::AlgorithmMismatch { alg }),
            alg => Ok(Self { kid, alg, material }),
        }
    }

    /// ID of the key within its JWKS.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The only algorithm that this key may be used with. `None` if the JWK does not restrict it.
    pub fn alg(&self) -> Option<Algorithm> {
        self.alg
    }

    /// Whether the key verifies signatures of this algorithm: its type fits, and it is not restricted to another one.
    pub fn accepts(&self, algorithm: Algorithm) -> bool {
        self.material.fits(algorithm) && self.alg.is_none_or(|only| only == algorithm)
    }

    /// The thumbprint with SHA-256 (RFC 7638) in base64url: 43 characters.
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.material)
    }

    /// The key as JSON: the members of its type, then `kid`, `use` and `alg`.
    pub fn to_json(&self) -> String {
        let mut members = self.material.members();
        members.extend(self.kid.as_deref().map(|kid| ("kid", quote(kid))));
        members.push(("use", quote("sig")));
        members.extend(self.alg.map(|alg| ("alg", quote(alg.as_str()))));
        object(&members)
    }

    /// Bytes in memory, estimated.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.kid.as_ref().map_or(0, String::capacity) + self.material.heap_bytes()
    }
}

pub(crate) fn thumbprint(material: &Material) -> String {
    base64url::encode(digest::digest(&digest::SHA256, object(&material.members()).as_bytes()))
}

fn object(members: &[(&'static str, String)]) -> String {
    let members: Vec<(&str, &str)> = members.iter().map(|(name, value)| (*name, value.as_str())).collect();
    write_object(&members)
}

/// A string member that may be absent.
fn optional(object: &Object<'_>, member: &'static str) -> Result<Option<String>, SkipReason> {
    object.get(member).map(|_| required(object, member)).transpose()
}

/// `alg` of a JWK, which may also have the newer name of Ed25519.
fn parse_algorithm(alg: &str) -> Result<Algorithm, SkipReason> {
    let known = HeaderAlgorithm::parse(alg).map(HeaderAlgorithm::algorithm);
    known.ok_or_else(|| SkipReason::Algorithm { alg: shown(alg) })
}

/// RFC 7517 sections 4.2 and 4.3: a key for encryption, or one that only signs, does not verify.
fn check_purpose(object: &Object<'_>) -> Result<(), SkipReason> {
    if let Some(key_use) = optional(object, "use")?
        && key_use != "sig"
    {
        return Err(SkipReason::Use { key_use: shown(&key_use) });
    }
    if let Some(operations) = object.get("key_ops") {
        let operations: Vec<&RawValue> = serde_json::from_str(operations).map_err(|_| SkipReason::KeyOps)?;
        if !operations.iter().any(|operation| operation.get() == "\"verify\"") {
            return Err(SkipReason::KeyOps);
        }
    }
    Ok(())
}
