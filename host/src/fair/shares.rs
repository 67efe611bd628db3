//! Permits that each tenant has a number of for itself. Unlike a [`super::Gate`], nobody shares anything here: it is a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::domain::id::TenantId;

/// So many permits for each tenant.
pub(crate) struct Shares {
    permits: usize,
    /// Tenants that hold or wait for a permit.
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl Shares {
    pub(crate) fn new(permits: usize) -> Self {
        Self { permits, tenants: Mutex::default() }
    }

    /// How many each tenant has.
    pub(crate) fn permits(&self) -> usize {
        self.permits
    }

    /// A tenant's permits.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
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
