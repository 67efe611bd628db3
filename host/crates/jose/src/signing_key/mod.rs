//! Private keys, which sign.

mod der;
mod error;
mod pem;
mod private_jwk;
mod rsa_key;

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use setgate_domain::algorithm::Algorithm;
use setgate_domain::json::{quote, write_object};
use zeroize::Zeroizing;

use crate::base64url;
use crate::jwk::{PublicJwk, thumbprint};
use crate::material::{COORDINATE_BYTES, Material};

pub use error::KeyError;

/// A private key for one algorithm. Its ID is the thumbprint of its public half (RFC 7638), so the same key has the same
/// ID wherever it is imported.
///
/// The PKCS#8 form is zeroised on drop. The copy that `ring` signs with is not, because `ring` does not support it.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    kid: String,
    public_jwk: String,
}

enum Pair {
    Rsa { pair: Box<RsaKeyPair>, padding: &'static dyn RsaEncoding },
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The message that an imported key signs as a test.
const TEST_MESSAGE: &[u8] = b"setgate";

impl SigningKey {
    /// Makes a key. An RSA key has 2048 bits and takes about 60 ms of CPU time, by chance several times as much, so call
    /// this on a blocking thread.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = match algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => rsa_key::generate()?,
            Algorithm::Es256 => {
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                Zeroizing::new(pkcs8.map_err(|_| KeyError::Random)?.as_ref().to_vec())
            }
            Algorithm::EdDsa => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random);
                Zeroizing::new(pkcs8.map_err(|_| KeyError::Random)?.as_ref().to_vec())
            }
        };
        Self::from_pkcs8(algorithm, &pkcs8)
    }

    /// Imports a PEM file (RFC 7468): `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC 1),
    /// not encrypted.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn import_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8(algorithm, &pem::to_pkcs8(pem)?)?.tested()
    }

    /// Imports a private JWK (RFC 7517 section 9.3, RFC 7518 section 6). Its `alg` selects the algorithm. Without `alg`,
    /// an RSA key is for RS256. Its `kid` is not used.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn import_jwk(json: &str) -> Result<Self, KeyError> {
        let (algorithm, pkcs8) = private_jwk::to_pkcs8(json)?;
        Self::from_pkcs8(algorithm, &pkcs8)?.tested()
    }

    /// Reads a key in PKCS#8 (RFC 5958), as [`to_pkcs8`](Self::to_pkcs8) returned it.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] and [`KeyError::Public`].
    pub fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let pair = Pair::from_pkcs8(algorithm, der)?;
        let material = pair.material()?;
        let kid = thumbprint(&material);
        let public = PublicJwk::new(Some(kid.clone()), Some(algorithm), material).map_err(KeyError::Public)?;
        Ok(Self { algorithm, pair, pkcs8: Zeroizing::new(der.to_vec()), kid, public_jwk: public.to_json() })
    }

    /// The private key in PKCS#8, to be stored encrypted.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The algorithm that it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// ID of the key: the thumbprint of its public half (RFC 7638), 43 characters.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as JWK, in JSON: the members of its type, `kid`, `use` and `alg`.
    pub fn public_jwk(&self) -> &str {
        &self.public_jwk
    }

    /// Signs a payload. Returns a compact JWS with the header `{"alg":..,"kid":..,"typ":..}`. RSA takes about 0.6 ms of
    /// CPU time, the others 0.03 ms.
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    pub fn sign(&self, typ: &str, payload: &str) -> Result<String, KeyError> {
        let members = [("alg", quote(self.algorithm.as_str())), ("kid", quote(&self.kid)), ("typ", quote(typ))];
        let header = write_object(&members.each_ref().map(|(name, value)| (*name, value.as_str())));
        // Base64url makes 4 bytes of 3. A signature has up to 512 bytes, and there are two dots.
        let mut token = String::with_capacity((header.len() + payload.len() + 512).div_ceil(3) * 4 + 8);
        base64url::encode_to(&header, &mut token);
        token.push('.');
        base64url::encode_to(payload, &mut token);
        let signature = self.pair.sign(token.as_bytes())?;
        token.push('.');
        base64url::encode_to(signature, &mut token);
        Ok(token)
    }

    /// Signs once. `ring` compares the private and the public half of an RSA key only then.
    fn tested(self) -> Result<Self, KeyError> {
        match self.pair.sign(TEST_MESSAGE) {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::rejected(self.algorithm, "InconsistentComponents")),
        }
    }
}

/// Whether an Ed25519 public key belongs to this seed.
fn is_ed25519_pair(seed: &[u8; COORDINATE_BYTES], public: &[u8; COORDINATE_BYTES]) -> bool {
    Ed25519KeyPair::from_seed_and_public_key(seed, public).is_ok()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Pair {
    fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let rsa = |padding| {
            let pair = RsaKeyPair::from_pkcs8(der)?;
            Ok(Self::Rsa { pair: Box::new(pair), padding })
        };
        let pair = match algorithm {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).map(Self::P256)
            }
            // OpenSSL writes version 1 of PKCS#8, without the public key.
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::Ed25519),
        };
        pair.map_err(|error: ring::error::KeyRejected| KeyError::rejected(algorithm, &error.to_string()))
    }

    /// The public half.
    fn material(&self) -> Result<Material, KeyError> {
        match self {
            Self::Rsa { pair, .. } => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                Material::rsa(n, e).map_err(KeyError::Public)
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref().try_into().expect("`ring` has P-256 points uncompressed");
                Ok(Material::P256(point))
            }
            Self::Ed25519(pair) => {
                let key = pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
                Ok(Material::Ed25519(key))
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, padding } => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).map_err(|_| KeyError::Signing)?;
                Ok(signature)
            }
            Self::P256(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| KeyError::Signing)?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}
