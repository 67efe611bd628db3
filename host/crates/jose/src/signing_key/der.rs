//! DER (X.690), as far as wrapping a key in PKCS#8 (RFC 5958 section 2) needs it.

use zeroize::Zeroizing;

use crate::material::{COORDINATE_BYTES, POINT_BYTES};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0x00];
const SEQUENCE: u8 = 0x30;
/// `[1]`, constructed: the public key in an `ECPrivateKey` (RFC 5915 section 3).
const CONTEXT_1: u8 = 0xa1;

/// `rsaEncryption`, 1.2.840.113549.1.1.1 (RFC 8017 appendix A).
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `id-ecPublicKey`, 1.2.840.10045.2.1 (RFC 5480 section 2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `secp256r1`, 1.2.840.10045.3.1.7 (RFC 5480 section 2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `id-Ed25519`, 1.3.101.112 (RFC 8410 section 3).
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

type Der = Zeroizing<Vec<u8>>;

/// Wraps an `RSAPrivateKey` (RFC 8017 appendix A.1.2).
pub(super) fn rsa_pkcs8(pkcs1: &[u8]) -> Der {
    private_key_info(&[RSA_ENCRYPTION, NULL], pkcs1)
}

/// Wraps an `ECPrivateKey` (RFC 5915) of the curve P-256.
pub(super) fn p256_pkcs8(sec1: &[u8]) -> Der {
    private_key_info(&[EC_PUBLIC_KEY, P256], sec1)
}

/// An `ECPrivateKey` with its public key, which `ring` requires, and without the name of the curve, which PKCS#8 has.
pub(super) fn sec1(private: &[u8; COORDINATE_BYTES], public: &[u8; POINT_BYTES]) -> Der {
    // The first byte is the number of unused bits.
    let public = element(BIT_STRING, &[&[0], public]);
    let public = element(CONTEXT_1, &[&public]);
    element(SEQUENCE, &[&element(INTEGER, &[&[1]]), &element(OCTET_STRING, &[private]), &public])
}

/// Version 1 of PKCS#8 for an Ed25519 key, as OpenSSL writes it (RFC 8410 section 7).
pub(super) fn ed25519_pkcs8(seed: &[u8; COORDINATE_BYTES]) -> Der {
    private_key_info(&[ED25519], &element(OCTET_STRING, &[seed]))
}

fn private_key_info(algorithm: &[&[u8]], key: &[u8]) -> Der {
    let version = element(INTEGER, &[&[0]]);
    element(SEQUENCE, &[&version, &element(SEQUENCE, algorithm), &element(OCTET_STRING, &[key])])
}

/// Tag, length and content.
fn element(tag: u8, content: &[&[u8]]) -> Der {
    let len: usize = content.iter().map(|part| part.len()).sum();
    // The content of a key is shorter than 64 KiB. Without a reallocation, no copy is left behind.
    let mut der = Zeroizing::new(Vec::with_capacity(len + 4));
    der.push(tag);
    match len {
        0..0x80 => der.push(len.to_be_bytes()[size_of::<usize>() - 1]),
        0x80..0x100 => der.extend([0x81, len.to_be_bytes()[size_of::<usize>() - 1]]),
        _ => {
            der.push(0x82);
            der.extend_from_slice(&len.to_be_bytes()[size_of::<usize>() - 2..]);
        }
    }
    for part in content {
        der.extend_from_slice(part);
    }
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_shortest_form() {
        for (len, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (255, &[4, 0x81, 255]),
            (256, &[4, 0x82, 1, 0]),
            (2_400, &[4, 0x82, 9, 0x60]),
        ] {
            let der = element(OCTET_STRING, &[&vec![7; len]]);
            assert!(der.starts_with(head), "{len}: {:?}", &der[..4.min(der.len())]);
            assert_eq!(der.len(), head.len() + len);
        }
    }
}
