//! Limits the requests that stay open: live tails, and polls of receivers.

use std::sync::Arc;

use setgate_base::fair::TenantSemaphores;
use setgate_domain::id::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};

/// Open live tails; further ones are answered 429.
const TAILS_MAX: usize = 256;
/// The share of [`TAILS_MAX`] that one tenant may use; further ones are answered 429.
const TAILS_PER_TENANT_MAX: usize = 16;
/// Polls of receivers that are held or at work; further ones are answered 429.
const POLLS_MAX: usize = 1024;
/// The share of [`POLLS_MAX`] that one tenant may use; further ones are answered 429.
const POLLS_PER_TENANT_MAX: usize = 64;

/// Slots for open requests, in total and per tenant.
pub struct Slots {
    all: Arc<Semaphore>,
    all_max: usize,
    shares: TenantSemaphores,
    /// The requests, for errors.
    name: &'static str,
}

/// The slot of an open request, released on drop.
pub(super) struct OpenSlot {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Slots {
    /// For live tails.
    pub fn for_tails() -> Self {
        Self::new(TAILS_MAX, TAILS_PER_TENANT_MAX, "tails")
    }

    /// For polls of receivers.
    pub fn for_polls() -> Self {
        Self::new(POLLS_MAX, POLLS_PER_TENANT_MAX, "polls")
    }

    fn new(all_max: usize, per_tenant_max: usize, name: &'static str) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), all_max, shares: TenantSemaphores::new(per_tenant_max), name }
    }

    pub(super) fn open(&self, tenant: &TenantId) -> Result<OpenSlot, Problem> {
        let name = self.name;
        let share = self.shares.get(tenant).try_acquire_owned().map_err(|_| {
            let max = self.shares.permits();
            let detail = format!("this tenant has {max} open {name}, the limit per tenant: close one, or retry later");
            Problem::new(Code::Busy, detail)
        })?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{} {name} are open, the limit of the host: retry later", self.all_max);
            Problem::new(Code::Busy, detail)
        })?;
        Ok(OpenSlot { _share: share, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_and_all_tenants_the_total() {
        let slots = Slots::new(3, 2, "tails");
        let open = |name: &str| slots.open(&name.parse().unwrap());
        let refused = |name: &str| open(name).err().map(|problem| problem.code());
        let (first, _second) = (open("a").unwrap(), open("a").unwrap());
        assert_eq!(refused("a"), Some(Code::Busy), "its share is used up");
        let _third = open("b").unwrap();
        assert_eq!(refused("c"), Some(Code::Busy), "all slots are used up");
        drop(first);
        assert_eq!(refused("c"), None);
    }
}
