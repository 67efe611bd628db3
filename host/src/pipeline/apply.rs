//! Applies verdicts to claims and computes differences. Large inputs run off the async worker threads.

use std::sync::Arc;

use setgate_base::fair::{FairLimits, FairSemaphore};
use setgate_domain::chain::apply;
use setgate_domain::id::TenantId;
use setgate_domain::json::differences;
use setgate_domain::redact::Redactor;
use setgate_domain::rollout::DIFFERENCE_BYTES_MAX;
use setgate_domain::set::{Applied, SetToken};
use setgate_domain::verdict::{Fault, Verdict};

/// Up to this many bytes of claims and verdict together, a verdict is applied on the calling thread: it takes a
/// fraction of a millisecond.
const APPLIED_ON_THE_SPOT_BYTES_MAX: usize = 32 << 10;
/// Large verdicts that are applied at the same time. A megabyte of claims can take part of a second, and the filter's
/// fuel pays only for writing it, so this work must not take the async worker threads or all cores.
const LARGE_MAX: usize = 1;

/// Applies verdicts to claims. Clones share the schedule of large verdicts.
#[derive(Clone)]
pub(super) struct Applier {
    /// Admits large verdicts.
    large: FairSemaphore,
}

impl Applier {
    pub(super) fn new() -> Self {
        let large = FairSemaphore::new(FairLimits {
            permits: LARGE_MAX,
            per_tenant_max: LARGE_MAX,
            reserve_for_idle_tenants: false,
            // The dispatcher already limits the number of deliveries in flight.
            queued_per_tenant_max: usize::MAX,
            estimated_cost: 1,
        });
        Self { large }
    }

    /// Applies a verdict. A large one runs on a blocking thread, scheduled fairly between tenants.
    pub(super) async fn apply(
        &self,
        tenant: &TenantId,
        before: &SetToken,
        verdict: Verdict,
        bytes_max: u64,
        redactor: Arc<Redactor>,
    ) -> Result<Applied, Fault> {
        if !is_large(before, &verdict) {
            return apply(before, verdict, bytes_max, &redactor);
        }
        let failed = |detail: String| Fault::Unavailable { detail };
        let _turn = self.large.acquire(tenant).await.map_err(|_| failed("the host is stopping".into()))?;
        let before = before.clone();
        let applying = tokio::task::spawn_blocking(move || apply(&before, verdict, bytes_max, &redactor));
        applying.await.unwrap_or_else(|error| Err(failed(error.to_string())))
    }
}

/// A short list of differences between two sets of claims. Large inputs are compared with `block_in_place`, so that
/// other tasks keep running.
pub(super) fn compare(before: &str, after: &str) -> Vec<String> {
    let comparing = || differences(before, after, DIFFERENCE_BYTES_MAX);
    if before.len() + after.len() > APPLIED_ON_THE_SPOT_BYTES_MAX {
        tokio::task::block_in_place(comparing)
    } else {
        comparing()
    }
}

fn is_large(before: &SetToken, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Patch(text) | Verdict::Replace(text) => before.text.len() + text.len() > APPLIED_ON_THE_SPOT_BYTES_MAX,
        Verdict::Pass | Verdict::Drop(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::json::JsonLimits;

    #[test]
    fn only_what_is_large_is_set_aside() {
        let text = r#"{"iss":"https://idp.example","jti":"1","iat":1520364019,"events":{"urn:x:login":{}}}"#;
        let before = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let room = APPLIED_ON_THE_SPOT_BYTES_MAX - text.len();
        assert!(!is_large(&before, &Verdict::Patch(" ".repeat(room))));
        assert!(is_large(&before, &Verdict::Patch(" ".repeat(room + 1))));
        assert!(is_large(&before, &Verdict::Replace(" ".repeat(room + 1))));
        assert!(!is_large(&before, &Verdict::Pass));
    }
}
