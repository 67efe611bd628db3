//! Replays: new runs for past events, in steps. The deliveries of a step and the new position are one transaction, so
//! an interrupted replay resumes at its position and creates nothing twice.

use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};
use setgate_domain::audit::{AuditAction, AuditEntry, AuditObject};
use setgate_domain::delivery::{DueDelivery, NewDelivery};
use setgate_domain::event::{EventRecord, EventSeq};
use setgate_domain::id::{ReplayId, TenantId};
use setgate_domain::replay::{Replay, ReplayPosition, ReplayRecord, ReplayState};
use setgate_domain::time::Timestamp;

use crate::commit::queue::Batch;
use crate::events::Replays;
use crate::events::fan_out::insert_next_run;
use crate::history::queries::event_record;
use crate::schema::sql_types::{FromColumn, Json, ReadColumn, ToColumn, params};
use crate::{Error, audit as audit_log};

/// Ended replays retained per tenant; older ones are deleted.
pub const REPLAYS_RETAINED_MAX: usize = 100;
/// Maximum number of events that [`Replays::events`](crate::Replays::events) returns.
pub const REPLAY_EVENTS_MAX: usize = 1_000;

/// A step of a replay.
#[derive(Debug, Clone)]
pub struct ReplayStep {
    /// The replay.
    pub id: ReplayId,
    /// Position before the step.
    pub from: ReplayPosition,
    /// Position after the step.
    pub to: ReplayPosition,
    /// Deliveries to insert for the events in between; `id.run` is ignored.
    pub deliveries: Vec<NewDelivery>,
    /// Number of events in between that get no delivery.
    pub passed_over: u64,
    /// Whether this is the last step.
    pub done: bool,
}

/// Result of a step.
#[derive(Debug, Clone)]
pub struct AdvanceOutcome {
    /// Number of deliveries inserted. Deleted events get none.
    pub made: u64,
    /// The inserted deliveries that are due, for the dispatcher.
    pub due: Vec<DueDelivery>,
}

impl Replays {
    /// Starts a replay of the events that are in the journal now. Returns `None`, without any change, if the tenant
    /// already has `running_max` running replays. [`Error::NoTenant`] if its tenant does not exist.
    pub async fn begin(
        &self,
        replay: Replay,
        running_max: usize,
        audit: AuditAction,
    ) -> Result<Option<ReplayRecord>, Error> {
        let entry = AuditEntry::new(audit, replay.created_at, Some(replay.tenant.clone()), object_of(replay.id));
        self.0
            .queue()
            .write(move |batch| {
                let started = begin(batch, replay, running_max)?;
                if started.is_some() {
                    audit_log::record(batch, &entry)?;
                }
                Ok(started)
            })
            .await
    }

