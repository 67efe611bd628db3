//! The operations of the data plane that the control plane calls.

use setgate_domain::audit::AuditAction;
use setgate_domain::backtest::{Ask, Report};
use setgate_domain::chain::Chained;
use setgate_domain::delivery::{DeliveryRecord, DueDelivery};
use setgate_domain::event::Event;
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, FilterName, SubscriptionId, TenantId};
use setgate_domain::rollout::TrialReport;
use setgate_domain::subscription::Subscription;

use super::{Pipeline, dispatcher};

/// The handle of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct DataPlane {
    pipeline: Pipeline,
    dispatcher: dispatcher::Handle,
}

impl DataPlane {
    pub fn new(pipeline: Pipeline, dispatcher: dispatcher::Handle) -> Self {
        Self { pipeline, dispatcher }
    }

    /// Notifies the dispatcher of deliveries that are due again.
    pub async fn dispatch(&self, due: Vec<DueDelivery>) {
        self.dispatcher.due(due).await;
    }

    /// Makes those of the deliveries due again that never completed their chain, with their subscriptions' current
    /// chains, and returns their ids.
    pub async fn requeue_with_current_chain(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        audit: AuditAction,
    ) -> Result<Vec<DeliveryId>, setgate_ledger::Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        to_its_end(async move {
            let due = this.pipeline.pin_all_anew(&tenant, records, Some(audit)).await?;
            let ids = due.iter().map(|delivery| delivery.id).collect();
            this.dispatch(due).await;
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
        let (this, tenant) = (self.clone(), tenant.clone());
        to_its_end(async move {
            let due = this.pipeline.append_test_event(&tenant, id, audit).await?;
            let delivery = due.as_ref().map(|due| due.id);
            this.dispatch(due.into_iter().collect()).await;
            Ok(delivery)
        })
        .await
    }

    /// Sends a verification challenge to the endpoint of a subscription.
    ///
    /// # Errors
    /// A description of the failure, for the user.
    pub async fn verify_endpoint(&self, subscription: &Subscription) -> Result<(), String> {
        self.pipeline.verify_endpoint(subscription).await
    }

    /// Runs a chain over an event, without storing anything.
    pub async fn run_chain(&self, plan: &Plan, event: &Event, delivery: DeliveryId) -> Chained {
        self.pipeline.chain.run_alone(plan, event, delivery).await
    }

    /// Runs a backtest. `None` if the tenant already has one running.
    pub async fn backtest(&self, ask: Ask) -> Result<Option<Report>, setgate_ledger::Error> {
        self.pipeline.backtester.run(ask).await
    }

    /// The results of a filter's rollout so far. `None` if it has no rollout.
    pub fn rollout_report(&self, tenant: &TenantId, filter: &FilterName) -> Option<TrialReport> {
        self.pipeline.rollouts.report(tenant, filter)
    }

    /// Drops the counters of a filter's rollout. Call this after the end of the rollout is durable.
    pub fn rollout_ended(&self, tenant: &TenantId, filter: &FilterName) {
        self.pipeline.rollouts.ended(tenant, filter);
    }
}

/// Runs an operation in a task of its own: if the client disconnected between the commit and the notification, the due
/// delivery would wait until the next start.
async fn to_its_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T, setgate_ledger::Error>> + Send + 'static,
) -> Result<T, setgate_ledger::Error> {
    tokio::spawn(operation).await.unwrap_or(Err(setgate_ledger::Error::Closed))
}
