//! A fixed number of permits for each tenant. Unlike with a [`super::FairSemaphore`], tenants do not compete: this is
//! only a limit.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use setgate_domain::id::TenantId;
use tokio::sync::Semaphore;

/// That many permits for each tenant, or for each key of another type.
pub struct TenantSemaphores<K = TenantId> {
    permits: usize,
    /// Keys whose permits are in use or awaited.
    tenants: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Clone + Eq + Hash> TenantSemaphores<K> {
    pub fn new(permits: usize) -> Self {
        Self { permits, tenants: Mutex::default() }
    }

    /// Number of permits of each tenant.
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// The permits of a tenant.
    pub fn get(&self, tenant: &K) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = tenants.get(tenant).and_then(Weak::upgrade) {
            return semaphore;
        }
        tenants.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(self.permits));
        tenants.insert(tenant.clone(), Arc::downgrade(&semaphore));
        semaphore
    }
}
