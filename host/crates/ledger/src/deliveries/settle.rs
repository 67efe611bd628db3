//! State changes of deliveries: `settle` by the pipeline, `redrive` by a person. Apart from these, only
//! [`Deliveries::requeue_with_plan`](crate::Deliveries::requeue_with_plan) and [`Deliveries::expire_held`](crate::Deliveries::expire_held) write a state.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use setgate_domain::attempt::Attempt;
use setgate_domain::audit::{self as audit_log, AuditAction, AuditObject};
use setgate_domain::delivery::{DeliverySeq, DueDelivery, Redrive, Settlement, State, Step};
use setgate_domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;

use crate::Error;
use crate::audit;
use crate::commit::queue::Batch;
use crate::deliveries::Deliveries;
use crate::deliveries::attempts::AttemptRow;
use crate::deliveries::fifo::unblocked_by;
use crate::deliveries::outbox::due_by_seq;
use crate::registry::failure_streak;
use crate::schema::sql_types::{Json, ReadColumn, params};
use crate::state::settlements::StateChange;
use crate::state::stored;

/// Result of a redrive.
#[derive(Debug, Clone)]
pub enum RedriveOutcome {
    /// The delivery is due again.
    Due(DueDelivery),
    /// The delivery was discarded. Contains the delivery that this unblocked, if any.
    Discarded(Option<DueDelivery>),
    /// The delivery's state does not allow this redrive; nothing was changed.
    NotApplicable(State),
}

/// Side effects of a settlement.
#[derive(Debug, Clone, Default)]
pub struct SettleOutcome {
    /// A delivery that this one blocked and that is due now.
    pub unblocked: Option<DueDelivery>,
    /// Start of the subscription's failure streak. `None` after a success, or if no attempt was made.
    pub failing_since: Option<Timestamp>,
}

/// Result of [`Deliveries::expire_held`](crate::Deliveries::expire_held).
#[derive(Debug, Clone, Default)]
pub struct ExpireOutcome {
    /// Number of held deliveries that became dead letters.
    pub deliveries: u64,
    /// Deliveries that those blocked and that are due now.
    pub unblocked: Vec<DueDelivery>,
}

/// A person's decision about a delivery, and its audit entry.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The action to take.
    pub redrive: Redrive,
    /// The actor, for the audit log.
    pub audit: AuditAction,
}

/// A decision of the host itself.
impl From<Redrive> for Decision {
    fn from(redrive: Redrive) -> Self {
        Self { redrive, audit: AuditAction::HOST }
    }
}

impl From<(Redrive, AuditAction)> for Decision {
    fn from((redrive, audit): (Redrive, AuditAction)) -> Self {
        Self { redrive, audit }
    }
}

/// Rows that [`Deliveries::expire_held`](crate::Deliveries::expire_held) changes per transaction.
const EXPIRE_CHUNK_ROWS: i64 = 500;

impl Deliveries {
    /// Applies a settlement, which is durable when this returns. Idempotent.
    ///
    /// Only due rows change: a late settlement for a row that is at rest or gone is skipped. So is a [`Step::Retry`]
    /// whose attempt is already recorded, and a [`Step::Filtered`] or [`Step::FilterRetry`] if the chain has already
    /// run. If a delivery's chain has no steps or passed the claims unchanged, it need not be settled as filtered
    /// before it is sent: its bytes are those in the journal.
    pub async fn settle(&self, settlement: impl Into<Arc<Settlement>>) -> Result<SettleOutcome, Error> {
        let settlement = settlement.into();
        // Serialised and compressed here, because the writer thread is the bottleneck.
        let row = AttemptRow::of(&settlement)?;
        self.0.queue().write_named(move |batch| settle(batch, &settlement, row.as_ref())).await
    }

    /// Applies a person's decision about a resting delivery of the tenant. `None` if no such delivery exists. See
    /// [`Redrive`] for the states each action applies to: `Again` to dead and held, `Release` to held, `Discard` to
    /// both.
    ///
    /// A dead delivery keeps its bytes and its attempts. Attempt numbers continue, and the retry schedule starts over
    /// ([`DueDelivery::attempts_before`]).
    pub async fn redrive(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
        decision: impl Into<Decision>,
        at: Timestamp,
    ) -> Result<Option<RedriveOutcome>, Error> {
        let (tenant, decision) = (tenant.clone(), decision.into());
        self.0.queue().write(move |batch| redrive_audited(batch, &tenant, id, &decision, at)).await
    }

