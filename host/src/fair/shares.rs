//! Permits that each tenant has a number of for itself. Unlike a [`super::Gate`], nobody shares anything here: it is a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::domain::id::TenantId;

/// So many permits for each tenant, or for each of whatever else there are many of.
pub(crate) struct Shares<K = TenantId> {
    permits: usize,
    /// Those that hold or wait for a permit.
    tenants: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(crate) fn new(permits: usize) -> Self {
        Self { permits, tenants: Mutex::default() }
    }

    /// How many each tenant has.
    pub(crate) fn permits(&self) -> usize {
        self.permits
    }

    /// A tenant's permits.
    pub(crate) fn of(&self, tenant: &K) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.permits));
        tenants.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }
}