    /// The tenant's replays, newest first: at most `limit` that are older than `before`.
    pub async fn list(
        &self,
        tenant: &TenantId,
        before: Option<ReplayId>,
        limit: usize,
    ) -> Result<Vec<ReplayRecord>, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| list(conn, &tenant, before, limit)).await
    }

    /// A replay of the tenant.
    pub async fn get(&self, tenant: &TenantId, id: ReplayId) -> Result<Option<ReplayRecord>, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| find(conn, &tenant, id)).await
    }

    /// Cancels a replay of the tenant. An ended one stays unchanged. `None` if the replay does not exist.
    pub async fn cancel(
        &self,
        tenant: &TenantId,
        id: ReplayId,
        reason: String,
        audit: AuditAction,
        at: Timestamp,
    ) -> Result<Option<ReplayRecord>, Error> {
        let tenant = tenant.clone();
        let entry = AuditEntry::new(audit, at, Some(tenant.clone()), object_of(id));
        self.0
            .queue()
            .write(move |batch| {
                let ended = batch
                    .conn
                    .prepare_cached(
                        "UPDATE replay SET state = ?3, ended_at = ?4, reason = ?5
                         WHERE id = ?1 AND tenant = ?2 AND state = 0",
                    )?
                    .execute(params![id, tenant, ReplayState::Cancelled, at, reason])?;
                if ended > 0 {
                    batch.effects.replays_changed();
                    audit_log::record(batch, &entry)?;
                }
                find(batch.conn, &tenant, id)
            })
            .await
    }

    /// All running replays of all tenants, oldest first.
    pub async fn running(&self) -> Result<Vec<ReplayRecord>, Error> {
        self.0
            .readers()
            .read(|conn| {
                let mut statement =
                    conn.prepare_cached(&format!("{REPLAY} INDEXED BY replay_running WHERE state = 0 ORDER BY id"))?;
                let mut rows = statement.query([])?;
                let mut running = Vec::new();
                while let Some(row) = rows.next()? {
                    running.push(read(row)?);
                }
                Ok(running)
            })
            .await
    }

    /// Signals when a replay is started or cancelled.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.shared().replays.subscribe()
    }

    /// Events of a replay after a position, in order: at most `limit` and [`REPLAY_EVENTS_MAX`].
    pub async fn events(
        &self,
        record: &ReplayRecord,
        after: ReplayPosition,
        limit: usize,
    ) -> Result<Vec<EventRecord>, Error> {
        let (tenant, until, last) = (record.replay.tenant.clone(), record.replay.until, record.last);
        let limit = i64::try_from(limit.min(REPLAY_EVENTS_MAX)).unwrap_or(i64::MAX);
        self.0
            .readers()
            .read(move |conn| {
                let mut statement = conn.prepare_cached(REPLAY_EVENTS)?;
                let events = statement
                    .query_map(params![tenant, after.at, after.event, until, last, limit], |row| {
                        event_record(row, &tenant)
                    })?;
                Ok(events.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Applies a step: its deliveries and the new position, in one transaction. Returns `None`, without any change, if
    /// the replay has ended or is not at the position before the step. Applying a step twice therefore has no effect.
    ///
    /// [`Error::UnknownPlan`] if a plan must be interned again.
    pub async fn advance(&self, step: ReplayStep) -> Result<Option<AdvanceOutcome>, Error> {
        let now = self.0.clock().now();
        self.0.queue().write(move |batch| advance(batch, &step, now)).await
    }
}

/// A replay as the object of an audit entry.
fn object_of(id: ReplayId) -> AuditObject {
    AuditObject { kind: "replay".to_owned(), id: id.to_string() }
}

pub(crate) const REPLAY_EVENTS: &str =
    "SELECT e.accepted_at, e.seq, e.id, e.source, e.types, e.subject, e.jti, e.content_type
     FROM event e INDEXED BY event_history
     WHERE e.tenant = ?1 AND (e.accepted_at, e.seq) > (?2, ?3) AND e.accepted_at < ?4 AND +e.seq <= ?5
     ORDER BY e.accepted_at, e.seq LIMIT ?6";

const REPLAY: &str = "SELECT doc, state, made, passed_over, at, seq, last, ended_at, reason FROM replay";

fn read(row: &Row<'_>) -> Result<ReplayRecord, Error> {
    Ok(ReplayRecord {
        replay: row.get::<_, Json<Replay>>(0)?.0,
        state: row.column(1)?,
        made: row.get::<_, i64>(2)?.cast_unsigned(),
        passed_over: row.get::<_, i64>(3)?.cast_unsigned(),
        position: ReplayPosition { at: row.column(4)?, event: row.column(5)? },
        last: row.column(6)?,
        ended_at: row.column(7)?,
        reason: row.get(8)?,
    })
}

fn find(conn: &Connection, tenant: &TenantId, id: ReplayId) -> Result<Option<ReplayRecord>, Error> {
    let mut statement = conn.prepare_cached(&format!("{REPLAY} WHERE id = ?1 AND tenant = ?2"))?;
    let mut rows = statement.query(params![id, tenant])?;
    rows.next()?.map(read).transpose()
}

fn list(
    conn: &Connection,
    tenant: &TenantId,
    before: Option<ReplayId>,
    limit: usize,
) -> Result<Vec<ReplayRecord>, Error> {
    // Ids are ordered by time.
    let sql = format!("{REPLAY} WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![tenant, before, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn begin(batch: &mut Batch<'_>, replay: Replay, running_max: usize) -> Result<Option<ReplayRecord>, Error> {
    let conn = batch.conn;
    if !batch.snapshot.tenants.contains_key(&replay.tenant) {
        return Err(Error::NoTenant(replay.tenant));
    }
    let before = list(conn, &replay.tenant, None, usize::MAX)?;
    if before.iter().filter(|one| one.state == ReplayState::Running).count() >= running_max {
        return Ok(None);
    }
    let ended = before.iter().filter(|one| one.state != ReplayState::Running);
    // The new replay will end too, and then counts.
    for old in ended.skip(REPLAYS_RETAINED_MAX - 1) {
        conn.prepare_cached("DELETE FROM replay WHERE id = ?1")?.execute(params![old.replay.id])?;
    }
    // Not the cursor: events after it may already have their deliveries, and no one else would create those of a new
    // subscription.
    let last = batch.fanout_cursor.last();
    // Before the first event of that instant.
    let position = ReplayPosition { at: replay.since, event: EventSeq::default() };
    conn.prepare_cached(
        "INSERT INTO replay (id, tenant, state, last, at, seq, made, passed_over, doc)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, 0, 0, ?6)",
    )?
    .execute(params![replay.id, replay.tenant, last, position.at, position.event, Json(&replay)])?;
    batch.effects.replays_changed();
    find(conn, &replay.tenant, replay.id)
}

fn advance(batch: &mut Batch<'_>, step: &ReplayStep, now: Timestamp) -> Result<Option<AdvanceOutcome>, Error> {
    let conn = batch.conn;
    let is_at_position = conn
        .prepare_cached("SELECT 1 FROM replay WHERE id = ?1 AND state = 0 AND at = ?2 AND seq = ?3")?
        .exists(params![step.id, step.from.at, step.from.event])?;
    if !is_at_position {
        return Ok(None);
    }
    let mut due = Vec::with_capacity(step.deliveries.len());
    for delivery in &step.deliveries {
        due.extend(insert_next_run(batch, delivery.clone(), now)?);
    }
    // No other part of this request changes the number of due deliveries.
    let made = batch.effects.due();
    let (state, ended_at) = if step.done { (ReplayState::Done, Some(now)) } else { (ReplayState::Running, None) };
    conn.prepare_cached(
        "UPDATE replay SET at = ?2, seq = ?3, made = made + ?4, passed_over = passed_over + ?5, state = ?6,
             ended_at = ?7
         WHERE id = ?1",
    )?
    .execute(params![
        step.id,
        step.to.at,
        step.to.event,
        made,
        step.passed_over.cast_signed(),
        state,
        ended_at
    ])?;
    Ok(Some(AdvanceOutcome { made: made.cast_unsigned(), due }))
}

/// The stored number of a state. The partial index in the DDL spells 0 out.
fn state_number(state: ReplayState) -> i64 {
    match state {
        ReplayState::Running => 0,
        ReplayState::Done => 1,
        ReplayState::Cancelled => 2,
    }
}

impl ToColumn for ReplayState {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(state_number(*self)))
    }
}

impl FromColumn for ReplayState {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        Self::ALL.into_iter().find(|state| state_number(*state) == number).ok_or(FromSqlError::OutOfRange(number))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Ledger;
    use crate::tests::{NOW, TENANT, block_on, new_delivery, open, reopen, subscription, with_events, with_tenant};
    use crate::{FanOut, Precondition};
    use setgate_domain::audit::AuditQuery;
    use setgate_domain::id::Digest;

    const RUNNING_MAX: usize = 2;

    /// A replay of everything for the first subscription.
    pub(crate) fn replay(number: u128) -> Replay {
        Replay {
            id: ReplayId::new(NOW, number),
            tenant: TENANT.parse().unwrap(),
            subscription: subscription(1),
            since: Timestamp::from_millis(0),
            until: NOW.plus_millis(1_000_000),
            events: Vec::new(),
            source: None,
            subject: None,
            per_second: 10,
            created_at: NOW,
        }
    }

    async fn begin(ledger: &Ledger, number: u128) -> ReplayRecord {
        ledger
            .replays
            .begin(replay(number), RUNNING_MAX, AuditAction::host("replay.start"))
            .await
            .unwrap()
            .expect("not too many run")
    }

    /// A step with a delivery for each of the next `count` events.
    async fn step(ledger: &Ledger, record: &ReplayRecord, count: usize, plan: Digest) -> ReplayStep {
        let events = ledger.replays.events(record, record.position, count).await.unwrap();
        let to = events.last().map(|event| ReplayPosition { at: event.accepted_at, event: event.seq });
        ReplayStep {
            id: record.replay.id,
            from: record.position,
            to: to.unwrap_or(record.position),
            deliveries: events.iter().map(|event| new_delivery(event.seq.0.cast_unsigned(), 1, plan)).collect(),
            passed_over: 0,
            done: events.len() < count,
        }
    }

    #[test]
    fn replay_resumes_without_duplicates() {
        block_on(async {
            let (folder, ledger) = open();
            let plan = with_events(&ledger, 5).await;
            let deliveries = (1..=4).map(|n| new_delivery(n, 1, plan)).collect();
            ledger.events.fan_out(FanOut { through: EventSeq(4), deliveries }).await.unwrap();
            let record = begin(&ledger, 1).await;
            let first = step(&ledger, &record, 2, plan).await;
            let made = ledger.replays.advance(first.clone()).await.unwrap().unwrap();
            assert_eq!(made.due.iter().map(|due| (due.event.0, due.id.run)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
            assert!(ledger.replays.advance(first.clone()).await.unwrap().is_none(), "it was taken");

            let ledger = reopen(&folder, ledger).await;
            assert!(ledger.replays.advance(first).await.unwrap().is_none(), "it is still taken");
            let running = ledger.replays.running().await.unwrap();
            assert_eq!((running.len(), running[0].made, running[0].position.event), (1, 2, EventSeq(2)));
            let second = step(&ledger, &running[0], 4, plan).await;
            // Includes the fifth event, although it is not fanned out: such events may already have their deliveries,
            // without one for a new subscription.
            assert_eq!(second.deliveries.len(), 3);
            assert_eq!(ledger.replays.advance(second).await.unwrap().unwrap().made, 3);
            let tenant: TenantId = TENANT.parse().unwrap();
            let ended = ledger.replays.get(&tenant, record.replay.id).await.unwrap().unwrap();
            assert_eq!((ended.state, ended.made, ended.ended_at), (ReplayState::Done, 5, Some(NOW)));
            assert!(ledger.replays.running().await.unwrap().is_empty());
            assert_eq!(ledger.usage.backlog(&tenant), 9);

            let again = begin(&ledger, 2).await;
            let made = ledger.replays.advance(step(&ledger, &again, 9, plan).await).await.unwrap().unwrap();
            assert!(made.due.iter().all(|due| due.id.run == 2), "each replay is a run of its own");
            let bytes: Vec<_> = made.due.iter().map(|due| due.bytes).collect();
            assert_eq!(bytes, [40, 40, 40, 40, 1 << 20], "as noted for other runs; the fifth event has none");
        });
    }

    #[test]
    fn unknown_plan_does_not_advance_replay() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries: vec![] }).await.unwrap();
            let record = begin(&ledger, 1).await;
            let unknown = step(&ledger, &record, 1, Digest([7; 32])).await;
            assert!(matches!(ledger.replays.advance(unknown).await, Err(Error::UnknownPlan(_))));
            let mut gone = step(&ledger, &record, 2, plan).await;
            gone.deliveries.push(new_delivery(9, 1, plan));
            gone.passed_over = 1;
            // An event that matched no subscription also starts at run 1, since 0 is reserved for the fan-out.
            let made = ledger.replays.advance(gone).await.unwrap().unwrap();
            assert_eq!(made.due.iter().map(|due| due.id.run).collect::<Vec<_>>(), [1]);
            let ended = ledger.replays.get(&TENANT.parse().unwrap(), record.replay.id).await.unwrap().unwrap();
            assert_eq!((ended.made, ended.passed_over), (1, 1));
        });
    }

    #[test]
    fn running_and_retained_replays_are_limited() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let tenant: TenantId = TENANT.parse().unwrap();
            let stranger: TenantId = "another".parse().unwrap();
            begin(&ledger, 1).await;
            begin(&ledger, 2).await;
            assert!(
                ledger.replays.begin(replay(3), RUNNING_MAX, AuditAction::HOST).await.unwrap().is_none(),
                "two run"
            );
            let cancel = async |whose: &TenantId, number| {
                let id = replay(number).id;
                let audit = AuditAction::host("replay.cancel");
                ledger.replays.cancel(whose, id, "enough".into(), audit, NOW.plus_millis(5)).await.unwrap()
            };
            assert!(cancel(&stranger, 1).await.is_none(), "it is not theirs");
            for _ in 0..2 {
                let cancelled = cancel(&tenant, 1).await.unwrap();
                let expected = (ReplayState::Cancelled, Some(NOW.plus_millis(5)), Some("enough".to_owned()));
                assert_eq!((cancelled.state, cancelled.ended_at, cancelled.reason), expected);
            }
            let (log, _) =
                ledger.history.audit(Some(&tenant), true, AuditQuery::default(), None, usize::MAX).await.unwrap();
            let of_replays = log.iter().filter(|record| record.entry.object.kind == "replay");
            let logged: Vec<_> = of_replays.map(|record| record.entry.action.as_str()).collect();
            assert_eq!(logged, ["replay.cancel", "replay.start", "replay.start"], "only changes are logged, once each");
            let after = ledger.replays.get(&tenant, replay(1).id).await.unwrap().unwrap();
            assert!(ledger.replays.advance(step(&ledger, &after, 9, Digest([7; 32])).await).await.unwrap().is_none());

            for number in 3..(REPLAYS_RETAINED_MAX as u128 + 20) {
                begin(&ledger, number).await;
                cancel(&tenant, number).await;
            }
            let listed = ledger.replays.list(&tenant, None, 999).await.unwrap();
            // The ended ones, and the one still running.
            assert_eq!(listed.len(), REPLAYS_RETAINED_MAX + 1);
            assert!(listed.is_sorted_by(|newer, older| newer.replay.id > older.replay.id));
            assert!(ledger.replays.list(&stranger, None, 999).await.unwrap().is_empty());
            ledger.registry.remove_tenant(&tenant, Precondition::Any).await.unwrap();
            assert!(
                ledger.replays.list(&tenant, None, 999).await.unwrap().is_empty(),
                "a removed tenant leaves nothing"
            );
            let refused = ledger.replays.begin(replay(1), RUNNING_MAX, AuditAction::HOST).await;
            assert!(matches!(refused, Err(Error::NoTenant(_))));
        });
    }
}
