//! The operations of the data plane that the control plane calls.

use std::sync::Arc;

use setgate_domain::audit::AuditAction;
use setgate_domain::backtest::{BacktestReport, BacktestRequest};
use setgate_domain::chain::ChainResult;
use setgate_domain::delivery::{DeliveryRecord, DueDelivery};
use setgate_domain::event::Event;
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, FilterName, SubscriptionId, TenantId};
use setgate_domain::rollout::RolloutReport;
use setgate_domain::subscription::Subscription;

use super::backtest::Backtester;
use super::chain::ChainRunner;
use super::due_queue::DueQueue;
use super::endpoint_verification::EndpointVerifier;
use super::requeue::Requeuer;
use super::rollout_report::Rollouts;
use super::test_event::TestEvents;

/// The stages that the control plane uses. Cheap to clone.
#[derive(Clone)]
pub struct DataPlane {
    pub(super) requeuer: Requeuer,
    pub(super) test_events: Arc<TestEvents>,
    pub(super) verifier: Arc<EndpointVerifier>,
    pub(super) chain: Arc<ChainRunner>,
    pub(super) backtester: Arc<Backtester>,
    pub(super) rollouts: Rollouts,
    pub(super) due: DueQueue,
}

impl DataPlane {
    /// Notifies the dispatcher of deliveries that are due again.
    pub async fn dispatch(&self, due: Vec<DueDelivery>) {
        self.due.push(due).await;
    }

    /// Makes those of the deliveries due again that never completed their chain, with their subscriptions' current
    /// chains, and returns their ids.
    pub async fn requeue_with_current_chain(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        audit: AuditAction,
    ) -> Result<Vec<DeliveryId>, setgate_ledger::Error> {
        let (requeuer, queue, tenant) = (self.requeuer.clone(), self.due.clone(), tenant.clone());
        to_its_end(async move {
            let due = requeuer.requeue(&tenant, records, Some(audit)).await?;
            let ids = due.iter().map(|delivery| delivery.id).collect();
            queue.push(due).await;
            Ok(ids)
        })
        .await
    }

    /// Sends a test event to one subscription and returns its delivery. `None` if the subscription does not exist.
    pub async fn send_test_event(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        audit: AuditAction,
    ) -> Result<Option<DeliveryId>, setgate_ledger::Error> {
        let (test_events, queue, tenant) = (self.test_events.clone(), self.due.clone(), tenant.clone());
        to_its_end(async move {
            let due = test_events.append(&tenant, id, audit).await?;
            let delivery = due.as_ref().map(|due| due.id);
            queue.push(due.into_iter().collect()).await;
            Ok(delivery)
        })
        .await
    }

    /// Sends a verification challenge to the endpoint of a subscription.
    ///
    /// # Errors
    /// A description of the failure, for the user.
    pub async fn verify_endpoint(&self, subscription: &Subscription) -> Result<(), String> {
        self.verifier.verify(subscription).await
    }

    /// Runs a chain over an event, without storing anything.
    pub async fn run_chain(&self, plan: &Plan, event: &Event, delivery: DeliveryId) -> ChainResult {
        self.chain.run_alone(plan, event, delivery).await
    }

    /// Runs a backtest. `None` if the tenant already has one running.
    pub async fn backtest(&self, ask: BacktestRequest) -> Result<Option<BacktestReport>, setgate_ledger::Error> {
        self.backtester.run(ask).await
    }

    /// The results of a filter's rollout so far. `None` if it has no rollout.
    pub fn rollout_report(&self, tenant: &TenantId, filter: &FilterName) -> Option<RolloutReport> {
        self.rollouts.report(tenant, filter)
    }

    /// Drops the counters of a filter's rollout. Call this after the end of the rollout is durable.
    pub fn rollout_ended(&self, tenant: &TenantId, filter: &FilterName) {
        self.rollouts.ended(tenant, filter);
    }
}

/// Runs an operation in a task of its own: if the client disconnected between the commit and the notification, the due
/// delivery would wait until the next start.
async fn to_its_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T, setgate_ledger::Error>> + Send + 'static,
) -> Result<T, setgate_ledger::Error> {
    tokio::spawn(operation).await.unwrap_or(Err(setgate_ledger::Error::Closed))
}