    /// Turns some deliveries held since before `before` into dead letters. Repeat it until it finds none. The dispatcher
    /// has to be notified of each result before the next call, which can fail.
    pub async fn expire_held(&self, before: Timestamp, at: Timestamp) -> Result<ExpireOutcome, Error> {
        self.0.queue().write(move |batch| expire(batch, before, at)).await
    }
}

/// `delivery.filtered`: the chain has not run. (1: it has run.)
const UNFILTERED: i64 = 0;
/// `delivery.filtered`: a person released the delivery without its chain.
pub(crate) const RELEASED: i64 = 2;

/// Columns of a delivery that a state change needs.
struct DeliveryRow {
    seq: DeliverySeq,
    tenant: TenantId,
    subscription: SubscriptionId,
    state: State,
    filtered: i64,
    due_at: Timestamp,
    updated_at: Timestamp,
    filter_tries: u32,
    reason: Option<String>,
    order_key: Option<i64>,
    event: EventId,
    run: u32,
    /// Start of the subscription's failure streak, if it has one.
    failing_since: Option<Timestamp>,
    /// Whether this settlement records that the chain ran and passed everything unchanged.
    passed: bool,
}

macro_rules! select_delivery {
    ($which:literal) => {
        concat!(
            "SELECT d.seq, d.tenant, d.subscription, d.state, d.filtered, d.due_at, d.updated_at, d.filter_tries, d.reason,
                 d.order_key, d.event_id, d.run, (SELECT since FROM failure_streak WHERE subscription = d.subscription)
             FROM delivery d ",
            $which
        )
    };
}

fn read_delivery_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        seq: row.column(0)?,
        tenant: row.column(1)?,
        subscription: row.column(2)?,
        state: row.column(3)?,
        filtered: row.get(4)?,
        due_at: row.column(5)?,
        updated_at: row.column(6)?,
        filter_tries: row.get(7)?,
        reason: row.get(8)?,
        order_key: row.get(9)?,
        event: row.column(10)?,
        run: row.get(11)?,
        failing_since: row.column(12)?,
        passed: false,
    })
}

fn settle(batch: &mut Batch<'_>, settlement: &Settlement, row: Option<&AttemptRow>) -> Result<SettleOutcome, Error> {
    let at = settlement.at;
    let delivery = batch
        .statements
        .get(select_delivery!("WHERE d.seq = ?1"))?
        .query_row(params![settlement.delivery], read_delivery_row)
        .optional()?;
    let mut settled = SettleOutcome::default();
    let Some(delivery) = delivery.filter(|delivery| delivery.state == State::Due) else { return Ok(settled) };
    batch.effects.touched(delivery.seq);
    // The chain passed and is settled together with its attempt.
    let passed = delivery.filtered == UNFILTERED && !settlement.passed.is_empty();
    if passed && !row.is_some_and(|row| row.has_runs) {
        store_filter_output(batch, &delivery, None, &settlement.passed)?;
    }
    let delivery = DeliveryRow { passed, ..delivery };
    match &settlement.step {
        Step::Filtered { claims, runs } => {
            store_chain_result(batch, &delivery, claims.as_deref(), runs, at)?;
        }
        Step::FilterRetry { runs, due_at } => {
            // The same instant and the same due time mean the same settlement, applied again.
            let again = delivery.filter_tries > 0 && delivery.updated_at == at && delivery.due_at == *due_at;
            if delivery.filtered == UNFILTERED && !again {
                store_filter_output(batch, &delivery, None, runs)?;
                let again = batch.statements.get(
                    "UPDATE delivery SET filter_tries = filter_tries + 1, due_at = ?2, updated_at = ?3 WHERE seq = ?1",
                )?;
                again.execute(params![delivery.seq, due_at, at])?;
                log_state(batch, &delivery, State::Due, None, at);
            }
        }
        Step::Dropped { runs, reason } => {
            store_filter_runs(batch, &delivery, runs)?;
            settled.unblocked = set_resting_state(batch, &delivery, State::Dropped, Some(reason), None, at)?;
        }
        Step::Held { runs, reason } => {
            store_filter_runs(batch, &delivery, runs)?;
            set_resting_state(batch, &delivery, State::Held, Some(reason), None, at)?;
        }
        Step::Delivered { attempt } => {
            insert_attempt(batch, &delivery, (attempt, row), at)?;
            if delivery.failing_since.is_some() {
                failure_streak::end(batch.conn, delivery.subscription)?;
            }
            settled.unblocked = set_resting_state(batch, &delivery, State::Delivered, None, Some(attempt.number), at)?;
            count_latency(batch, &delivery, at);
        }
        Step::Retry { attempt, due_at } => {
            if insert_attempt(batch, &delivery, (attempt, row), at)? {
                let retry = batch.statements.get(
                    "UPDATE delivery SET attempts = max(attempts, ?4), due_at = ?2, updated_at = ?3, filtered = max(filtered, ?5)
                     WHERE seq = ?1",
                )?;
                retry.execute(params![delivery.seq, due_at, at, attempt.number, delivery.passed])?;
                log_state(batch, &delivery, State::Due, Some(attempt.number), at);
            }
            settled.failing_since = Some(continue_failure_streak(batch, &delivery, at)?);
        }
        Step::Dead { attempt, reason } => {
            if let Some(attempt) = attempt {
                insert_attempt(batch, &delivery, (attempt, row), at)?;
                settled.failing_since = Some(continue_failure_streak(batch, &delivery, at)?);
            }
            let number = attempt.as_ref().map(|attempt| attempt.number);
            settled.unblocked = set_resting_state(batch, &delivery, State::Dead, Some(reason), number, at)?;
        }
    }
    Ok(settled)
}

