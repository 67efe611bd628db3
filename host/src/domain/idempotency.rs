//! Requests that are carried out at most once (draft-ietf-httpapi-idempotency-key-header).

use super::id::{Digest, TenantId};

/// A request with an `Idempotency-Key`. It is written down in the transaction that carries the request out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it is found by: its caller and its key.
    pub id: Digest,
    /// Whose share of stored answers it takes; none: the operator's.
    pub tenant: Option<TenantId>,
    /// What was asked for: another request under the same key is refused.
    pub request: Digest,
}
