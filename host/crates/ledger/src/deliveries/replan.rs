//! Replaces the pinned plan of a delivery that has not passed its chain: of a due one whose pinned filter version was
//! withdrawn, and of a held or dead one that is requeued, because the old chain would only hold it once more.

use rusqlite::OptionalExtension;
use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliverySeq, DueDelivery, State};
use setgate_domain::id::{DeliveryId, Digest, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::commit::queue::Batch;
use crate::deliveries::Deliveries;
use crate::deliveries::outbox::due_by_seq;
use crate::deliveries::{settle, signed_sets};
use crate::registry::plans::plan_row;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::settlements::StateChange;
use crate::state::stored;

/// A held or dead delivery and its new plan.
#[derive(Debug, Clone, Copy)]
pub struct PlanChange {
    /// The delivery.
    pub id: DeliveryId,
    /// Its new plan, already stored by `intern_plan`.
    pub plan: Digest,
}

impl Deliveries {
    /// Replaces the plan of a due delivery by one already stored by [`Plans::intern`](crate::Plans::intern). Returns
    /// false if the delivery is not due or its chain has run; it then keeps its plan. Idempotent.
    pub async fn replace_plan(&self, delivery: DeliverySeq, plan: Digest) -> Result<bool, Error> {
        let now = self.0.clock().now();
        self.0
            .queue()
            .write(move |batch| {
                let before = batch
                    .conn
                    .prepare_cached("SELECT plan FROM delivery WHERE seq = ?1 AND state = 0 AND filtered = 0")?
                    .query_row(params![delivery], |row| row.get::<_, i64>(0))
                    .optional()?;
                let Some(before) = before else { return Ok(false) };
                set_plan(batch, delivery, before, &plan, now)?;
                Ok(true)
            })
            .await
    }

    /// Makes deliveries of the tenant due again with another plan, in one transaction: held and dead ones that never
    /// passed their chain and were never sent. Returns those it changed; others are skipped, which makes the call
    /// idempotent. A delivery that was sent before keeps its plan: if that has no steps, its bytes are those of the
    /// event. With `audit`, each delivery that becomes due adds a row to the audit log.
    ///
    /// Filter runs recorded with the old plan are deleted.
    pub async fn requeue_with_plan(
        &self,
        tenant: &TenantId,
        changes: Vec<PlanChange>,
        at: Timestamp,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, Error> {
        let tenant = tenant.clone();
        self.0
            .queue()
            .write(move |batch| {
                let mut due = Vec::with_capacity(changes.len());
                for change in &changes {
                    let requeued = requeue(batch, &tenant, change, at)?;
                    if let (Some(audit), Some(_)) = (&audit, &requeued) {
                        settle::audit_decision(batch, audit.clone(), &tenant, change.id, at)?;
                    }
                    due.extend(requeued);
                }
                Ok(due)
            })
            .await
    }
}

fn requeue(
    batch: &mut Batch<'_>,
    tenant: &TenantId,
    change: &PlanChange,
    at: Timestamp,
) -> Result<Option<DueDelivery>, Error> {
    let conn = batch.conn;
    let id = change.id;
    let found = conn
        .prepare_cached(
            "SELECT seq, plan, state FROM delivery
             WHERE event_seq = (SELECT seq FROM event WHERE id = ?1) AND subscription = ?2 AND run = ?3
                 AND tenant = ?4 AND state IN (?5, ?6) AND filtered = 0 AND attempts = 0",
        )?
        .query_row(params![id.event, id.subscription, id.run, tenant, State::Held, State::Dead], |row| {
            Ok((row.column::<DeliverySeq>(0)?, row.get::<_, i64>(1)?, row.column::<State>(2)?))
        })
        .optional()?;
    let Some((seq, before, state)) = found else { return Ok(None) };
    set_plan(batch, seq, before, &change.plan, at)?;
    let stored_before = stored::of_delivery(conn, seq)?;
    conn.prepare_cached("DELETE FROM filter_output WHERE delivery = ?1")?.execute(params![seq])?;
    conn.prepare_cached(
        "UPDATE delivery SET state = 0, due_at = ?2, updated_at = ?2, reason = NULL, filter_tries = 0,
             attempts_before = attempts
         WHERE seq = ?1",
    )?
    .execute(params![seq, at])?;
    batch.effects.add_stored_bytes(tenant, stored::of_delivery(conn, seq)? - stored_before);
    batch.effects.count(tenant, id.subscription, state, -1);
    batch.effects.count(tenant, id.subscription, State::Due, 1);
    let change = StateChange { delivery: seq, subscription: id.subscription, state: State::Due, attempt: None, at };
    batch.effects.settled(tenant, change);
    due_by_seq(conn, seq)
}

/// Points a delivery's row to another plan and moves the reference. `before` is the row id of its current plan. A SET
/// that was signed after the chain of that plan is not sent any more.
///
/// [`Error::UnknownPlan`], without any change, if the new plan must be interned again.
fn set_plan(
    batch: &mut Batch<'_>,
    delivery: DeliverySeq,
    before: i64,
    plan: &Digest,
    at: Timestamp,
) -> Result<(), Error> {
    let plan = plan_row(batch, plan, at)?;
    batch
        .conn
        .prepare_cached("UPDATE delivery SET plan = ?2, updated_at = ?3 WHERE seq = ?1")?
        .execute(params![delivery, plan, at])?;
    batch.effects.add_plan_ref(before, -1);
    batch.effects.add_plan_ref(plan, 1);
    signed_sets::delete(batch, delivery)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, block_on, due_one, open, reopen, run, tenant};
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::filter::Plan;

    #[test]
    fn held_delivery_is_requeued_once_with_new_plan() {
        block_on(async {
            let (_folder, ledger) = open();
            let tenant: TenantId = TENANT.parse().unwrap();
            let due = due_one(&ledger).await;
            let other = Plan { broken: Some("another".into()), ..Plan::default() };
            let plan = ledger.plans.intern(&other).await.unwrap();
            let change = PlanChange { id: due.id, plan };
            let at = NOW.plus_millis(20);
            assert!(
                ledger.deliveries.requeue_with_plan(&tenant, vec![change], at, None).await.unwrap().is_empty(),
                "it is not held"
            );

            let held = Step::Held { runs: vec![run()], reason: "a fault".into() };
            ledger.deliveries.settle(Settlement::new(due.seq, NOW, held)).await.unwrap();
            let stranger: TenantId = "stranger".parse().unwrap();
            assert!(
                ledger.deliveries.requeue_with_plan(&stranger, vec![change], at, None).await.unwrap().is_empty(),
                "it is not theirs"
            );
            let again = ledger.deliveries.requeue_with_plan(&tenant, vec![change, change], at, None).await.unwrap();
            assert_eq!(again.len(), 1);
            assert_eq!((again[0].plan, again[0].due_at, again[0].filtered), (plan, at, false));
            assert_eq!(ledger.usage.backlog(&tenant), 1);
            let unknown = PlanChange { plan: Digest([9; 32]), ..change };
            let held = Step::Held { runs: vec![run()], reason: "again".into() };
            ledger.deliveries.settle(Settlement::new(due.seq, at, held)).await.unwrap();
            let refused = ledger.deliveries.requeue_with_plan(&tenant, vec![unknown], at, None).await;
            assert!(matches!(refused, Err(Error::UnknownPlan(_))), "{refused:?}");
        });
    }

    #[test]
    fn due_delivery_plan_is_replaced_until_filtered() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let other = Plan { broken: Some("another".into()), ..Plan::default() };
            let unknown = ledger.deliveries.replace_plan(due.seq, Digest([9; 32])).await;
            assert!(matches!(unknown, Err(Error::UnknownPlan(_))), "{unknown:?}");
            let plan = ledger.plans.intern(&other).await.unwrap();
            for _ in 0..2 {
                assert!(ledger.deliveries.replace_plan(due.seq, plan).await.unwrap());
            }
            let ledger = reopen(&folder, ledger).await;
            let rows = ledger.deliveries.due(&tenant().id, due.id.subscription, NOW, None, 9).await.unwrap();
            assert_eq!((rows.len(), rows[0].plan), (1, plan));

            let step = Step::Filtered { claims: None, runs: vec![run()] };
            ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            assert!(
                !ledger.deliveries.replace_plan(due.seq, due.plan).await.unwrap(),
                "what has run is not run another way"
            );
            assert!(!ledger.deliveries.replace_plan(DeliverySeq(99), plan).await.unwrap(), "there is no such row");
        });
    }
}
