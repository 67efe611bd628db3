//! `rerun`: makes resting deliveries that did not pass their chain due again, with a newly pinned plan. The old chain
//! would only hold them once more.

use rusqlite::OptionalExtension;
use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliverySeq, DueDelivery, State};
use setgate_domain::id::{DeliveryId, Digest, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::commit::queue::Batch;
use crate::deliveries::Deliveries;
use crate::deliveries::outbox::due_by_seq;
use crate::deliveries::settle;
use crate::registry::plans::plan_row;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::settlements::Entry;
use crate::state::stored;

/// A held or dead delivery and its new plan.
#[derive(Debug, Clone, Copy)]
pub struct Rerun {
    /// The delivery.
    pub id: DeliveryId,
    /// Its new plan, already stored by `intern_plan`.
    pub plan: Digest,
}

impl Deliveries {
    /// Makes deliveries of the tenant due again with another plan, in one transaction: held and dead ones that never
    /// passed their chain and were never sent. Returns those it changed; others are skipped, which makes the call
    /// idempotent. A delivery that was sent before keeps its plan: if that has no steps, its bytes are those of the
    /// event.
    ///
    /// Filter runs recorded with the old plan are deleted.
    pub async fn requeue_with_plan(
        &self,
        tenant: &TenantId,
        reruns: Vec<Rerun>,
        at: Timestamp,
    ) -> Result<Vec<DueDelivery>, Error> {
        self.requeue_with_plan_for(tenant, reruns, at, None).await
    }

    /// Like [`Deliveries::requeue_with_plan`](crate::Deliveries::requeue_with_plan), by a person's decision about these deliveries: each one that becomes due adds a row to
    /// the audit log.
    pub async fn requeue_with_plan_for(
        &self,
        tenant: &TenantId,
        reruns: Vec<Rerun>,
        at: Timestamp,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, Error> {
        let tenant = tenant.clone();
        self.0
            .queue()
            .write(move |batch| {
                let mut due = Vec::with_capacity(reruns.len());
                for rerun in &reruns {
                    let again = apply(batch, &tenant, rerun, at)?;
                    if let (Some(audit), Some(_)) = (&audit, &again) {
                        settle::note_decision(batch, audit.clone(), &tenant, rerun.id, at)?;
                    }
                    due.extend(again);
                }
                Ok(due)
            })
            .await
    }
}

fn apply(batch: &mut Batch<'_>, tenant: &TenantId, rerun: &Rerun, at: Timestamp) -> Result<Option<DueDelivery>, Error> {
    let conn = batch.conn;
    let id = rerun.id;
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
    let plan = plan_row(batch, &rerun.plan, at)?;
    let stored_before = stored::of_delivery(conn, seq)?;
    conn.prepare_cached("DELETE FROM filtered WHERE delivery = ?1")?.execute(params![seq])?;
    conn.prepare_cached(
        "UPDATE delivery SET state = 0, plan = ?3, due_at = ?2, updated_at = ?2, reason = NULL, filter_tries = 0,
             attempts_before = attempts
         WHERE seq = ?1",
    )?
    .execute(params![seq, at, plan])?;
    batch.effects.stored(tenant, stored::of_delivery(conn, seq)? - stored_before);
    batch.effects.refer(before, -1);
    batch.effects.refer(plan, 1);
    batch.effects.count(tenant, id.subscription, state, -1);
    batch.effects.count(tenant, id.subscription, State::Due, 1);
    batch
        .effects
        .settled
        .note(tenant, Entry { delivery: seq, state: State::Due, attempt: None, at_ms: at.as_millis() });
    due_by_seq(conn, seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, block_on, due_one, open, run};
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::filter::Plan;

    #[test]
    fn a_held_delivery_runs_another_plan_and_only_once() {
        block_on(async {
            let (_folder, ledger) = open();
            let tenant: TenantId = TENANT.parse().unwrap();
            let due = due_one(&ledger).await;
            let other = Plan { broken: Some("another".into()), ..Plan::default() };
            let plan = ledger.plans.intern(&other).await.unwrap();
            let rerun = Rerun { id: due.id, plan };
            let at = NOW.plus_millis(20);
            assert!(
                ledger.deliveries.requeue_with_plan(&tenant, vec![rerun], at).await.unwrap().is_empty(),
                "it is not held"
            );

            let held = Step::Held { runs: vec![run()], reason: "a fault".into() };
            ledger.deliveries.settle(Settlement::new(due.seq, NOW, held)).await.unwrap();
            let stranger: TenantId = "stranger".parse().unwrap();
            assert!(
                ledger.deliveries.requeue_with_plan(&stranger, vec![rerun], at).await.unwrap().is_empty(),
                "it is not theirs"
            );
            let again = ledger.deliveries.requeue_with_plan(&tenant, vec![rerun, rerun], at).await.unwrap();
            assert_eq!(again.len(), 1);
            assert_eq!((again[0].plan, again[0].due_at, again[0].filtered), (plan, at, false));
            assert_eq!(ledger.usage.backlog(&tenant), 1);
            let unknown = Rerun { plan: Digest([9; 32]), ..rerun };
            let held = Step::Held { runs: vec![run()], reason: "again".into() };
            ledger.deliveries.settle(Settlement::new(due.seq, at, held)).await.unwrap();
            let refused = ledger.deliveries.requeue_with_plan(&tenant, vec![unknown], at).await;
            assert!(matches!(refused, Err(Error::UnknownPlan(_))), "{refused:?}");
        });
    }
}
