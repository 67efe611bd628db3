//! Idempotent requests (draft-ietf-httpapi-idempotency-key-header).

use super::id::{Digest, TenantId};

/// A request with an `Idempotency-Key`. Recorded in the same transaction as its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// Lookup key: a digest of the caller and the idempotency key.
    pub id: Digest,
    /// The tenant to whose share of stored responses it counts. `None` for the operator.
    pub tenant: Option<TenantId>,
    /// Digest of the request. Another request with the same key is rejected.
    pub request: Digest,
}
