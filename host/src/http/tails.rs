//! Limits the open live tails.

use std::sync::Arc;

use setgate_base::fair::TenantSemaphores;
use setgate_domain::id::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};

/// Open live tails; further ones are answered 429.
const TAILS_MAX: usize = 256;
/// The share of [`TAILS_MAX`] that one tenant may use; further ones are answered 429.
const TAILS_PER_TENANT_MAX: usize = 16;

/// Limits the open tails, in total and per tenant.
pub struct Tails {
    all: Arc<Semaphore>,
    all_max: usize,
    shares: TenantSemaphores,
}

/// The slot of an open tail, released on drop.
pub(super) struct OpenTail {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Tails {
    fn default() -> Self {
        Self::new(TAILS_MAX, TAILS_PER_TENANT_MAX)
    }
}

impl Tails {
    fn new(all_max: usize, per_tenant_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), all_max, shares: TenantSemaphores::new(per_tenant_max) }
    }

    pub(super) fn open(&self, tenant: &TenantId) -> Result<OpenTail, Problem> {
        let share = self.shares.get(tenant).try_acquire_owned().map_err(|_| {
            let max = self.shares.permits();
            let detail = format!("this tenant has {max} open tails, the limit per tenant: close one, or retry later");
            Problem::new(Code::Busy, detail)
        })?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{} tails are open, the limit of the host: retry later", self.all_max);
            Problem::new(Code::Busy, detail)
        })?;
        Ok(OpenTail { _share: share, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_and_all_tenants_the_total() {
        let tails = Tails::new(3, 2);
        let open = |name: &str| tails.open(&name.parse().unwrap());
        let refused = |name: &str| open(name).err().map(|problem| problem.code());
        let (first, _second) = (open("a").unwrap(), open("a").unwrap());
        assert_eq!(refused("a"), Some(Code::Busy), "its share is used up");
        let _third = open("b").unwrap();
        assert_eq!(refused("c"), Some(Code::Busy), "all slots are used up");
        drop(first);
        assert_eq!(refused("c"), None);
    }
}
