//! Limits of what is parsed. All of it may come from strangers.

/// Maximum number of keys in a JWKS, and thereby of keys that a verification tries. Issuers publish 2 to 10.
pub const KEYS_MAX: usize = 64;
/// Maximum length of a JWKS in bytes. Issuers that add certificates (`x5c`) publish about 3 KiB for each key.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// Maximum length of a private JWK or PEM file in bytes. A key of 4096 bits has about 3.3 KiB.
pub const PRIVATE_KEY_BYTES_MAX: usize = 16 << 10;

/// Maximum length of a token's header in bytes, in base64url. A header with a certificate chain has about 6 KiB.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Maximum length of a token's payload in bytes, in base64url. Bodies of requests have a lower limit of their own.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// Maximum length of a token's signature in bytes, in base64url: that of an RSA key of [`RSA_BITS_MAX`] bits.
pub const SIGNATURE_BYTES_MAX: usize = (RSA_BITS_MAX / 8 * 4).div_ceil(3);

/// Shortest RSA modulus in bits (RFC 7518 section 3.3).
pub const RSA_BITS_MIN: usize = 2048;
/// Longest RSA modulus in bits to verify with. It bounds the cost of a key that a stranger chose: `ring` verifies with
/// 8192 bits in less than a millisecond.
pub const RSA_BITS_MAX: usize = 8192;
/// Lengths in bits of the RSA moduli that `ring` signs with.
pub const RSA_SIGNING_BITS: [usize; 3] = [2048, 3072, 4096];
/// Length in bits of the RSA keys that are generated.
pub const RSA_GENERATED_BITS: usize = 2048;

/// Maximum nesting of the JSON in a header, JWK or JWKS.
pub const JSON_DEPTH_MAX: usize = 16;
/// Maximum length of a key's `kid` in bytes.
pub const KID_BYTES_MAX: usize = 1 << 10;
