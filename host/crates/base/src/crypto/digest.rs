//! SHA-2, HMAC (RFC 2104) and constant-time comparison.

use std::io::{self, Read};

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// Bytes of a file that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// SHA-256 of a byte string.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of a stream of any length.
pub fn sha256_reader(mut from: impl Read) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(bytes) => digest.update(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// HMAC-SHA1 over the concatenated parts. Only for verifying sources whose senders support nothing better and whose
/// owner has allowed it. Setgate never signs with it.
pub fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    mac::<Hmac<Sha1>>(key, parts).into()
}

/// HMAC-SHA256 over the concatenated parts.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    mac::<Hmac<Sha256>>(key, parts).into()
}

/// HMAC-SHA384 over the concatenated parts. WebSub publishers may use it (section 8).
pub fn hmac_sha384(key: &[u8], parts: &[&[u8]]) -> [u8; 48] {
    mac::<Hmac<Sha384>>(key, parts).into()
}

/// HMAC-SHA512 over the concatenated parts. WebSub publishers may use it (section 8).
pub fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    mac::<Hmac<Sha512>>(key, parts).into()
}

/// Compares in a time that depends only on the lengths. Must be used for MACs, token digests and anything else that an
/// attacker might guess.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> hmac::digest::Output<M> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_matches_rfc_4231_for_any_split() {
        let text: &[u8] = b"what do ya want for nothing?";
        assert_eq!(
            hex::encode(hmac_sha256(b"Jefe", &[text])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex::encode(hmac_sha384(b"Jefe", &[text])),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
        );
        assert_eq!(
            hex::encode(hmac_sha512(b"Jefe", &[text])),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
        assert_eq!(hmac_sha256(b"Jefe", &[b"what do ", b"", b"ya want for nothing?"]), hmac_sha256(b"Jefe", &[text]));
        // RFC 2202 section 3, case 2.
        assert_eq!(hex::encode(hmac_sha1(b"Jefe", &[text])), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        // Case 6: a key longer than a block is hashed first.
        assert_eq!(
            hex::encode(hmac_sha256(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn constant_time_eq_compares_bytes() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
        assert!(constant_time_eq(b"", b""));
    }
}
