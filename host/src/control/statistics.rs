//! Statistics: how the deliveries of a subscription, or of all of a tenant's, have fared.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Error};
use crate::domain::delivery::State;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::statistics::{Durations, Window};
use crate::domain::time::Timestamp;

/// What is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatisticsQuery {
    /// How far to look back: `1h`, `24h` or `7d`; `24h` where absent.
    #[serde(default)]
    pub window: Window,
}

/// What the deliveries came to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatisticsView {
    /// The subscription; none: all of the tenant's, those that were removed too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionId>,
    /// What was asked for.
    pub window: Window,
    /// From when on it is counted: the begin of a minute (`1h`) or an hour, so that it is part of one more than the window.
    pub since: Timestamp,
    /// Up to now.
    pub until: Timestamp,
    /// Exchanges with receivers.
    pub attempts: AttemptsView,
    /// Deliveries that came to rest in this time. One that was redriven counts each time.
    pub deliveries: DeliveriesView,
    /// From an event's acceptance to a receiver's 2xx, waits between attempts included; replays are not in it. None where
    /// nothing was delivered.
    pub accepted_to_delivered_ms: Option<Percentiles>,
    /// How things stand now.
    pub now: NowView,
}

/// Attempts in numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AttemptsView {
    /// All of them.
    pub count: u64,
    /// Those answered 2xx.
    pub succeeded: u64,
    /// Of the attempts, the share that succeeded: 0 to 1; none where there were none.
    pub success_rate: Option<f64>,
    /// The others, by class: the hundreds of the status (`4xx`), or an error class (`timeout`).
    pub failures: BTreeMap<String, u64>,
    /// How long they took, in milliseconds; none where there were none.
    pub latency_ms: Option<Percentiles>,
}

/// Deliveries by the state in which they came to rest.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `State`")]
pub struct DeliveriesView {
    pub delivered: u64,
    pub dropped: u64,
    pub held: u64,
    pub dead: u64,
}

/// What half, 9 of 10 and 99 of 100 do not exceed, in milliseconds; at most 1/16 off.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "their names say which share")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// Deliveries that wait, as of now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NowView {
    /// For their time, or for their turn.
    pub due: u64,
    /// For a person, by a fault.
    pub held: u64,
    /// Given up.
    pub dead: u64,
    /// Bytes that the tenant has stored, which `quota.stored_bytes_max` bounds; none for a single subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// When the first of those that are due is or was due; long ago: it waits for the receiver, or the subscription is
    /// paused.
    pub oldest_due: Option<Timestamp>,
}

impl Control {
    /// The statistics of one subscription, or of the whole tenant.
    pub async fn statistics(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        window: Window,
    ) -> Result<StatisticsView, Error> {
        let view = self.tenant(tenant)?;
        if let Some(id) = subscription
            && !view.subscriptions.contains_key(&id)
        {
            return Err(Error::NotFound(format!("subscription `{id}`")));
        }
        let until = self.clock.now();
        let counted = self.ledger.statistics(tenant, subscription, window, until).await?;
        let counts = self.ledger.counts(tenant, subscription).await?;
        let oldest_due = self.ledger.oldest_due(tenant, subscription).await?;
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
                delivered: of.rested_as(State::Delivered),
                dropped: of.rested_as(State::Dropped),
                held: of.rested_as(State::Held),
                dead: of.rested_as(State::Dead),
            },
            accepted_to_delivered_ms: percentiles(&of.accepted_to_delivered_ms, 1.0),
            now: NowView {
                due: counts.due,
                held: counts.held,
                dead: counts.dead,
                stored_bytes: subscription.is_none().then(|| self.ledger.stored(tenant)),
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
