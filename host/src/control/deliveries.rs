//! Deliveries: their history, and what a person may do with those at rest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pages::cursor as cursor_of;
use super::{Control, DeliveryQuery, Error, Page, PageQuery};
use crate::domain::attempt::Attempt;
use crate::domain::audit::Deed;
use crate::domain::delivery::{DeliveryRecord, Redrive};
use crate::domain::id::{DeliveryId, TenantId};
use crate::ledger::{self, Redriven};

/// One delivery with its attempts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeliveryView {
    /// The record.
    #[serde(flatten)]
    pub record: DeliveryRecord,
    /// Its attempts, oldest first.
    pub exchanges: Vec<Attempt>,
}

/// What is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveInput {
    /// What to do; `again` where absent.
    #[serde(default = "again")]
    pub action: Redrive,
}

pub(super) fn again() -> Redrive {
    Redrive::Again
}

impl Control {
    /// A tenant's deliveries, newest first.
    pub async fn list_deliveries(
        &self,
        tenant: &TenantId,
        query: DeliveryQuery,
        page: PageQuery,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let of = self.tenant(tenant)?.incarnation();
        let asked = page.within(of)?;
        let page = self.ledger.deliveries(tenant, query, asked.place()?, asked.limit()).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| cursor_of(of, next)) })
    }

    /// One delivery with its attempts.
    pub async fn show_delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryView, Error> {
        let record = self.delivery(tenant, id).await?;
        let exchanges = self.ledger.attempts(record.seq).await?;
        Ok(DeliveryView { record, exchanges })
    }

    /// The claims that a delivery sends, after its filters: JSON text.
    pub async fn show_delivery_claims(&self, tenant: &TenantId, id: DeliveryId) -> Result<String, Error> {
        self.tenant(tenant)?;
        self.ledger.delivery_claims(tenant, id).await?.ok_or_else(|| not_found(id))
    }

    /// Sends again, releases or discards a delivery at rest.
    pub async fn redrive(&self, tenant: &TenantId, id: DeliveryId, action: Redrive) -> Result<DeliveryView, Error> {
        let record = self.delivery(tenant, id).await?;
        // Without bytes it runs its chain as it is now: the chain as it was would hold it once more.
        if action == Redrive::Again
            && !(self.pin_anew)(tenant.clone(), vec![record], self.deed("delivery.again")).await?.is_empty()
        {
            return self.show_delivery(tenant, id).await;
        }
        // By itself: whoever asked may hang up, and then the row would be due without anybody who knows.
        let (control, whose) = (self.clone(), tenant.clone());
        let deed = self.redrive_deed(action);
        let doing = tokio::spawn(async move {
            let redriven = control.ledger.redrive(&whose, id, (action, deed), control.clock.now()).await?;
            if let Some(Redriven::Due(due) | Redriven::Discarded(Some(due))) = &redriven {
                (control.tell_due)(vec![due.clone()]).await;
            }
            Ok(redriven)
        });
        match doing.await.unwrap_or(Err(ledger::Error::Closed))? {
            None => return Err(not_found(id)),
            Some(Redriven::Due(_) | Redriven::Discarded(_)) => {}
            Some(Redriven::NotApplicable(state)) => {
                return Err(Error::Conflict(format!(
                    "the delivery is {}: `again` and `discard` are for held and dead ones, `release` for held ones",
                    state.as_str()
                )));
            }
        }
        self.show_delivery(tenant, id).await
    }

    /// What the audit log calls it.
    pub(super) fn redrive_deed(&self, action: Redrive) -> Deed {
        self.deed(match action {
            Redrive::Again => "delivery.again",
            Redrive::Release => "delivery.release",
            Redrive::Discard => "delivery.discard",
        })
    }

    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryRecord, Error> {
        self.tenant(tenant)?;
        self.ledger.delivery(tenant, id).await?.ok_or_else(|| not_found(id))
    }
}

fn not_found(id: DeliveryId) -> Error {
    Error::NotFound(format!("delivery `{id}`"))
}
