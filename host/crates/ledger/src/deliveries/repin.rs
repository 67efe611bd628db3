//! Replaces the plan of a delivery that has not run its chain, because the pinned filter version was withdrawn.

use rusqlite::OptionalExtension;
use setgate_domain::delivery::DeliverySeq;
use setgate_domain::id::Digest;

use crate::Error;
use crate::deliveries::Deliveries;
use crate::registry::plans::plan_row;
use crate::schema::sql_types::params;

impl Deliveries {
    /// Replaces the plan of a delivery by one already stored by [`Plans::intern`](crate::Plans::intern). Returns false if the delivery
    /// is not due or its chain has run; it then keeps its plan. Idempotent.
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
                let plan = plan_row(batch, &plan, now)?;
                batch
                    .conn
                    .prepare_cached("UPDATE delivery SET plan = ?2, updated_at = ?3 WHERE seq = ?1")?
                    .execute(params![delivery, plan, now])?;
                batch.effects.refer(before, -1);
                batch.effects.refer(plan, 1);
                Ok(true)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, block_on, due_one, open, reopen, run, tenant};
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::filter::Plan;

    #[test]
    fn a_chain_that_has_not_run_takes_another_plan() {
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
