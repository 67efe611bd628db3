//! Delivery statistics of a subscription or of a tenant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_domain::delivery::State;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::statistics::{Durations, Window};
use setgate_domain::time::Timestamp;

use super::Error;
use super::checks::find_tenant;

/// A statistics query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatisticsQuery {
    /// Length of the window: `1h`, `24h` or `7d`. `24h` if absent.
    #[serde(default)]
    pub window: Window,
}

/// Statistics of attempts and deliveries.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatisticsView {
    /// The subscription. Absent for the whole tenant, which includes removed subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionId>,
    /// The requested window.
    pub window: Window,
    /// Start of the counted period. It is rounded down to a minute (`1h`) or an hour, so the period is up to one unit
    /// longer than the window.
    pub since: Timestamp,
    /// End of the counted period: the time of the request.
    pub until: Timestamp,
    /// HTTP requests to receivers.
    pub attempts: AttemptsView,
    /// Deliveries that reached a final or held state in this period. A redriven delivery is counted each time.
    pub deliveries: DeliveriesView,
    /// Time from the acceptance of an event to a receiver's 2xx, including the delays between attempts. Replays are
    /// excluded. `null` if nothing was delivered.
    pub accepted_to_delivered_ms: Option<Percentiles>,
    /// The current state.
    pub now: NowView,
}

/// Numbers of attempts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AttemptsView {
    /// All attempts.
    pub count: u64,
    /// Attempts with a 2xx response.
    pub succeeded: u64,
    /// The fraction of attempts that succeeded, from 0 to 1. `null` if there were none.
    pub success_rate: Option<f64>,
    /// Failed attempts by class: the status class (`4xx`) or an error class (`timeout`).
    pub failures: BTreeMap<String, u64>,
    /// Duration of the attempts in milliseconds. `null` if there were none.
    pub latency_ms: Option<Percentiles>,
}

/// Numbers of deliveries by the state that they reached.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `State`")]
pub struct DeliveriesView {
    pub delivered: u64,
    pub dropped: u64,
    pub held: u64,
    pub dead: u64,
}

/// Percentiles in milliseconds, with a relative error of at most 1/16.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "their names say which share")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// Current numbers of pending, held and dead deliveries.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NowView {
    /// Queued deliveries, including those scheduled for a later time.
    pub due: u64,
    /// Held deliveries, which need manual action.
    pub held: u64,
    /// Dead letters.
    pub dead: u64,
    /// Bytes stored for the tenant, limited by `quota.stored_bytes_max`. Absent for a single subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Due time of the oldest due delivery. If it is long ago, the receiver is failing or slow, or the subscription is
    /// paused.
    pub oldest_due: Option<Timestamp>,
}

/// Reads the statistics of deliveries.
#[derive(Clone)]
pub struct Statistics {
    pub(super) registry: setgate_ledger::Registry,
    pub(super) history: setgate_ledger::History,
    pub(super) usage: setgate_ledger::Usage,
    pub(super) clock: setgate_base::clock::Clock,
}

impl Statistics {
    /// Statistics of one subscription, or of the whole tenant if `subscription` is `None`.
    pub async fn show(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        window: Window,
    ) -> Result<StatisticsView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        if let Some(id) = subscription
            && !view.subscriptions.contains_key(&id)
        {
            return Err(Error::NotFound(format!("subscription `{id}`")));
        }
        let until = self.clock.now();
        let counted = self.history.statistics(tenant, subscription, window, until).await?;
        let counts = self.history.counts(tenant, subscription).await?;
        let oldest_due = self.history.oldest_due(tenant, subscription).await?;
        let of = &counted.statistics;
        Ok(StatisticsView {
            subscription,
            window,
            since: counted.since,
            until,
            attempts: AttemptsView {
                count: of.attempts(),
                succeeded: of.succeeded,
                success_rate: share(of.succeeded, of.attempts()),
                failures: of.failed.clone(),
                latency_ms: percentiles(&of.attempt_us, 1_000.0),
            },
            deliveries: DeliveriesView {
                delivered: of.settled_as(State::Delivered),
                dropped: of.settled_as(State::Dropped),
                held: of.settled_as(State::Held),
                dead: of.settled_as(State::Dead),
            },
            accepted_to_delivered_ms: percentiles(&of.accepted_to_delivered_ms, 1.0),
            now: NowView {
                due: counts.due,
                held: counts.held,
                dead: counts.dead,
                stored_bytes: subscription.is_none().then(|| self.usage.stored(tenant)),
                oldest_due,
            },
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown, not counted with")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[expect(clippy::cast_precision_loss, reason = "they are a sixteenth off as it is")]
fn percentiles(durations: &Durations, units_per_ms: f64) -> Option<Percentiles> {
    let at = |percent| durations.percentile(percent).map(|value| value as f64 / units_per_ms);
    Some(Percentiles { p50: at(50)?, p90: at(90)?, p99: at(99)? })
}
