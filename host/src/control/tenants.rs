//! Tenants: the operator makes and removes them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Control, Error, Expected, TEXT_CHARS_MAX, short};
use crate::domain::id::TenantId;
use crate::domain::tenant::{Quota, Tenant};

/// What is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its name.
    pub id: TenantId,
    /// What people call it.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub display_name: Option<String>,
    /// Where it differs from the host's quota.
    #[serde(default)]
    pub quota: Option<Quota>,
}

impl Control {
    /// Makes a tenant.
    pub async fn create_tenant(&self, new: NewTenant) -> Result<Tenant, Error> {
        if self.ledger.snapshot().tenant(&new.id).is_some() {
            return Err(Error::Conflict(format!("there is a tenant `{}` already", new.id)));
        }
        short("display_name", &new.display_name)?;
        let tenant =
            Tenant { id: new.id, display_name: new.display_name, quota: new.quota, created_at: self.clock.now() };
        self.ledger.put_tenant(tenant.clone(), Expected::Absent).await?;
        Ok(tenant)
    }

    /// All tenants, by name.
    pub fn list_tenants(&self) -> Vec<Tenant> {
        self.ledger.snapshot().tenants.values().map(|view| view.tenant.value.clone()).collect()
    }

    /// One tenant.
    pub fn show_tenant(&self, tenant: &TenantId) -> Result<Tenant, Error> {
        Ok(self.tenant(tenant)?.tenant.value.clone())
    }

    /// Removes a tenant with everything that is its own: events and history too.
    pub async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        self.tenant(tenant)?;
        self.ledger.remove_tenant(tenant, Expected::Any).await?;
        Ok(())
    }
}