/// Records the result of the chain, unless it ran before.
fn store_chain_result(
    batch: &mut Batch<'_>,
    delivery: &DeliveryRow,
    claims: Option<&str>,
    runs: &[FilterRun],
    at: Timestamp,
) -> Result<(), Error> {
    if delivery.filtered == UNFILTERED {
        store_filter_output(batch, delivery, claims, runs)?;
        batch
            .statements
            .get("UPDATE delivery SET filtered = 1, updated_at = ?2 WHERE seq = ?1")?
            .execute(params![delivery.seq, at])?;
    }
    Ok(())
}

/// Stores the output of the chain. If every filter passed, no row is needed.
fn store_filter_output(
    batch: &mut Batch<'_>,
    delivery: &DeliveryRow,
    claims: Option<&str>,
    runs: &[FilterRun],
) -> Result<(), Error> {
    if claims.is_some() || !runs.is_empty() {
        let before = stored::of_filtered(batch.conn, delivery.seq)?;
        batch
            .statements
            .get("INSERT OR REPLACE INTO filter_output (delivery, claims, runs) VALUES (?1, ?2, ?3)")?
            .execute(params![delivery.seq, claims, Json(runs)])?;
        let after = stored::of_filtered(batch.conn, delivery.seq)?;
        batch.effects.add_stored_bytes(&delivery.tenant, after - before);
    }
    Ok(())
}

/// Stores the filter runs of an outcome without claims. If the chain has already run, its claims and runs stay.
fn store_filter_runs(batch: &mut Batch<'_>, delivery: &DeliveryRow, runs: &[FilterRun]) -> Result<(), Error> {
    if delivery.filtered == UNFILTERED { store_filter_output(batch, delivery, None, runs) } else { Ok(()) }
}

/// Inserts the attempt and counts it. The delivery's own attempt number is updated by the caller. False if it was
/// recorded before.
fn insert_attempt(
    batch: &mut Batch<'_>,
    delivery: &DeliveryRow,
    (attempt, row): (&Attempt, Option<&AttemptRow>),
    at: Timestamp,
) -> Result<bool, Error> {
    let Some(row) = row else { return Ok(false) };
    let new = row.insert(&mut batch.statements, delivery.seq, attempt)?;
    if new {
        let counts = batch.effects.statistics.of(&delivery.tenant, delivery.subscription, at);
        counts.record_attempt(&attempt.outcome, attempt.latency_us);
        batch.effects.add_stored_bytes(&delivery.tenant, row.bytes());
    }
    Ok(new)
}

/// Starts a failure streak, unless one is running, and returns its start.
fn continue_failure_streak(batch: &Batch<'_>, delivery: &DeliveryRow, at: Timestamp) -> Result<Timestamp, Error> {
    match delivery.failing_since {
        Some(since) => Ok(since),
        None => failure_streak::start(batch.conn, &delivery.tenant, delivery.subscription, at).map(|()| at),
    }
}

/// Records the time since the acceptance of the event, which is the creation time of its id. Replays are excluded,
/// because their events are old by design.
fn count_latency(batch: &mut Batch<'_>, delivery: &DeliveryRow, at: Timestamp) {
    if delivery.run == 0 {
        // Zero if the clock was set back.
        let ms = at.since(delivery.event.created_at()).max(0).unsigned_abs();
        batch.effects.statistics.of(&delivery.tenant, delivery.subscription, at).accepted_to_delivered_ms.record(ms);
    }
}

