//! The live tail: a tenant's settlements as they come, from the log that the ledger keeps of them. Nothing is handed on
//! through memory: whoever reads slowly reads later, and misses nothing that the log still has.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Control, Error, pages};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::State;
use crate::domain::id::{DeliveryId, EventId, SourceName, SubscriptionId, TenantId};
use crate::domain::tenant::Incarnation;
use crate::domain::time::Timestamp;
pub use crate::ledger::SETTLED_BYTES_MAX as PAGE_BYTES_MAX;
use crate::ledger::{SettledPlace, SettledQuery, SettledRecord};

/// Settlements read at a time; together with [`PAGE_BYTES_MAX`] what a stream holds in memory.
pub const PAGE_MAX: usize = 100;
/// Time from the first settlement of a burst to reading it, in milliseconds, so that the rest of it is read with it.
const GATHER_MS: u64 = 50;

/// What is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TailQuery {
    /// Of this subscription.
    #[serde(default)]
    pub subscription: Option<SubscriptionId>,
    /// That left their deliveries in this state.
    #[serde(default)]
    pub state: Option<State>,
    /// Behind this place, as the `id` of an event; from now on where absent. `Last-Event-ID` goes before it.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SettlementView {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// Where it stands from then on: `due` after an attempt that is followed by another, or after a redrive.
    pub state: State,
    /// When.
    pub at: Timestamp,
    /// The source of its event.
    pub source: SourceName,
    /// The event's types.
    pub types: Vec<String>,
    /// Whom the event is about.
    pub subject: Option<String>,
    /// The attempt that led to it, where one did.
    pub attempt: Option<Attempt>,
}

/// What a tail has next.
#[derive(Debug)]
pub struct Tailed {
    /// Some settlements, oldest first, each with the place behind it.
    pub settlements: Vec<(String, SettlementView)>,
    /// Before them some may be missing: the log goes back no further.
    pub missed: bool,
}

/// A tail that is read.
pub struct Tail {
    control: Control,
    tenant: TenantId,
    of: Incarnation,
    query: SettledQuery,
    place: SettledPlace,
    /// There may be more to read already.
    more: bool,
    changed: watch::Receiver<i64>,
}

impl Control {
    /// A tail of the tenant's settlements, behind `cursor` or from now on.
    pub async fn tail(&self, tenant: &TenantId, query: TailQuery) -> Result<Tail, Error> {
        let of = self.tenant(tenant)?.incarnation();
        let changed = self.ledger.settled_changed();
        let end = self.ledger.settled_end();
        let place = pages::place(of, query.cursor.as_deref())?.unwrap_or(end);
        let query = SettledQuery { subscription: query.subscription, state: query.state };
        // A place that the log has not come to is none of this host's.
        self.ledger.settled(tenant, query, place, 1).await?;
        Ok(Tail { control: self.clone(), tenant: tenant.clone(), of, query, place, more: true, changed })
    }
}

impl Tail {
    /// How far it has come: where another tail would go on.
    pub fn place(&self) -> String {
        pages::cursor(self.of, self.place)
    }

    /// Waits for the next settlements. Dropped while it waits, nothing is lost: the next call goes on.
    pub async fn next(&mut self) -> Result<Tailed, Error> {
        loop {
            if !self.more && !self.control.ledger.has_settled(&self.tenant, self.place) {
                // The ledger that tells is held by `control`.
                let _told = self.changed.changed().await;
                if !self.control.ledger.has_settled(&self.tenant, self.place) {
                    continue;
                }
                tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
            }
            let page = self.control.ledger.settled(&self.tenant, self.query, self.place, PAGE_MAX).await?;
            self.place = page.next;
            self.more = page.more;
            if page.missed || !page.items.is_empty() {
                let settlements =
                    page.items.into_iter().map(|one| (pages::cursor(self.of, one.place), show(one))).collect();
                return Ok(Tailed { settlements, missed: page.missed });
            }
            // Whatever is not asked for lets others go on.
            tokio::task::yield_now().await;
        }
    }
}

fn show(settled: SettledRecord) -> SettlementView {
    SettlementView {
        delivery: settled.delivery,
        event: settled.delivery.event,
        subscription: settled.delivery.subscription,
        state: settled.state,
        at: settled.at,
        source: settled.source,
        types: settled.types,
        subject: settled.subject,
        attempt: settled.attempt,
    }
}
