//! RSA keys: made, and converted to PKCS#8. `ring` can do neither.

use ring::rand::{SecureRandom as _, SystemRandom};
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::{BoxedUint, PrivateKey};
use zeroize::Zeroizing;

use super::KeyError;
use crate::limits::{RSA_GENERATED_BITS, RSA_SIGNING_BITS};

/// A new key as PKCS#8.
pub(super) fn generate() -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let key = PrivateKey::new(&mut SystemRng(SystemRandom::new()), RSA_GENERATED_BITS).map_err(|_| KeyError::Random)?;
    pkcs8(&key)
}

/// The key with these members of a JWK as PKCS#8, if they belong together. All are big-endian. The primes are computed
/// if they are not given.
pub(super) fn from_members(
    n: &[u8],
    e: &[u8],
    d: &[u8],
    primes: Option<(&[u8], &[u8])>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Before any arithmetic, whose cost grows with the cube of the length.
    let bits = n.len() * 8;
    let precision = u32::try_from(bits).ok().filter(|_| RSA_SIGNING_BITS.contains(&bits));
    let precision = precision.ok_or(KeyError::RsaBits { bits })?;
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, precision).map_err(|_| KeyError::RsaMembers);
    let primes = match primes {
        Some((p, q)) => vec![number(p)?, number(q)?],
        None => Vec::new(),
    };
    let key = PrivateKey::from_components(number(n)?, number(e)?, number(d)?, primes);
    pkcs8(&key.map_err(|_| KeyError::RsaMembers)?)
}

fn pkcs8(key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let document = key.to_pkcs8_der().map_err(|_| KeyError::RsaMembers)?;
    Ok(Zeroizing::new(document.as_bytes().to_vec()))
}

/// The random numbers of `ring`, which are those of the operating system.
struct SystemRng(SystemRandom);

/// The operating system returned no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("no random numbers")]
struct NoRandom;

impl TryRng for SystemRng {
    type Error = NoRandom;

    fn try_next_u32(&mut self) -> Result<u32, NoRandom> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandom> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        self.0.fill(bytes).map_err(|_| NoRandom)
    }
}

impl TryCryptoRng for SystemRng {}
