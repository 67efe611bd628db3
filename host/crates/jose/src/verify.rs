//! Verification of a token's signature (RFC 7515 section 5.2).

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use setgate_domain::algorithm::Algorithm;

use crate::algorithm::HeaderAlgorithm;
use crate::jwk::PublicJwk;
use crate::jwk_set::JwkSet;
use crate::jws::Jws;
use crate::material::Material;
use crate::shown::shown;

/// Length in bytes of a signature by ES256 (RFC 7518 section 3.4) and by Ed25519 (RFC 8032 section 5.1.6).
const CURVE_SIGNATURE_BYTES: usize = 64;

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The caller does not accept the algorithm.
    #[error("the token is signed with {algorithm}, and accepted are: {}", list(allowed))]
    AlgorithmNotAllowed {
        /// The token's algorithm.
        algorithm: HeaderAlgorithm,
        /// The accepted algorithms.
        allowed: Vec<Algorithm>,
    },
    /// No usable key has the token's `kid`.
    #[error("no usable key in the JWKS has the token's `kid` `{kid}`: publish the key before it signs")]
    UnknownKey {
        /// The ID, truncated and escaped.
        kid: String,
    },
    /// The token has no `kid`, and no key fits its algorithm.
    #[error("no key in the JWKS fits the token's algorithm {algorithm}: publish the key before it signs")]
    NoKey {
        /// The token's algorithm.
        algorithm: HeaderAlgorithm,
    },
    /// The keys with the token's `kid` are for other algorithms.
    #[error(
        "the key with the token's `kid` `{kid}` is not for {algorithm}: its `kty`, `crv` or `alg` says otherwise \
         (RFC 8725 section 3.1)"
    )]
    KeyMismatch {
        /// The ID, truncated and escaped.
        kid: String,
        /// The token's algorithm.
        algorithm: HeaderAlgorithm,
    },
    /// The token has no `kid`, and several keys fit its algorithm.
    #[error("the token has no `kid`, and {keys} keys in the JWKS fit {algorithm}: send the `kid` of the key")]
    Ambiguous {
        /// Number of keys that fit.
        keys: usize,
        /// The token's algorithm.
        algorithm: HeaderAlgorithm,
    },
    /// The signature has the wrong length. Some libraries write ES256 as DER (RFC 7518 section 3.4 forbids it).
    #[error("the signature has {bytes} bytes: {algorithm} needs exactly 64, and no DER around them")]
    SignatureLength {
        /// Length in bytes.
        bytes: usize,
        /// The token's algorithm.
        algorithm: HeaderAlgorithm,
    },
    /// The signature is not by any of the keys that fit.
    #[error("the signature does not verify: the token was changed, or signed with another key")]
    BadSignature,
}

impl VerifyError {
    /// Whether a newer version of the JWKS may have the key.
    pub const fn is_unknown_key(&self) -> bool {
        matches!(self, Self::UnknownKey { .. } | Self::NoKey { .. })
    }
}

impl Jws<'_> {
    /// Verifies the signature, and returns the key that made it. If the token has a `kid`, the keys with that `kid` that
    /// fit the algorithm are tried. If it has none, exactly one key must fit.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify<'k>(&self, keys: &'k JwkSet, allowed: &[Algorithm]) -> Result<&'k PublicJwk, VerifyError> {
        let name = self.header().alg;
        let algorithm = name.algorithm();
        if !allowed.contains(&algorithm) {
            return Err(VerifyError::AlgorithmNotAllowed { algorithm: name, allowed: allowed.to_vec() });
        }
        let candidates = self.candidates(keys)?;
        let on_curve = matches!(algorithm, Algorithm::Es256 | Algorithm::EdDsa);
        if on_curve && self.signature.len() != CURVE_SIGNATURE_BYTES {
            return Err(VerifyError::SignatureLength { bytes: self.signature.len(), algorithm: name });
        }
        let made_by = |key: &&PublicJwk| is_valid(algorithm, &key.material, self.signed, &self.signature);
        candidates.into_iter().find(made_by).ok_or(VerifyError::BadSignature)
    }

    /// The keys that the token may be signed with: at least one.
    fn candidates<'k>(&self, keys: &'k JwkSet) -> Result<Vec<&'k PublicJwk>, VerifyError> {
        let algorithm = self.header().alg;
        let fit = |key: &&PublicJwk| key.accepts(algorithm.algorithm());
        let Some(kid) = self.header().kid.as_deref() else {
            let candidates: Vec<_> = keys.keys().iter().filter(fit).collect();
            return match candidates.len() {
                0 => Err(VerifyError::NoKey { algorithm }),
                1 => Ok(candidates),
                keys => Err(VerifyError::Ambiguous { keys, algorithm }),
            };
        };
        let named: Vec<_> = keys.keys().iter().filter(|key| key.kid() == Some(kid)).collect();
        if named.is_empty() {
            return Err(VerifyError::UnknownKey { kid: shown(kid) });
        }
        let candidates: Vec<_> = named.into_iter().filter(fit).collect();
        if candidates.is_empty() {
            return Err(VerifyError::KeyMismatch { kid: shown(kid), algorithm });
        }
        Ok(candidates)
    }
}

/// Whether the signature is by this key. The combination of algorithm and key was checked before; any other is invalid.
fn is_valid(algorithm: Algorithm, key: &Material, signed: &[u8], signature: &[u8]) -> bool {
    let verified = match (algorithm, key) {
        (Algorithm::Rs256, Material::Rsa { n, e }) => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
        }
        (Algorithm::Ps256, Material::Rsa { n, e }) => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, signed, signature)
        }
        (Algorithm::Es256, Material::P256(point)) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
        }
        (Algorithm::EdDsa, Material::Ed25519(key)) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        _ => return false,
    };
    verified.is_ok()
}

fn list(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ")
}
