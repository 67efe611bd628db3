//! The live tail: streams a tenant's settlements from the ledger's settlement log. A tail reads only from the log, so a
//! slow reader falls behind without loss, as long as the log retains the records.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::State;
use setgate_domain::id::{DeliveryId, EventId, SourceName, SubscriptionId, TenantId};
use setgate_domain::tenant::Incarnation;
use setgate_domain::time::Timestamp;
use tokio::sync::watch;

use super::checks::find_tenant;
use super::{Error, pages};

pub use setgate_ledger::SETTLED_BYTES_MAX as PAGE_BYTES_MAX;
use setgate_ledger::{History, Registry, SettledPlace, SettledQuery, SettledRecord};

/// Settlements read at a time. Together with [`PAGE_BYTES_MAX`] it limits the memory of a stream.
pub const PAGE_MAX: usize = 100;
/// Delay in milliseconds between the first settlement of a burst and the read, so that one read covers the burst.
const GATHER_MS: u64 = 50;

/// A tail query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TailQuery {
    /// Only settlements of this subscription.
    #[serde(default)]
    pub subscription: Option<SubscriptionId>,
    /// Only settlements that left the delivery in this state.
    #[serde(default)]
    pub state: Option<State>,
    /// Start after this cursor, the `id` of an event in the stream. Starts with the next settlement if absent.
    /// `Last-Event-ID` takes precedence.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A state change of a delivery.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SettlementView {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// The new state. `due` if another attempt follows, or after a redrive.
    pub state: State,
    /// Time of the change.
    pub at: Timestamp,
    /// The event's source.
    pub source: SourceName,
    /// The event's types.
    pub types: Vec<String>,
    /// The event's subject.
    pub subject: Option<String>,
    /// The attempt that caused the change, if there was one.
    pub attempt: Option<Attempt>,
}

/// The next part of a tail.
#[derive(Debug)]
pub struct Tailed {
    /// Settlements, oldest first, each with the cursor after it.
    pub settlements: Vec<(String, SettlementView)>,
    /// True if earlier settlements may be missing because the log no longer retains them.
    pub missed: bool,
}

/// A running tail.
pub struct Tail {
    history: History,
    tenant: TenantId,
    of: Incarnation,
    query: SettledQuery,
    place: SettledPlace,
    /// The log may contain further settlements.
    more: bool,
    changed: watch::Receiver<i64>,
}

/// The settlements of all tenants' deliveries.
#[derive(Clone)]
pub struct Settlements {
    pub(super) registry: Registry,
    pub(super) history: History,
}

impl Settlements {
    /// Starts a tail of the tenant's settlements, after `cursor` or from now on.
    pub async fn tail(&self, tenant: &TenantId, query: TailQuery) -> Result<Tail, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let changed = self.history.settlements_changed();
        let end = self.history.settlements_end();
        let place = pages::parse_cursor(of, query.cursor.as_deref())?.unwrap_or(end);
        let query = SettledQuery { subscription: query.subscription, state: query.state };
        // Fails if the cursor is beyond the end of the log, since this host cannot have issued it.
        self.history.settlements(tenant, query, place, 1).await?;
        Ok(Tail { history: self.history.clone(), tenant: tenant.clone(), of, query, place, more: true, changed })
    }
}

impl Tail {
    /// The current cursor, from which another tail can resume.
    pub fn place(&self) -> String {
        pages::cursor(self.of, self.place)
    }

    /// Waits for the next settlements. Cancel safe: if the future is dropped, the next call resumes without loss.
    pub async fn next(&mut self) -> Result<Tailed, Error> {
        loop {
            if !self.more && !self.history.has_settlements(&self.tenant, self.place) {
                // The sender is part of the ledger that `history` holds, so the wait cannot fail.
                let _told = self.changed.changed().await;
                if !self.history.has_settlements(&self.tenant, self.place) {
                    continue;
                }
                tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
            }
            let page = self.history.settlements(&self.tenant, self.query, self.place, PAGE_MAX).await?;
            self.place = page.next;
            self.more = page.more;
            if page.missed || !page.items.is_empty() {
                let settlements =
                    page.items.into_iter().map(|one| (pages::cursor(self.of, one.place), show(one))).collect();
                return Ok(Tailed { settlements, missed: page.missed });
            }
            // Yields to other tasks after a page without matching settlements.
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
