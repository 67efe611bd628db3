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

    /// The tenant's own quota, or the host's default if the tenant has none or was removed.
    pub(super) fn of(&self, tenant: &TenantId) -> Quota {
        let (snapshot, settings) = (self.registry.snapshot(), self.settings.now());
        let default = &settings.quota;
        snapshot.tenant(tenant).map_or(default, |view| view.tenant.value.quota_or(default)).clone()
    }
}
