//! Deliveries: their history, and redriving of held and dead ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_domain::attempt::Attempt;
use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliveryRecord, Redrive};
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_ledger::RedriveOutcome;

use super::pages::cursor as cursor_of;
use super::{Control, DeliveryQuery, Error, Page, PageQuery};

/// A delivery with its attempts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeliveryView {
    /// The delivery record.
    #[serde(flatten)]
    pub record: DeliveryRecord,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// A request to redrive one delivery.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveInput {
    /// The action. `again` if absent.
    #[serde(default = "again")]
    pub action: Redrive,
}

pub(super) fn again() -> Redrive {
    Redrive::Again
}

impl Control {
    /// Lists a tenant's deliveries, newest first.
    pub async fn list_deliveries(
        &self,
        tenant: &TenantId,
        query: DeliveryQuery,
        page: PageQuery,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let of = self.tenant(tenant)?.incarnation();
        let asked = page.within(of)?;
        let page = self.ledger.history.deliveries(tenant, query, asked.place()?, asked.limit()).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| cursor_of(of, next)) })
    }

    /// A delivery with its attempts.
    pub async fn show_delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryView, Error> {
        let record = self.delivery(tenant, id).await?;
        let attempts = self.ledger.history.attempts(tenant, record.seq).await?;
        Ok(DeliveryView { record, attempts })
    }

    /// The claims that a delivery sends, as filtered, as JSON text.
    pub async fn show_delivery_claims(&self, tenant: &TenantId, id: DeliveryId) -> Result<String, Error> {
        self.tenant(tenant)?;
        self.ledger.history.delivery_claims(tenant, id).await?.ok_or_else(|| not_found(id))
    }

    /// Redrives one delivery: sends it again, releases it or discards it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the action does not apply to the delivery's state.
    pub async fn redrive(&self, tenant: &TenantId, id: DeliveryId, action: Redrive) -> Result<DeliveryView, Error> {
        let record = self.delivery(tenant, id).await?;
        // A delivery without a completed chain runs the current chain, because its pinned chain would hold it again.
        if action == Redrive::Again
            && !self
                .data_plane
                .requeue_with_current_chain(tenant, vec![record], self.audit("delivery.again"))
                .await?
                .is_empty()
        {
            return self.show_delivery(tenant, id).await;
        }
        // Spawned, because the request may be cancelled after the commit, and then the dispatcher would not be notified
        // of the due row.
        let (control, whose) = (self.clone(), tenant.clone());
        let audit = self.redrive_action(action);
        let doing = tokio::spawn(async move {
            let redriven = control.ledger.deliveries.redrive(&whose, id, (action, audit), control.clock.now()).await?;
            if let Some(RedriveOutcome::Due(due) | RedriveOutcome::Discarded(Some(due))) = &redriven {
                control.data_plane.dispatch(vec![due.clone()]).await;
            }
            Ok(redriven)
        });
        match doing.await.unwrap_or(Err(setgate_ledger::Error::Closed))? {
            None => return Err(not_found(id)),
            Some(RedriveOutcome::Due(_) | RedriveOutcome::Discarded(_)) => {}
            Some(RedriveOutcome::NotApplicable(state)) => {
                return Err(Error::Conflict(format!(
                    "the delivery is {}: `again` and `discard` are for held and dead ones, `release` for held ones",
                    state.as_str()
                )));
            }
        }
        self.show_delivery(tenant, id).await
    }

    /// The audit record of the action.
    pub(super) fn redrive_action(&self, action: Redrive) -> AuditAction {
        self.audit(match action {
            Redrive::Again => "delivery.again",
            Redrive::Release => "delivery.release",
            Redrive::Discard => "delivery.discard",
        })
    }

    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryRecord, Error> {
        self.tenant(tenant)?;
        self.ledger.history.delivery(tenant, id).await?.ok_or_else(|| not_found(id))
    }
}

fn not_found(id: DeliveryId) -> Error {
    Error::NotFound(format!("delivery `{id}`"))
}