/// Moves a row out of due, or from one resting state to another. Returns the delivery that this one blocked, if nothing
/// else blocks it.
fn set_resting_state(
    batch: &mut Batch<'_>,
    delivery: &DeliveryRow,
    state: State,
    reason: Option<&String>,
    attempt: Option<u32>,
    at: Timestamp,
) -> Result<Option<DueDelivery>, Error> {
    batch
        .statements
        .get(
            "UPDATE delivery SET state = ?2, reason = ?3, updated_at = ?4, attempts = max(attempts, ?5),
                 filtered = max(filtered, ?6)
             WHERE seq = ?1",
        )?
        .execute(params![delivery.seq, state, reason, at, attempt.unwrap_or(0), delivery.passed])?;
    let length = |reason: Option<&String>| reason.map_or(0, |text| stored::bytes(text.len()));
    batch.effects.add_stored_bytes(&delivery.tenant, length(reason) - length(delivery.reason.as_ref()));
    batch.effects.count(&delivery.tenant, delivery.subscription, delivery.state, -1);
    batch.effects.count(&delivery.tenant, delivery.subscription, state, 1);
    batch.effects.statistics.of(&delivery.tenant, delivery.subscription, at).record_settled(state);
    log_state(batch, delivery, state, attempt, at);
    match delivery.order_key {
        Some(key) if state != State::Held => unblocked_by(batch.conn, delivery.subscription, key, delivery.seq),
        _ => Ok(None),
    }
}

/// Adds a delivery's new state, and the number of the attempt that led to it, to the settlement log.
fn log_state(batch: &mut Batch<'_>, delivery: &DeliveryRow, state: State, attempt: Option<u32>, at: Timestamp) {
    let change = StateChange { delivery: delivery.seq, subscription: delivery.subscription, state, attempt, at };
    batch.effects.settled(&delivery.tenant, change);
}

/// [`Deliveries::redrive`](crate::Deliveries::redrive) with its audit row.
pub(crate) fn redrive_audited(
    batch: &mut Batch<'_>,
    tenant: &TenantId,
    id: DeliveryId,
    decision: &Decision,
    at: Timestamp,
) -> Result<Option<RedriveOutcome>, Error> {
    let redriven = redrive(batch, tenant, id, decision.redrive, at)?;
    if let Some(RedriveOutcome::Due(_) | RedriveOutcome::Discarded(_)) = redriven {
        audit_decision(batch, decision.audit.clone(), tenant, id, at)?;
    }
    Ok(redriven)
}

fn redrive(
    batch: &mut Batch<'_>,
    tenant: &TenantId,
    id: DeliveryId,
    action: Redrive,
    at: Timestamp,
) -> Result<Option<RedriveOutcome>, Error> {
    let conn = batch.conn;
    let delivery = conn
        .prepare_cached(select_delivery!(
            "WHERE d.event_seq = (SELECT seq FROM event WHERE id = ?1) AND d.subscription = ?2 AND d.run = ?3
                 AND d.tenant = ?4"
        ))?
        .query_row(params![id.event, id.subscription, id.run, tenant], read_delivery_row)
        .optional()?;
    let Some(delivery) = delivery else { return Ok(None) };
    let before = delivery.reason.as_deref().unwrap_or("no reason stored");
    match (action, delivery.state) {
        (Redrive::Again, State::Dead | State::Held) => requeue(batch, &delivery, delivery.filtered, at)?,
        (Redrive::Release, State::Held) => {
            // The filter runs stay in the record; the claims they produced, if any, are dropped.
            let before = stored::of_filtered(conn, delivery.seq)?;
            conn.prepare_cached("UPDATE filter_output SET claims = NULL WHERE delivery = ?1")?
                .execute(params![delivery.seq])?;
            batch.effects.add_stored_bytes(tenant, stored::of_filtered(conn, delivery.seq)? - before);
            requeue(batch, &delivery, RELEASED, at)?;
        }
        (Redrive::Discard, State::Dead | State::Held) => {
            let reason = format!("discarded; was {}: {before}", delivery.state.as_str());
            let unblocked = set_resting_state(batch, &delivery, State::Dropped, Some(&reason), None, at)?;
            return Ok(Some(RedriveOutcome::Discarded(unblocked)));
        }
        (_, state) => return Ok(Some(RedriveOutcome::NotApplicable(state))),
    }
    Ok(due_by_seq(conn, delivery.seq)?.map(RedriveOutcome::Due))
}

