//! The quota of a tenant: its own, or the host's default.

use setgate_base::live::Live;
use setgate_domain::filter::Plan;
use setgate_domain::id::TenantId;
use setgate_domain::tenant::Quota;
use setgate_ledger::Registry;

/// Looks up quotas. Cheap to clone.
#[derive(Clone)]
pub(super) struct Quotas {
    registry: Registry,
    default_quota: Live<Quota>,
}

impl Quotas {
    pub(super) fn new(registry: Registry, default_quota: Live<Quota>) -> Self {
        Self { registry, default_quota }
    }

    /// The tenant's own quota, or the host's default if the tenant has none or was removed.
    pub(super) fn of(&self, tenant: &TenantId) -> Quota {
        let (snapshot, default) = (self.registry.snapshot(), self.default_quota.now());
        snapshot.tenant(tenant).map_or(&**default, |view| view.tenant.value.quota_or(&default)).clone()
    }

    /// The tenant's quota, overridden by the limits pinned with a plan.
    pub(super) fn of_plan(&self, plan: &Plan, tenant: &TenantId) -> Quota {
        let quota = self.of(tenant);
        plan.limits.as_ref().map_or(quota.clone(), |limits| quota.with_call_limits(limits))
    }
}
