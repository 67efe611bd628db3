//! Turns at the pool's slots. The pool answers an error where it is full; here a call waits instead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::domain::id::TenantId;

/// As many permits as the pool has slots, and of those a bound for each tenant.
pub(super) struct Slots {
    all: Arc<Semaphore>,
    per_tenant_max: usize,
    /// Tenants that hold or wait for a slot.
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// The right to one slot, until dropped.
pub(super) struct Slot {
    _one: OwnedSemaphorePermit,
    _of_tenant: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn new(instances_max: usize, per_tenant_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(instances_max)), per_tenant_max, tenants: Mutex::default() }
    }

    /// Waits for a slot, first come first served. A tenant waits for its own share first, so that its surplus does not
    /// stand in anybody else's way.
    ///
    /// # Errors
    /// After [`Slots::close`].
    pub(super) async fn take(&self, tenant: Option<&TenantId>) -> Result<Slot, AcquireError> {
        let of_tenant = match tenant {
            Some(tenant) => Some(self.of_tenant(tenant).acquire_owned().await?),
            None => None,
        };
        Ok(Slot { _one: self.all.clone().acquire_owned().await?, _of_tenant: of_tenant })
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        self.all.close();
    }

    fn of_tenant(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.per_tenant_max));
        tenants.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_at_its_bound_waits_while_others_do_not() {
        let slots = Slots::new(3, 2);
        let (busy, other): (TenantId, TenantId) = ("busy".parse().unwrap(), "other".parse().unwrap());
        let first = slots.take(Some(&busy)).await.unwrap();
        let _second = slots.take(Some(&busy)).await.unwrap();
        let waiting = slots.take(Some(&busy));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert!(slots.take(Some(&other)).await.is_ok());
        drop(first);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn closing_ends_the_waiting() {
        let slots = Slots::new(1, 1);
        let _held = slots.take(None).await.unwrap();
        let waiting = slots.take(None);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        slots.close();
        assert!(waiting.await.is_err());
    }
}
