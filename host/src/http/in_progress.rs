//! Requests with an `Idempotency-Key` that are being executed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use setgate_base::fair::TenantSemaphores;
use setgate_domain::id::Digest;
use setgate_domain::idempotency::IdempotencyClaim;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::{Code, Problem};

/// Concurrent requests with a key of one tenant. They continue after their client has disconnected, so they need a
/// limit of their own.
pub(super) const IN_PROGRESS_PER_TENANT_MAX: usize = 16;

/// Keys of the requests that are being executed.
pub struct InProgress {
    claims: Arc<Mutex<HashSet<Digest>>>,
    shares: TenantSemaphores,
}

impl Default for InProgress {
    fn default() -> Self {
        Self { claims: Arc::default(), shares: TenantSemaphores::new(IN_PROGRESS_PER_TENANT_MAX) }
    }
}

/// Marks a key as in progress until dropped.
pub(super) struct InProgressGuard {
    claims: Arc<Mutex<HashSet<Digest>>>,
    id: Digest,
    _share: Option<OwnedSemaphorePermit>,
}

impl InProgress {
    pub(super) fn begin(&self, claim: &IdempotencyClaim) -> Result<InProgressGuard, Problem> {
        let share = claim.tenant.as_ref().map(|tenant| self.shares.get(tenant).try_acquire_owned()).transpose();
        let share = share.map_err(|_| {
            let detail = format!(
                "{IN_PROGRESS_PER_TENANT_MAX} requests of this tenant with an `idempotency-key` are in progress, which is the \
                 limit: retry after one of them has ended"
            );
            Problem::new(Code::Busy, detail)
        })?;
        if !self.claims.lock().unwrap_or_else(PoisonError::into_inner).insert(claim.id) {
            let detail = "a request with this `idempotency-key` is in progress: retry after it has ended";
            return Err(Problem::new(Code::IdempotencyKeyInProgress, detail));
        }
        Ok(InProgressGuard { claims: self.claims.clone(), id: claim.id, _share: share })
    }
}

impl Drop for InProgressGuard {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use setgate_domain::id::KeyId;

    use super::*;

    #[test]
    fn a_request_runs_once_and_a_tenant_has_a_limit() {
        let in_progress = InProgress::default();
        let by = KeyId::new(setgate_domain::time::Timestamp::from_millis(1), 1);
        let claim = |key: usize| {
            setgate_base::crypto::idempotency_claim(by, &key.to_string(), Some("acme".parse().unwrap()), &[])
        };
        let first = in_progress.begin(&claim(0)).expect("it is the first");
        let code = |claim: &IdempotencyClaim| in_progress.begin(claim).err().map(|problem| problem.code());
        assert_eq!(code(&claim(0)), Some(Code::IdempotencyKeyInProgress));
        drop(first);
        let _turns: Vec<_> = (0..IN_PROGRESS_PER_TENANT_MAX).map(|key| in_progress.begin(&claim(key)).ok()).collect();
        assert_eq!(code(&claim(99)), Some(Code::Busy));
        let operators = setgate_base::crypto::idempotency_claim(by, "99", None, &[]);
        assert_eq!(code(&operators), None, "the operator is not kept out by a tenant");
    }
}
