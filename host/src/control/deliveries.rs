//! The history of deliveries.

use schemars::JsonSchema;
use serde::Serialize;
use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::DeliveryRecord;
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_ledger::{History, Registry};

use super::checks::find_tenant;
use super::pages::cursor as cursor_of;
use super::{DeliveryQuery, Error, Page, PageQuery};

/// A delivery with its attempts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeliveryView {
    /// The delivery record.
    #[serde(flatten)]
    pub record: DeliveryRecord,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// The deliveries of all tenants, with their attempts.
#[derive(Clone)]
pub struct DeliveryHistory {
    pub(super) registry: Registry,
    pub(super) history: History,
}

impl DeliveryHistory {
    /// Lists a tenant's deliveries, newest first.
    pub async fn list(
        &self,
        tenant: &TenantId,
        query: DeliveryQuery,
        page: &PageQuery,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let asked = page.within(of)?;
        let page = self.history.deliveries(tenant, query, asked.place()?, asked.limit()).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| cursor_of(of, next)) })
    }

    /// A delivery with its attempts.
    pub async fn show(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryView, Error> {
        let record = self.find(tenant, id).await?;
        let attempts = self.history.attempts(tenant, record.seq).await?;
        Ok(DeliveryView { record, attempts })
    }

    /// The claims that a delivery sends, as filtered, as JSON text.
    pub async fn claims(&self, tenant: &TenantId, id: DeliveryId) -> Result<String, Error> {
        find_tenant(&self.registry, tenant)?;
        self.history.delivery_claims(tenant, id).await?.ok_or_else(|| not_found(id))
    }

    pub(super) async fn find(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryRecord, Error> {
        find_tenant(&self.registry, tenant)?;
        self.history.delivery(tenant, id).await?.ok_or_else(|| not_found(id))
    }
}

pub(super) fn not_found(id: DeliveryId) -> Error {
    Error::NotFound(format!("delivery `{id}`"))
}
