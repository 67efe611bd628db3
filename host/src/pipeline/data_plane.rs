//! The stages of the data plane that the control plane uses.

use std::sync::Arc;

use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::DeliveryRecord;
use setgate_domain::id::{DeliveryId, SubscriptionId, TenantId};

use super::backtest::Backtester;
use super::chain::ChainRunner;
use super::due_queue::DueQueue;
use super::endpoint_verification::EndpointVerifier;
use super::requeue::Requeuer;
use super::rollout_report::RolloutResults;
use super::test_event::TestEvents;

/// The stages that the control plane uses. Each of its handles takes those that it needs.
pub struct DataPlane {
    pub(crate) requeues: Requeues,
    pub(crate) test_events: TestEventSender,
    pub(crate) verifier: Arc<EndpointVerifier>,
    pub(crate) chain: Arc<ChainRunner>,
    pub(crate) backtester: Arc<Backtester>,
    pub(crate) rollouts: RolloutResults,
    pub(crate) due: DueQueue,
}

/// Makes deliveries due again at the request of a user. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requeues {
    pub(super) requeuer: Requeuer,
    pub(super) due: DueQueue,
}

impl Requeues {
    /// Makes those of the deliveries due again that never completed their chain, with their subscriptions' current
    /// chains, and returns their ids.
    pub(crate) async fn with_current_chain(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        audit: AuditAction,
    ) -> Result<Vec<DeliveryId>, setgate_ledger::Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        run_to_completion(async move {
            let due = this.requeuer.requeue(&tenant, records, Some(audit)).await?;
            let ids = due.iter().map(|delivery| delivery.id).collect();
            this.due.push(due).await;
            Ok(ids)
        })
        .await
    }
}

/// Sends test events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TestEventSender {
    pub(super) events: Arc<TestEvents>,
    pub(super) due: DueQueue,
}

impl TestEventSender {
    /// Sends a test event to one subscription and returns its delivery. `None` if the subscription does not exist.
    pub(crate) async fn send(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        audit: AuditAction,
    ) -> Result<Option<DeliveryId>, setgate_ledger::Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        run_to_completion(async move {
            let due = this.events.append(&tenant, id, audit).await?;
            let delivery = due.as_ref().map(|due| due.id);
            this.due.push(due.into_iter().collect()).await;
            Ok(delivery)
        })
        .await
    }
}

/// Runs an operation in a task of its own, so that it completes even if the caller is cancelled: if a client disconnected
/// between the commit and the notification of the dispatcher, the due delivery would wait until the next start.
pub(crate) async fn run_to_completion<T: Send + 'static, E: From<setgate_ledger::Error> + Send + 'static>(
    operation: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    tokio::spawn(operation).await.unwrap_or_else(|_| Err(setgate_ledger::Error::Closed.into()))
}