/// Records a decision about a delivery in the audit log.
pub(crate) fn audit_decision(
    batch: &mut Batch<'_>,
    audit: AuditAction,
    tenant: &TenantId,
    id: DeliveryId,
    at: Timestamp,
) -> Result<(), Error> {
    let object = AuditObject { kind: "delivery".to_owned(), id: id.to_string() };
    audit::record(batch, &audit_log::AuditEntry::new(audit, at, Some(tenant.clone()), object))
}

fn requeue(batch: &mut Batch<'_>, delivery: &DeliveryRow, filtered: i64, at: Timestamp) -> Result<(), Error> {
    batch
        .conn
        .prepare_cached(
            "UPDATE delivery SET state = 0, due_at = ?2, updated_at = ?2, filtered = ?3, reason = NULL, filter_tries = 0,
                 attempts_before = attempts
             WHERE seq = ?1",
        )?
        .execute(params![delivery.seq, at, filtered])?;
    batch
        .effects
        .add_stored_bytes(&delivery.tenant, -delivery.reason.as_ref().map_or(0, |text| stored::bytes(text.len())));
    batch.effects.count(&delivery.tenant, delivery.subscription, delivery.state, -1);
    batch.effects.count(&delivery.tenant, delivery.subscription, State::Due, 1);
    log_state(batch, delivery, State::Due, None, at);
    Ok(())
}

