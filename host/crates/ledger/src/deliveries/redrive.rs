//! Bulk redrive: lists deliveries at rest, oldest first, and applies a person's decision to a chunk of them.

use setgate_domain::id::{DeliveryId, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::deliveries::Deliveries;
use crate::deliveries::settle::{Decision, RedriveOutcome, redrive_audited};

/// Maximum number of deliveries that one call of [`Deliveries::redrive_many`](crate::Deliveries::redrive_many) changes, since it delays all other requests.
pub const REDRIVE_CHUNK_ROWS: usize = 200;

impl Deliveries {
    /// Applies [`Deliveries::redrive`](crate::Deliveries::redrive) to the first [`REDRIVE_CHUNK_ROWS`] deliveries in one transaction, and ignores
    /// further ones. Returns a result for each delivery that exists.
    pub async fn redrive_many(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
        decision: impl Into<Decision>,
        at: Timestamp,
    ) -> Result<Vec<RedriveOutcome>, Error> {
        let (tenant, decision) = (tenant.clone(), decision.into());
        self.0
            .queue()
            .write(move |batch| {
                let chunk = ids.iter().take(REDRIVE_CHUNK_ROWS);
                chunk.filter_map(|id| redrive_audited(batch, &tenant, *id, &decision, at).transpose()).collect()
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeliveryQuery;
    use crate::tests::{NOW, TENANT, block_on, event, new_delivery, open, run, subscription, with_events};
    use crate::{FanOut, Ledger};
    use setgate_domain::delivery::Redrive;
    use setgate_domain::delivery::State;
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::event::EventSeq;
    use setgate_domain::verdict::Fault;

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    /// Six events for two subscriptions: the deliveries of the first are dead, those of the second held by `redact`.
    async fn at_rest_by_twelve(ledger: &Ledger) {
        let plan = with_events(ledger, 6).await;
        for n in 1..=6_u64 {
            ledger.store.clock().set(NOW.plus_millis(n.cast_signed()));
            let deliveries = vec![new_delivery(n, 1, plan), new_delivery(n, 2, plan)];
            let made = ledger.events.fan_out(FanOut { through: EventSeq(n.cast_signed()), deliveries }).await.unwrap();
            let mut faulted = run();
            faulted.fault = Some(Fault::Wall { limit_ms: 1 });
            let steps = [
                Step::Dead { attempt: None, reason: "gave up".into() },
                Step::Held { runs: vec![faulted], reason: "a fault".into() },
            ];
            for (due, step) in made.iter().zip(steps) {
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            }
        }
    }

    #[test]
    fn pages_are_stable_and_oldest_first() {
        block_on(async {
            let (_folder, ledger) = open();
            at_rest_by_twelve(&ledger).await;
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let page = ledger
                    .history
                    .resting_deliveries(&tenant(), State::Dead, DeliveryQuery::default(), cursor, 2)
                    .await
                    .unwrap();
                let ids: Vec<_> = page.items.iter().map(|record| record.id).collect();
                seen.extend(ids.iter().map(|id| id.event));
                // The redriven ones leave the listed state.
                let done = ledger.deliveries.redrive_many(&tenant(), ids.clone(), Redrive::Again, NOW).await.unwrap();
                assert!(done.iter().all(|one| matches!(one, RedriveOutcome::Due(_))) && done.len() == ids.len());
                let again = ledger.deliveries.redrive_many(&tenant(), ids, Redrive::Again, NOW).await.unwrap();
                assert!(again.iter().all(|one| matches!(one, RedriveOutcome::NotApplicable(State::Due))));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [1, 2, 3, 4, 5, 6].map(|n| event(n).id));
            assert_eq!(ledger.history.counts(&tenant(), Some(subscription(1))).await.unwrap().due, 6);
        });
    }

    #[test]
    fn selects_by_time_and_faulted_filter() {
        block_on(async {
            let (_folder, ledger) = open();
            at_rest_by_twelve(&ledger).await;
            let count = async |state: State, query: DeliveryQuery| {
                ledger.history.resting_deliveries(&tenant(), state, query, None, 100).await.unwrap().items.len()
            };
            let any = DeliveryQuery::default;
            let time = |since: i64, until: i64| DeliveryQuery {
                since: Some(NOW.plus_millis(since)),
                until: Some(NOW.plus_millis(until)),
                ..any()
            };
            assert_eq!(count(State::Held, any()).await, 6);
            assert_eq!(count(State::Held, time(2, 5)).await, 3);
            assert_eq!(count(State::Held, time(6, 6)).await, 0);
            let by = |filter: &str| DeliveryQuery { filter: Some(filter.parse().unwrap()), ..any() };
            assert_eq!(count(State::Held, by("redact")).await, 6);
            assert_eq!(count(State::Held, by("other")).await, 0);
            assert_eq!(count(State::Dead, by("redact")).await, 0);
            let other = "another".parse().unwrap();
            assert!(
                ledger.history.resting_deliveries(&other, State::Dead, any(), None, 9).await.unwrap().items.is_empty()
            );
            let dead = ledger.history.resting_deliveries(&tenant(), State::Dead, any(), None, 9).await.unwrap().items;
            let ids: Vec<_> = dead.iter().map(|record| record.id).collect();
            assert_eq!(ledger.history.deliveries_by_id(&tenant(), ids.clone()).await.unwrap().len(), 6);
            assert!(ledger.history.deliveries_by_id(&other, ids.clone()).await.unwrap().is_empty());
            assert!(ledger.deliveries.redrive_many(&other, ids, Redrive::Discard, NOW).await.unwrap().is_empty());
        });
    }

    #[test]
    fn one_call_is_limited_to_a_chunk() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let count = REDRIVE_CHUNK_ROWS + 1;
            let deliveries = (0..count).map(|n| new_delivery(1, n as u128, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let ids: Vec<_> = made.iter().map(|due| due.id).collect();
            let done = ledger.deliveries.redrive_many(&tenant(), ids, Redrive::Discard, NOW).await.unwrap();
            assert_eq!(done.len(), REDRIVE_CHUNK_ROWS);
        });
    }
}
