//! Tenants: created, changed and removed by the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_domain::audit::Actor;
use setgate_domain::id::TenantId;
use setgate_domain::tenant::{Quota, Tenant};
use setgate_ledger::Usage;
use setgate_ledger::{Precondition, Registry};
use setgate_sandbox::Sandbox;

use super::checks::{check_length, expect_any, expect_version, find_tenant, retried};
use super::read_only::{ReadOnly, check_name};
use super::warnings::{self, HostLimits, Warning};
use super::{Error, Page, PageQuery, TEXT_CHARS_MAX, changed};

/// A request to create a tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// The name of the tenant.
    pub id: TenantId,
    /// A display name for users.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub display_name: Option<String>,
    /// Overrides of the host's default quota.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// Accepts the name of an earlier tenant that signed SETs. The new tenant gets an issuer of its own, so that it does
    /// not inherit the trust of receivers: the earlier one's, followed by `/2`, `/3` and so on.
    #[serde(default)]
    pub new_issuer: bool,
}

/// A change of a tenant. Absent members are not changed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantChange {
    /// The new display name. `null` removes it.
    #[serde(default, deserialize_with = "changed")]
    pub display_name: Option<Option<String>>,
    /// The complete quota. `null` restores the host's default.
    #[serde(default, deserialize_with = "changed")]
    pub quota: Option<Option<Quota>>,
    /// The name in the path. Optional.
    #[serde(default)]
    pub id: Option<TenantId>,
    /// Read-only; ignored.
    #[serde(default)]
    pub issuer: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub created_at: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub warnings: ReadOnly,
}

/// A tenant with its version.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TenantShown {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// The tenant.
    #[serde(flatten)]
    pub tenant: Tenant,
    /// Quotas that have no effect. Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// The tenants of the host.
#[derive(Clone)]
pub struct Tenants {
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    /// Caps the memory of a filter call.
    pub(super) sandbox: Sandbox,
    /// Caps what a tenant can store.
    pub(super) usage: Usage,
}

impl Tenants {
    /// Creates a tenant. [`Error::IssuerNameUsed`] if an earlier tenant of that name signed SETs, unless `new_issuer` is
    /// set.
    pub async fn create(&self, actor: &Actor, new: NewTenant) -> Result<TenantShown, Error> {
        if self.registry.snapshot().tenant(&new.id).is_some() {
            return Err(Error::Conflict(format!("there is a tenant `{}` already", new.id)));
        }
        check_length("display_name", &new.display_name)?;
        let tenant = Tenant {
            id: new.id,
            display_name: new.display_name,
            quota: new.quota,
            issuer: None,
            created_at: self.clock.now(),
        };
        let intent = (Precondition::Absent, actor.action("tenant.create"));
        let version = self.registry.create_tenant(tenant.clone(), new.new_issuer, intent).await?;
        Ok(self.shown(version, tenant))
    }

    /// Changes a tenant. A smaller quota applies to new data only; existing data is not removed.
    pub async fn change(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        change: TenantChange,
        expected: Option<u64>,
    ) -> Result<TenantShown, Error> {
        check_name("id", change.id.as_ref(), tenant)?;
        check_length("display_name", change.display_name.iter().flatten())?;
        if change.display_name.is_none() && change.quota.is_none() {
            return Err(Error::invalid("display_name", "nothing is to be changed: give `display_name` or `quota`"));
        }
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let mut tenant = view.tenant.value.clone();
            if let Some(name) = &change.display_name {
                tenant.display_name.clone_from(name);
            }
            if let Some(quota) = &change.quota {
                tenant.quota.clone_from(quota);
            }
            let intent = (expect_version(expected, Some(&view.tenant)), actor.action("tenant.change"));
            let version = self.registry.put_tenant(tenant.clone(), intent).await?;
            Ok(self.shown(version, tenant))
        })
        .await
    }

    /// All tenants, by name.
    pub fn list(&self, page: &PageQuery) -> Result<Page<Tenant>, Error> {
        let snapshot = self.registry.snapshot();
        page.of(snapshot.tenants.iter().map(|(id, view)| (id.clone(), view)), |view| view.tenant.value.clone())
    }

    /// Returns one tenant.
    pub fn show(&self, tenant: &TenantId) -> Result<TenantShown, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        Ok(self.shown(view.tenant.version, view.tenant.value.clone()))
    }

    fn shown(&self, version: u64, tenant: Tenant) -> TenantShown {
        let host = HostLimits {
            memory_bytes_max: self.sandbox.memory_bytes_max(),
            ledger_bytes_max: self.usage.ledger_bytes_max(),
        };
        let warnings = warnings::of_tenant(&tenant, &host);
        TenantShown { version, tenant, warnings }
    }

    /// Removes a tenant with all its data, including events and history. Its audit records are retained for the
    /// operator.
    pub async fn remove(&self, actor: &Actor, tenant: &TenantId, expected: Option<u64>) -> Result<(), Error> {
        find_tenant(&self.registry, tenant)?;
        self.registry.remove_tenant(tenant, (expect_any(expected), actor.action("tenant.remove"))).await?;
        Ok(())
    }
}