fn expire(batch: &mut Batch<'_>, before: Timestamp, at: Timestamp) -> Result<ExpireOutcome, Error> {
    let held: Vec<DeliveryRow> = batch
        .conn
        .prepare_cached(select_delivery!(
            "INDEXED BY delivery_rest
             WHERE d.state IN (3, 4) AND d.state = 3 AND d.updated_at < ?1 LIMIT ?2"
        ))?
        .query_map(params![before, EXPIRE_CHUNK_ROWS], read_delivery_row)?
        .collect::<Result<_, _>>()?;
    let mut expired = ExpireOutcome { deliveries: held.len() as u64, unblocked: Vec::new() };
    for delivery in &held {
        let reason = format!("held for too long: {}", delivery.reason.as_deref().unwrap_or("no reason stored"));
        expired.unblocked.extend(set_resting_state(batch, delivery, State::Dead, Some(&reason), None, at)?);
    }
    Ok(expired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::tests::{NOW, TENANT, attempt, block_on, due_one, open, reopen, run};

    fn settlement(delivery: DeliverySeq, step: Step) -> Settlement {
        Settlement::new(delivery, NOW.plus_millis(7), step)
    }

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    #[test]
    fn settle_is_idempotent() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let twice = async |ledger: &Ledger, step: Step| {
                for _ in 0..2 {
                    ledger.deliveries.settle(settlement(due.seq, step.clone())).await.unwrap();
                }
            };
            twice(&ledger, Step::FilterRetry { runs: vec![run()], due_at: NOW.plus_millis(100) }).await;
            twice(&ledger, Step::Filtered { claims: Some("{}".into()), runs: vec![run()] }).await;
            twice(&ledger, Step::Retry { attempt: attempt(1, 500), due_at: NOW.plus_millis(900) }).await;
            // A late copy of an earlier step changes nothing either.
            twice(&ledger, Step::Filtered { claims: Some("{\"late\":1}".into()), runs: vec![] }).await;
            let again =
                ledger.deliveries.due(&tenant(), due.id.subscription, NOW.plus_millis(1_000), None, 9).await.unwrap();
            assert_eq!((again[0].attempts, again[0].filter_tries, again[0].filtered), (1, 1, true));
            assert_eq!(again[0].due_at, NOW.plus_millis(900));
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(
                ledger.deliveries.load(&tenant(), due.seq).await.unwrap().unwrap().claims.as_deref(),
                Some("{}")
            );
            twice(&ledger, Step::Delivered { attempt: attempt(2, 200) }).await;
            // Late settlements do not move a resting row.
            twice(&ledger, Step::Dead { attempt: Some(attempt(3, 500)), reason: "late".into() }).await;
            let record = ledger.history.delivery(&tenant(), due.id).await.unwrap().unwrap();
            assert_eq!((record.state, record.attempt_count, record.due_at), (State::Delivered, 2, None));
            assert_eq!(record.runs, [run()]);
            let attempts = ledger.history.attempts(&tenant(), due.seq).await.unwrap();
            assert_eq!(attempts, [attempt(1, 500), attempt(2, 200)]);
            assert_eq!(ledger.usage.backlog(&tenant()), 0);
        });
    }

    #[test]
    fn redriven_dead_letter_keeps_content() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            let step = Step::Filtered { claims: Some("{\"a\":1}".into()), runs: vec![run()] };
            ledger.deliveries.settle(settlement(due.seq, step)).await.unwrap();
            let dead = Step::Dead { attempt: Some(attempt(1, 410)), reason: "gone".into() };
            ledger.deliveries.settle(settlement(due.seq, dead)).await.unwrap();
            assert_eq!(ledger.usage.backlog(&tenant()), 0);
            let at = NOW.plus_millis(50);
            let released = ledger.deliveries.redrive(&tenant(), due.id, Redrive::Release, at).await.unwrap();
            assert!(matches!(released, Some(RedriveOutcome::NotApplicable(State::Dead))));
            let Some(RedriveOutcome::Due(again)) =
                ledger.deliveries.redrive(&tenant(), due.id, Redrive::Again, at).await.unwrap()
            else {
                panic!("a dead delivery is redriven")
            };
            assert_eq!((again.id, again.attempts, again.attempts_before, again.filtered), (due.id, 1, 1, true));
            assert_eq!(
                ledger.deliveries.load(&tenant(), due.seq).await.unwrap().unwrap().claims.as_deref(),
                Some("{\"a\":1}")
            );
            let twice = ledger.deliveries.redrive(&tenant(), due.id, Redrive::Again, at).await.unwrap();
            assert!(matches!(twice, Some(RedriveOutcome::NotApplicable(State::Due))));
            ledger.deliveries.settle(settlement(due.seq, Step::Delivered { attempt: attempt(2, 200) })).await.unwrap();
            assert_eq!(ledger.history.attempts(&tenant(), due.seq).await.unwrap().len(), 2);
            let other = "another".parse().unwrap();
            assert!(ledger.deliveries.redrive(&other, due.id, Redrive::Again, at).await.unwrap().is_none());
        });
    }

    #[test]
    fn held_until_redriven_or_expired() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            let hold = || settlement(due.seq, Step::Held { runs: vec![run()], reason: "trapped".into() });
            ledger.deliveries.settle(hold()).await.unwrap();
            assert_eq!(ledger.usage.backlog(&tenant()), 1);
            assert!(ledger.deliveries.due_summary().await.unwrap().is_empty());

            // Run the chain again; it faults again.
            let again = ledger.deliveries.redrive(&tenant(), due.id, Redrive::Again, NOW).await.unwrap();
            assert!(matches!(again, Some(RedriveOutcome::Due(d)) if !d.filtered));
            ledger.deliveries.settle(hold()).await.unwrap();

            // Continue without the chain.
            let released = ledger.deliveries.redrive(&tenant(), due.id, Redrive::Release, NOW).await.unwrap();
            assert!(matches!(released, Some(RedriveOutcome::Due(d)) if d.filtered));
            let content = ledger.deliveries.load(&tenant(), due.seq).await.unwrap().unwrap();
            assert_eq!((content.filtered, content.claims), (true, None));
            let record = ledger.history.delivery(&tenant(), due.id).await.unwrap().unwrap();
            assert!(record.released && record.reason.is_none());
            assert_eq!(record.runs, [run()]);
            ledger
                .deliveries
                .settle(settlement(due.seq, Step::Held { runs: vec![], reason: "again".into() }))
                .await
                .unwrap();

            // Expire it, then discard it.
            let (before, at) = (NOW.plus_millis(8), NOW.plus_millis(9));
            assert_eq!(ledger.deliveries.expire_held(NOW, at).await.unwrap().deliveries, 0);
            assert_eq!(ledger.deliveries.expire_held(before, at).await.unwrap().deliveries, 1);
            assert_eq!(ledger.usage.backlog(&tenant()), 0);
            let ended = ledger.deliveries.redrive(&tenant(), due.id, Redrive::Discard, at).await.unwrap();
            assert!(matches!(ended, Some(RedriveOutcome::Discarded(None))));
            let record = ledger.history.delivery(&tenant(), due.id).await.unwrap().unwrap();
            assert_eq!(record.state, State::Dropped);
            assert_eq!(record.reason.as_deref(), Some("discarded; was dead: held for too long: again"));
        });
    }
}
