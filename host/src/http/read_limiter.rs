//! Limits concurrent read requests, fairly between tenants.

use setgate_base::fair::{FairLimits, FairSemaphore, Permit};
use setgate_domain::id::TenantId;

use super::problem::{Code, Problem};

/// Maximum number of concurrent read requests of tenants: each uses a core for some milliseconds to produce its page.
const READS_MAX: usize = 4;
/// The share of `READS_MAX` that one tenant may use.
const READS_PER_TENANT_MAX: usize = 2;
/// Maximum number of queued read requests of one tenant.
const READS_WAITING_PER_TENANT_MAX: usize = 256;

/// Turns of read requests, shared fairly between tenants. A turn lasts until the response is charged, so that queued
/// requests notice a lack of memory budget before any work is done for them.
pub struct ReadLimiter(FairSemaphore);

impl Default for ReadLimiter {
    fn default() -> Self {
        Self(FairSemaphore::new(FairLimits {
            permits: READS_MAX,
            per_tenant_max: READS_PER_TENANT_MAX,
            reserve_for_idle_tenants: false,
            queued_per_tenant_max: READS_WAITING_PER_TENANT_MAX,
            estimated_cost: 1,
        }))
    }
}

impl ReadLimiter {
    /// Waits until the tenant may read.
    ///
    /// # Errors
    /// 429 if too many requests of the tenant are queued.
    pub(super) async fn acquire(&self, tenant: &TenantId) -> Result<Permit, Problem> {
        self.0.acquire_bounded(tenant).await.map_err(|_| {
            let detail = format!("{READS_WAITING_PER_TENANT_MAX} read requests of `{tenant}` are queued: retry later");
            Problem::new(Code::Busy, detail)
        })
    }
}
