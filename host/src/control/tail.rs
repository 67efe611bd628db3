//! The live tail: streams a tenant's settlements from the ledger's settlement log, which is in memory. A tail reads only
//! from the log. So a slow reader falls behind without loss while the log retains its next entry, and is informed of the
//! gap otherwise.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::State;
use setgate_domain::id::{DeliveryId, EventId, SourceName, SubscriptionId, TenantId};
use setgate_domain::tenant::Incarnation;
use setgate_domain::time::Timestamp;

use super::checks::find_tenant;
use super::{Error, pages};

pub use setgate_ledger::SETTLED_BYTES_MAX as PAGE_BYTES_MAX;
use setgate_ledger::{History, Registry, SettledQuery, SettledRecord, SettlementReader};

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
    /// True if earlier settlements may be missing, because the log does not retain them or the cursor is from before a
    /// restart of the host.
    pub missed: bool,
}

/// A running tail.
pub struct Tail {
    of: Incarnation,
    reader: SettlementReader,
}

/// The settlements of all tenants' deliveries.
#[derive(Clone)]
pub struct Settlements {
    pub(super) registry: Registry,
    pub(super) history: History,
}

impl Settlements {
    /// Starts a tail of the tenant's settlements, after `cursor` or from now on.
    pub fn tail(&self, tenant: &TenantId, query: TailQuery) -> Result<Tail, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let after = pages::parse_cursor(of, query.cursor.as_deref())?;
        let query = SettledQuery { subscription: query.subscription, state: query.state };
        Ok(Tail { of, reader: self.history.follow_settlements(tenant, query, after)? })
    }
}

impl Tail {
    /// The current cursor, from which another tail can resume.
    pub fn place(&self) -> String {
        pages::cursor(self.of, self.reader.position())
    }

    /// Waits for the next settlements. Cancel safe: if the future is dropped, the next call resumes without loss.
    pub async fn next(&mut self) -> Result<Tailed, Error> {
        loop {
            if !self.reader.has_more() {
                self.reader.wait_for_more().await;
                tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
            }
            let page = self.reader.next_page(PAGE_MAX).await?;
            if page.missed || !page.items.is_empty() {
                let settlements =
                    page.items.into_iter().map(|one| (pages::cursor(self.of, one.position), show(one))).collect();
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
