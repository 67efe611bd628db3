//! FIFO order: a delivery with an order key is blocked by every earlier delivery of its subscription that has the same
//! key and is due or held. A blocked delivery is never returned as due; the transaction that unblocks it returns it.

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::delivery::{DeliverySeq, DueDelivery};
use setgate_domain::id::SubscriptionId;

use crate::Error;
use crate::deliveries::outbox::due_by_seq;
use crate::schema::sql_types::{ReadColumn, params};

/// SQL condition: delivery `d` of the statement is blocked. Worded so that the partial index `delivery_order` applies.
macro_rules! blocked {
    () => {
        "(d.order_key IS NOT NULL AND EXISTS (SELECT 1 FROM delivery o WHERE o.subscription = d.subscription
             AND o.order_key = d.order_key AND o.order_key IS NOT NULL AND o.state IN (0, 3) AND o.seq < d.seq))"
    };
}
pub(crate) use blocked;

/// The next unfinished delivery after a given row, in the same FIFO.
pub(crate) const NEXT_IN_FIFO: &str = "SELECT seq FROM delivery WHERE subscription = ?1 AND order_key = ?2
     AND order_key IS NOT NULL AND state IN (0, 3) AND seq > ?3 ORDER BY seq LIMIT 1";

/// Whether an earlier delivery blocks this one.
pub(crate) fn is_blocked(conn: &Connection, seq: DeliverySeq) -> Result<bool, Error> {
    Ok(conn
        .prepare_cached(concat!("SELECT 1 FROM delivery d WHERE d.seq = ?1 AND ", blocked!()))?
        .exists(params![seq])?)
}

/// The delivery unblocked by one that just ended. `None` if none is queued behind it, or something else still blocks
/// that one.
pub(crate) fn unblocked_by(
    conn: &Connection,
    subscription: SubscriptionId,
    order_key: i64,
    seq: DeliverySeq,
) -> Result<Option<DueDelivery>, Error> {
    let next: Option<DeliverySeq> = conn
        .prepare_cached(NEXT_IN_FIFO)?
        .query_row(params![subscription, order_key, seq], |row| row.column(0))
        .optional()?;
    match next {
        // If `next` is held, it is not due, and it blocks the later ones itself.
        Some(next) if !is_blocked(conn, next)? => due_by_seq(conn, next),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, attempt, block_on, new_delivery, open, reopen, subscription, tenant, with_events};
    use crate::{FanOut, Ledger, RedriveOutcome};
    use setgate_domain::delivery::{NewDelivery, Redrive, Settlement, Step};
    use setgate_domain::event::EventSeq;
    use setgate_domain::id::Digest;

    fn ordered(event: u64, plan: Digest, key: Option<i64>) -> NewDelivery {
        NewDelivery { order_key: key, ..new_delivery(event, 1, plan) }
    }

    async fn settle(ledger: &Ledger, seq: DeliverySeq, step: Step) -> Option<i64> {
        ledger.deliveries.settle(Settlement::new(seq, NOW, step)).await.unwrap().unblocked.map(|row| row.event.0)
    }

    async fn due(ledger: &Ledger) -> Vec<i64> {
        let at = NOW.plus_millis(1_000_000);
        ledger
            .deliveries
            .due(&tenant().id, subscription(1), at, None, 99)
            .await
            .unwrap()
            .iter()
            .map(|row| row.event.0)
            .collect()
    }

    #[test]
    fn later_delivery_is_blocked_until_earlier_ends() {
        block_on(async {
            let (folder, ledger) = open();
            let plan = with_events(&ledger, 6).await;
            let keys = [Some(1), Some(1), Some(2), None, Some(1), Some(2)];
            let deliveries = (1..).zip(keys).map(|(event, key)| ordered(event, plan, key)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(6), deliveries }).await.unwrap();
            assert_eq!(made.iter().map(|row| row.event.0).collect::<Vec<_>>(), [1, 3, 4]);
            assert_eq!(due(&ledger).await, [1, 3, 4]);

            // A retry scheduled for later, or a held delivery, still blocks; also across a restart.
            let later = NOW.plus_millis(60_000);
            let retry = Step::Retry { attempt: attempt(1, 500), due_at: later };
            assert_eq!(settle(&ledger, made[0].seq, retry).await, None);
            let held = Step::Held { runs: vec![], reason: "a fault".into() };
            assert_eq!(settle(&ledger, made[1].seq, held).await, None);
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(due(&ledger).await, [4, 1]);

            // Each unblocks one successor.
            let delivered = Step::Delivered { attempt: attempt(2, 200) };
            assert_eq!(settle(&ledger, made[0].seq, delivered).await, Some(2));
            let second = ledger.deliveries.due(&tenant().id, subscription(1), NOW, None, 99).await.unwrap();
            let second = second.iter().find(|row| row.event.0 == 2).unwrap().seq;
            let dead = Step::Dead { attempt: None, reason: "given up".into() };
            assert_eq!(settle(&ledger, second, dead).await, Some(5));

            // A person discards the held one.
            let tenant = TENANT.parse().unwrap();
            let redriven = ledger.deliveries.redrive(&tenant, made[1].id, Redrive::Discard, NOW).await.unwrap();
            assert!(matches!(redriven, Some(RedriveOutcome::Discarded(Some(row))) if row.event.0 == 6));
            assert_eq!(due(&ledger).await, [4, 5, 6]);
        });
    }

    #[test]
    fn expired_held_delivery_unblocks_next() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 2).await;
            let deliveries = vec![ordered(1, plan, Some(7)), ordered(2, plan, Some(7))];
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            settle(&ledger, made[0].seq, Step::Held { runs: vec![], reason: "a fault".into() }).await;
            assert!(due(&ledger).await.is_empty());
            let expired = ledger.deliveries.expire_held(NOW.plus_millis(1), NOW.plus_millis(2)).await.unwrap();
            assert_eq!((expired.deliveries, expired.unblocked.len(), expired.unblocked[0].event.0), (1, 1, 2));
            assert_eq!(due(&ledger).await, [2]);
        });
    }

    #[test]
    fn redriven_delivery_blocks_later_ones() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 2).await;
            let deliveries = vec![ordered(1, plan, Some(7)), ordered(2, plan, Some(7))];
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            let dead = Step::Dead { attempt: None, reason: "given up".into() };
            assert_eq!(settle(&ledger, made[0].seq, dead).await, Some(2));
            ledger.deliveries.redrive(&TENANT.parse().unwrap(), made[0].id, Redrive::Again, NOW).await.unwrap();
            assert_eq!(due(&ledger).await, [1]);
            let second =
                ledger.history.delivery(&TENANT.parse().unwrap(), new_delivery(2, 1, plan).id).await.unwrap().unwrap();
            assert!(ledger.deliveries.load(&tenant().id, second.seq).await.unwrap().unwrap().blocked);
            assert!(!ledger.deliveries.load(&tenant().id, made[0].seq).await.unwrap().unwrap().blocked);
        });
    }
}
