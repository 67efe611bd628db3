//! Private keys as JWK (RFC 7518 section 6, RFC 8037 section 2).

use setgate_domain::algorithm::Algorithm;
use setgate_domain::json::{JsonError, JsonLimits, Object, check_object};
use zeroize::Zeroizing;

use super::{KeyError, der, rsa_key};
use crate::algorithm::HeaderAlgorithm;
use crate::base64url;
use crate::limits::{JSON_DEPTH_MAX, PRIVATE_KEY_BYTES_MAX};
use crate::material::{COORDINATE_BYTES, Material};
use crate::shown::shown;
use crate::skip_reason::SkipReason;

/// The algorithm of a private JWK, and its key as PKCS#8.
pub(super) fn to_pkcs8(json: &str) -> Result<(Algorithm, Zeroizing<Vec<u8>>), KeyError> {
    if json.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(KeyError::TooLarge { bytes: json.len() });
    }
    let limits = JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: PRIVATE_KEY_BYTES_MAX };
    let object = check_object(json.as_bytes(), limits).map_err(|error| match error {
        JsonError::NotAnObject => KeyError::NotAnObject,
        error => KeyError::Json(error),
    })?;
    let kty = object.string("kty").ok_or(KeyError::Member { member: "kty" })?;
    let public = Material::parse(&kty, &object).map_err(KeyError::Public)?;
    if object.get("d").is_none() {
        return Err(KeyError::NoPrivateHalf);
    }
    if let Some(key_use) = object.string("use").filter(|key_use| key_use != "sig") {
        return Err(KeyError::Public(SkipReason::Use { key_use: shown(&key_use) }));
    }
    let algorithm = algorithm(&object, &public)?;
    let pkcs8 = match &public {
        Material::Rsa { n, e } => rsa(&object, n, e)?,
        Material::P256(point) => der::p256_pkcs8(&der::sec1(&*scalar(&object)?, point)),
        Material::Ed25519(key) => {
            let seed = scalar(&object)?;
            // The PKCS#8 form has no public key to compare with.
            if !super::is_ed25519_pair(&seed, key) {
                return Err(KeyError::rejected(algorithm, "InconsistentComponents"));
            }
            der::ed25519_pkcs8(&seed)
        }
    };
    Ok((algorithm, pkcs8))
}

/// `alg`, or the algorithm that fits the type of the key.
fn algorithm(object: &Object<'_>, public: &Material) -> Result<Algorithm, KeyError> {
    if object.get("alg").is_none() {
        return Ok(match public {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        });
    }
    let alg = object.string("alg").ok_or(KeyError::Member { member: "alg" })?;
    let known = HeaderAlgorithm::parse(&alg).map(HeaderAlgorithm::algorithm);
    match known.ok_or_else(|| KeyError::Public(SkipReason::Algorithm { alg: shown(&alg) }))? {
        alg if public.fits(alg) => Ok(alg),
        alg => Err(KeyError::Public(SkipReason::AlgorithmMismatch { alg })),
    }
}

fn rsa(object: &Object<'_>, n: &[u8], e: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if object.get("oth").is_some() {
        return Err(KeyError::MultiPrime);
    }
    let d = secret(object, "d")?;
    // Without primes they are computed from `d` (RFC 7518 section 6.3.2 makes them optional).
    match (object.get("p"), object.get("q")) {
        (None, None) => rsa_key::from_members(n, e, &d, None),
        _ => rsa_key::from_members(n, e, &d, Some((&secret(object, "p")?, &secret(object, "q")?))),
    }
}

/// `d` of P-256 or Ed25519.
fn scalar(object: &Object<'_>) -> Result<Zeroizing<[u8; COORDINATE_BYTES]>, KeyError> {
    let bytes = secret(object, "d")?;
    let scalar = <[u8; COORDINATE_BYTES]>::try_from(bytes.as_slice());
    scalar.map(Zeroizing::new).map_err(|_| KeyError::Member { member: "d" })
}

fn secret(object: &Object<'_>, member: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = object.string(member).map(Zeroizing::new);
    let bytes = text.and_then(|text| base64url::decode(text.as_bytes()));
    bytes.map(Zeroizing::new).ok_or(KeyError::Member { member })
}
