//! Digests that identify a repeated request with an `Idempotency-Key`.

use setgate_domain::id::{Digest, KeyId, TenantId};
use setgate_domain::idempotency::IdempotencyClaim;

use super::sha256;

/// The claim of a request under an `Idempotency-Key`: of the caller's key, and of all parts that decide its effect.
pub fn idempotency_claim(caller: KeyId, key: &str, tenant: Option<TenantId>, request: &[&[u8]]) -> IdempotencyClaim {
    IdempotencyClaim { id: digest(&[caller.to_string().as_bytes(), key.as_bytes()]), tenant, request: digest(request) }
}

/// A digest over the digests of the parts, so that different lists of parts never produce the same input.
fn digest(parts: &[&[u8]]) -> Digest {
    let digests: Vec<[u8; 32]> = parts.iter().map(|part| sha256(part)).collect();
    Digest(sha256(&digests.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_depends_on_caller_key_and_request() {
        let caller = |number| KeyId::new(setgate_domain::time::Timestamp::from_millis(1), number);
        let claim = |number, key: &str, request: &[&[u8]]| idempotency_claim(caller(number), key, None, request);
        let one = claim(1, "a", &[b"POST", b"x"]);
        assert_eq!(one, claim(1, "a", &[b"POST", b"x"]));
        assert_ne!(one.id, claim(2, "a", &[b"POST", b"x"]).id);
        assert_ne!(one.id, claim(1, "b", &[b"POST", b"x"]).id);
        for other in [&[b"POST".as_slice(), b"y"][..], &[b"POSTx"], &[b"POSTx", b""], &[b"POST", b"x", b""]] {
            assert_ne!(one.request, claim(1, "a", other).request);
        }
    }
}
