//! The quota of a tenant: its own, or the host's default.

use setgate_domain::id::TenantId;
use setgate_domain::tenant::Quota;
use setgate_ledger::Registry;

use crate::config::Settings;

/// Looks up quotas. Cheap to clone.
#[derive(Clone)]
pub(super) struct Quotas {
    registry: Registry,
    settings: Settings,
}

impl Quotas {
    pub(super) fn new(registry: Registry, settings: Settings) -> Self {
        Self { registry, settings }
    }

    /// The tenant's own quota, or the host's default if the tenant has none.
    pub(super) fn of(&self, tenant: &TenantId) -> Quota {
        self.registry
            .snapshot()
            .tenant(tenant)
            .and_then(|view| view.tenant.value.quota.clone())
            .unwrap_or_else(|| self.settings.now().quota.clone())
    }
}
