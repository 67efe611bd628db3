//! Retention: deletes expired events with everything that belongs to them, removed tenants, and unreferenced plans and
//! blobs. It works in chunks, each its own request, so that no other request is delayed for long.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension};
use setgate_base::telemetry::LogThrottle;
use setgate_domain::delivery::{DeliverySeq, State};
use setgate_domain::event::EventSeq;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

use crate::audit::idempotency;
use crate::commit::queue::Batch;
use crate::deliveries::{attempts, signed_sets};
use crate::history::History;
use crate::registry::plans;
use crate::schema::sql_types::{ReadColumn, params};
use crate::schema::used_bytes;
use crate::state::stored;
use crate::upkeep::expiry::{expired, expired_skipping_damage, is_retained};
use crate::upkeep::uptime::Uptime;
use crate::upkeep::{Upkeep, purge};
use crate::{Error, UNUSED_RETENTION_MS};

/// Events and deliveries deleted per transaction. The attempts of a delivery, a few at most, are not counted.
pub(crate) const CHUNK_ROWS: usize = 500;
/// Events per transaction if the size of the file decides when to stop.
const CHUNK_EVENTS_BY_SIZE: usize = 100;
/// Pages returned to the file system per transaction.
const VACUUM_PAGES: u32 = 500;
/// Free pages left in the file, so that it does not shrink and grow continually.
const FREE_PAGES_MIN: i64 = 1_024;

/// Counter: events deleted before the end of their retention time because of `data.ledger_bytes_max`.
pub(crate) const EARLY_DELETIONS: &str = "setgate_ledger_retained_by_size_total";
/// Minimum time between two log lines about it.
const LOG_INTERVAL: std::time::Duration = std::time::Duration::from_secs(600);
static LOG_THROTTLE: LogThrottle = LogThrottle::new(LOG_INTERVAL);

/// Result of [`Upkeep::retain`](crate::Upkeep::retain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionReport {
    /// Events deleted.
    pub events: u64,
    /// Deliveries deleted.
    pub deliveries: u64,
    /// Number of `events` that were deleted before their retention time because the ledger was too large.
    pub deleted_early: u64,
    /// Plans deleted.
    pub plans: u64,
    /// Blobs deleted.
    pub blobs: u64,
}

#[derive(Default)]
pub(crate) struct Deleted {
    pub(crate) events: u64,
    pub(crate) deliveries: u64,
    /// More of the event is left to delete.
    has_more: bool,
}

impl Upkeep {
    /// Deletes events accepted more than `retention_ms` before `now`, with their deliveries and attempts, if all their
    /// deliveries have been delivered, dropped or dead for at least as long. An event with a due or held delivery is
    /// retained, and so is one that is not fanned out yet. If the file is then still larger than nine tenths of
    /// `ledger_bytes_max`, the oldest deletable events are deleted early, down to eight tenths, but none before
    /// `retention_min_ms`; tenants that store more than an equal share lose theirs first. Then the call finishes the
    /// removal of tenants, sweeps unreferenced plans and blobs, and returns free pages to the file system.
    ///
    /// Downtime of the host does not count, see `uptime.rs`.
    ///
    /// Call this every few minutes and whenever [`Upkeep::space_pressure`](crate::Upkeep::space_pressure) returns, from one task only.
    pub async fn retain(&self, now: Timestamp) -> Result<RetentionReport, Error> {
        let mut retained = RetentionReport::default();
        let uptime = self.record_uptime(now).await?;
        let before = uptime.cutoff(now, self.0.options().retention_ms.max(0));
        self.delete_expired(before, None, None, &mut retained).await?;
        if let Some(down_to) = self.0.shared().space.pressure() {
            let events_before = retained.events;
            let least = self.0.options().retention_min_ms.clamp(0, self.0.options().retention_ms.max(0));
            // A tenant that fills the ledger loses its own history first.
            if let Some(over_share) = self.0.shared().tenants_over_share() {
                self.delete_expired(
                    uptime.cutoff(now, least),
                    Some(down_to),
                    Some(Arc::new(over_share)),
                    &mut retained,
                )
                .await?;
            }
            self.delete_expired(uptime.cutoff(now, least), Some(down_to), None, &mut retained).await?;
            retained.deleted_early = retained.events - events_before;
            metrics::counter!(EARLY_DELETIONS).increment(retained.deleted_early);
            if retained.deleted_early > 0
                && let Some(suppressed) = LOG_THROTTLE.allow()
            {
                let (removed, used) = (retained.deleted_early, self.0.shared().space.used());
                tracing::warn!(
                    removed,
                    used,
                    suppressed,
                    "events were deleted before `data.retention_s`, because the ledger is near \
                    `data.ledger_bytes_max`. A duplicate of such an event is accepted as a new event"
                );
            }
        }
        let purging = self
            .0
            .readers()
            .read(|conn| {
                let mut statement = conn.prepare("SELECT tenant FROM purge")?;
                let tenants = statement.query_map([], |row| row.column::<TenantId>(0))?;
                Ok(tenants.collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        for tenant in purging {
            purge::purge_all(&self.0, &tenant).await?;
        }
        History(Arc::clone(&self.0)).retain_statistics(now).await?;
        let unused = now.plus_millis(-UNUSED_RETENTION_MS);
        (retained.plans, retained.blobs) = self
            .0
            .queue()
            .write(move |batch| {
                batch.conn.execute(
                    "DELETE FROM tally WHERE due = 0 AND delivered = 0 AND dropped = 0 AND held = 0 AND dead = 0",
                    [],
                )?;
                idempotency::delete_expired(batch.conn, now)?;
                batch.conn.execute("DELETE FROM tenant_usage WHERE bytes = 0", [])?;
                plans::delete_unused(batch, unused)
            })
            .await?;
        while self.0.queue().write(|batch| vacuum(batch.conn)).await? {}
        Ok(retained)
    }

    /// Deletes events at rest since before `before`, with their deliveries, oldest first. With `down_to`, stops when no
    /// more than that many bytes of the file are in use. With `of`, only deletes events of these tenants.
    async fn delete_expired(
        &self,
        before: Timestamp,
        down_to: Option<u64>,
        of: Option<Arc<HashSet<TenantId>>>,
        report: &mut RetentionReport,
    ) -> Result<(), Error> {
        let space = &self.0.shared().space;
        let enough = || down_to.is_some_and(|bytes| space.used() <= bytes);
        let mut after = EventSeq::default();
        loop {
            let (expired, last) = self.expired(after, before, of.clone()).await?;
            for chunk in expired.chunks(if down_to.is_some() { CHUNK_EVENTS_BY_SIZE } else { CHUNK_ROWS }) {
                let mut rest = chunk.to_vec();
                while !rest.is_empty() && !enough() {
                    let (deleted, left, used) = self
                        .0
                        .queue()
                        .write(move |batch| {
                            let (deleted, left) = delete_expired_chunk(batch, rest, before)?;
                            Ok((deleted, left, used_bytes(batch.conn)?))
                        })
                        .await?;
                    report.events += deleted.events;
                    report.deliveries += deleted.deliveries;
                    rest = left;
                    space.set_ledger_used(used);
                }
            }
            match last {
                Some(last) if !enough() => {
                    // Only a pass over all tenants has examined every event.
                    if of.is_none() {
                        self.0.shared().retention_watermark.fetch_max(last.0, Ordering::Relaxed);
                    }
                    after = last;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Records that the host is running, and returns its uptime history.
    async fn record_uptime(&self, now: Timestamp) -> Result<Uptime, Error> {
        let downtime_ms_min = self.0.options().downtime_ms_min;
        self.0.queue().write(move |batch| Uptime::record(batch.conn, now, downtime_ms_min)).await
    }

    /// The instant that lies `ms` of uptime before `now` (`uptime.rs`). For deadlines that give a person time to react.
    pub async fn uptime_cutoff(&self, now: Timestamp, ms: i64) -> Result<Timestamp, Error> {
        Ok(self.record_uptime(now).await?.cutoff(now, ms))
    }

    /// Deletable events after `after`, and the position to continue from. `None` if all later events are too young.
    async fn expired(
        &self,
        after: EventSeq,
        before: Timestamp,
        of: Option<Arc<HashSet<TenantId>>>,
    ) -> Result<(Vec<EventSeq>, Option<EventSeq>), Error> {
        let cursor = self.0.shared().fanout_cursor.borrow().position();
        self.0
            .readers()
            .read(move |conn| match expired(conn, after, cursor, before, of.as_deref()) {
                // The later pass over all tenants steps around the damage.
                Err(error) if error.is_damage() && of.is_some() => Ok((Vec::new(), None)),
                Err(error) if error.is_damage() => Ok(expired_skipping_damage(conn, after, cursor, before)),
                found => found,
            })
            .await
    }
}

/// Deletes events up to one chunk and returns the remaining ones.
fn delete_expired_chunk(
    batch: &mut Batch<'_>,
    events: Vec<EventSeq>,
    before: Timestamp,
) -> Result<(Deleted, Vec<EventSeq>), Error> {
    let mut sum = Deleted::default();
    let mut rows = 0;
    for (index, event) in events.iter().enumerate() {
        if rows >= CHUNK_ROWS {
            return Ok((sum, events[index..].to_vec()));
        }
        // A redrive or a replay may have been committed since the events were read.
        if is_retained(batch.conn, *event, before)? {
            continue;
        }
        let deleted = delete_event(batch, *event, CHUNK_ROWS - rows)?;
        rows += (deleted.events + deleted.deliveries) as usize;
        sum.events += deleted.events;
        sum.deliveries += deleted.deliveries;
        if deleted.has_more {
            return Ok((sum, events[index..].to_vec()));
        }
    }
    Ok((sum, Vec::new()))
}

/// Deletes up to `rows_max` deliveries of an event, and the event itself if none is left.
pub(crate) fn delete_event(batch: &mut Batch<'_>, event: EventSeq, rows_max: usize) -> Result<Deleted, Error> {
    let conn = batch.conn;
    let mut deliveries: Vec<(DeliverySeq, TenantId, SubscriptionId, State, i64)> = conn
        .prepare_cached("SELECT seq, tenant, subscription, state, plan FROM delivery WHERE event_seq = ?1 LIMIT ?2")?
        .query_map(params![event, i64::try_from(rows_max + 1).unwrap_or(i64::MAX)], |row| {
            Ok((row.column(0)?, row.column(1)?, row.column(2)?, row.column(3)?, row.get(4)?))
        })?
        .collect::<Result<_, _>>()?;
    let has_more = deliveries.len() > rows_max;
    deliveries.truncate(rows_max);
    for (seq, tenant, subscription, state, plan) in &deliveries {
        signed_sets::delete(batch, *seq)?;
        batch.effects.add_stored_bytes(tenant, -stored::of_delivery(conn, *seq)?);
        attempts::delete(conn, *seq)?;
        conn.prepare_cached("DELETE FROM filter_output WHERE delivery = ?1")?.execute(params![seq])?;
        conn.prepare_cached("DELETE FROM delivery WHERE seq = ?1")?.execute(params![seq])?;
        batch.effects.count(tenant, *subscription, *state, -1);
        batch.effects.add_plan_ref(*plan, -1);
    }
    let events = if has_more { 0 } else { delete_row(batch, event)? };
    Ok(Deleted { events: events as u64, deliveries: deliveries.len() as u64, has_more })
}

fn delete_row(batch: &mut Batch<'_>, event: EventSeq) -> Result<usize, Error> {
    let conn = batch.conn;
    let bytes = stored::of_event(conn, event)?;
    let tenant: Option<TenantId> = conn
        .prepare_cached("DELETE FROM event WHERE seq = ?1 RETURNING tenant")?
        .query_row(params![event], |row| row.column(0))
        .optional()?;
    let Some(tenant) = tenant else { return Ok(0) };
    batch.effects.add_stored_bytes(&tenant, -bytes);
    Ok(1)
}

/// Returns a chunk of free pages to the file system. False if few enough are left.
fn vacuum(conn: &Connection) -> Result<bool, Error> {
    let free = |conn: &Connection| conn.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
    if free(conn)? <= FREE_PAGES_MIN {
        return Ok(false);
    }
    conn.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    Ok(free(conn)? > FREE_PAGES_MIN)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::registry::Precondition;
    use crate::tests::{
        NOW, TENANT, attempt, block_on, event, new_delivery, noise, open, reopen, subscription, tenant, with_events,
    };
    use crate::{FanOut, Ledger};
    use setgate_domain::delivery::{Settlement, Step};

    const LATER: Timestamp = NOW.plus_millis(31 * 24 * 3600 * 1000);

    async fn journal(ledger: &Ledger) -> Vec<i64> {
        ledger.events.events_after(EventSeq(0), 1_000).await.unwrap().iter().map(|e| e.seq.0).collect()
    }

    #[test]
    fn only_ended_events_are_deleted() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 5).await;
            let deliveries = (1..=4).map(|n| new_delivery(n, 1, plan)).collect();
            ledger.events.fan_out(FanOut { through: EventSeq(4), deliveries }).await.unwrap();
            let due = ledger.deliveries.due(&tenant().id, subscription(1), NOW, None, 9).await.unwrap();
            let settle = async |index: usize, step: Step| {
                ledger.deliveries.settle(Settlement::new(due[index].seq, NOW, step)).await.unwrap();
            };
            settle(0, Step::Delivered { attempt: attempt(1, 200) }).await;
            settle(1, Step::Held { runs: vec![], reason: "trapped".into() }).await;
            settle(2, Step::Dead { attempt: Some(attempt(1, 500)), reason: "gave up".into() }).await;
            assert_eq!(ledger.upkeep.retain(NOW).await.unwrap(), RetentionReport::default());
            let retained = ledger.upkeep.retain(LATER).await.unwrap();
            assert_eq!((retained.events, retained.deliveries, retained.plans), (2, 2, 0));
            // Held, due, and not yet fanned out.
            assert_eq!(journal(&ledger).await, [2, 4, 5]);
            assert!(ledger.history.attempts(&tenant().id, due[0].seq).await.unwrap().is_empty());
            let counts = ledger.history.counts(&TENANT.parse().unwrap(), None).await.unwrap();
            assert_eq!((counts.due, counts.held, counts.delivered, counts.dead), (1, 1, 0, 0));
            assert_eq!(ledger.upkeep.retain(LATER).await.unwrap(), RetentionReport::default());
        });
    }

    #[test]
    fn large_event_is_deleted_in_chunks() {
        block_on(async {
            let (folder, ledger) = open();
            let plan = with_events(&ledger, 2).await;
            let count = CHUNK_ROWS as u64 + 100;
            let deliveries = (1..=count).map(|s| new_delivery(1, u128::from(s), plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            for due in made {
                let step = Step::Dropped { runs: vec![], reason: "not wanted".into() };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            }
            let retained = ledger.upkeep.retain(LATER).await.unwrap();
            // No delivery refers to the plan any more, and it was last stored over a day ago.
            assert_eq!((retained.events, retained.deliveries, retained.plans), (2, count, 1));
            assert!(journal(&ledger).await.is_empty());
            // Sequence numbers are not reused, and fan-out does not start over.
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.events.fanout_cursor().borrow().last(), EventSeq(2));
            ledger.events.append(event(3)).await.unwrap();
            assert_eq!(journal(&ledger).await, [3]);
        });
    }

    #[test]
    fn removed_tenant_leaves_no_rows() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 3).await;
            let deliveries = (1..=2).map(|n| new_delivery(n, 1, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            let id = tenant().id;
            assert_eq!(ledger.usage.backlog(&id), 2);
            assert!(ledger.registry.remove_tenant(&id, Precondition::Any).await.unwrap());
            assert_eq!((ledger.usage.backlog(&id), journal(&ledger).await.len()), (0, 0));
            assert!(matches!(ledger.events.append(event(9)).await, Err(Error::NoTenant(_))));
            // A settlement in flight finds no row, which is not an error.
            let step = Step::Delivered { attempt: attempt(1, 200) };
            ledger.deliveries.settle(Settlement::new(made[0].seq, NOW, step)).await.unwrap();
            ledger.registry.put_tenant(tenant(), Precondition::Absent).await.unwrap();
            assert_eq!(ledger.usage.backlog(&id), 0);
        });
    }

    #[test]
    fn interrupted_tenant_removal_is_finished() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 3).await;
            let id = tenant().id;
            let mark = id.clone();
            ledger
                .store
                .queue()
                .write(move |batch| {
                    batch.conn.execute("DELETE FROM document", [])?;
                    Ok(batch.conn.execute("INSERT INTO purge VALUES (?1)", params![mark])?)
                })
                .await
                .unwrap();
            assert!(matches!(ledger.registry.put_tenant(tenant(), Precondition::Any).await, Err(Error::Purging(_))));
            ledger.upkeep.retain(NOW).await.unwrap();
            assert!(journal(&ledger).await.is_empty());
            ledger.registry.put_tenant(tenant(), Precondition::Any).await.unwrap();
        });
    }

    #[test]
    fn free_pages_are_returned() {
        block_on(async {
            let (folder, ledger) = open();
            let old = ledger.blobs.put(&tenant().id, Bytes::from(vec![1; 24 << 20])).await.unwrap();
            ledger.store.clock().set(LATER);
            let new = ledger.blobs.put(&tenant().id, Bytes::from_static(b"new")).await.unwrap();
            assert_eq!(ledger.upkeep.retain(LATER).await.unwrap().blobs, 1);
            assert_eq!(ledger.blobs.get(&tenant().id, &old).await.unwrap(), None);
            assert!(ledger.blobs.get(&tenant().id, &new).await.unwrap().is_some());
            let ledger = reopen(&folder, ledger).await;
            assert!(ledger.usage.stats().file_bytes < 8 << 20, "{:?}", ledger.usage.stats());
        });
    }

    #[test]
    fn resting_delivery_retains_its_event() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 2).await;
            let deliveries = vec![new_delivery(1, 1, plan), new_delivery(1, 2, plan), new_delivery(2, 1, plan)];
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            let settle = async |index: usize, at: Timestamp, step: Step| {
                ledger.deliveries.settle(Settlement::new(made[index].seq, at, step)).await.unwrap();
            };
            settle(0, NOW, Step::Delivered { attempt: attempt(1, 200) }).await;
            settle(2, NOW, Step::Delivered { attempt: attempt(1, 200) }).await;
            // Given up when the event's own retention time is already over.
            settle(1, LATER, Step::Dead { attempt: Some(attempt(1, 500)), reason: "gave up".into() }).await;
            let minute = LATER.plus_millis(60_000);
            let retained = ledger.upkeep.retain(minute).await.unwrap();
            assert_eq!((retained.events, retained.deliveries), (1, 1));
            assert_eq!(journal(&ledger).await, [1]);
            assert_eq!(ledger.history.attempts(&tenant().id, made[1].seq).await.unwrap().len(), 1);
            let end = LATER.plus_millis(ledger.store.options().retention_ms);
            assert_eq!(ledger.upkeep.retain(end).await.unwrap().events, 0);
            // New settings apply from the next round on.
            let options = ledger.store.options().as_ref().clone();
            ledger.upkeep.apply_limits(&crate::Options { retention_ms: options.retention_ms + 1, ..options.clone() });
            assert_eq!(ledger.upkeep.retain(end.plus_millis(1)).await.unwrap().events, 0);
            ledger.upkeep.apply_limits(&options);
            let retained = ledger.upkeep.retain(end.plus_millis(1)).await.unwrap();
            assert_eq!((retained.events, retained.deliveries), (1, 2));
        });
    }

    /// A ledger limited to 8 MiB with `count` events of 64 KiB, all delivered except those selected by `keep`.
    async fn filled(count: u64, keep: impl Fn(u64) -> bool) -> (tempfile::TempDir, Ledger) {
        filled_behind(0, count, keep).await
    }

    /// Like [`filled`], after `quiet` such events of another tenant that no subscription matches.
    async fn filled_behind(quiet: u64, count: u64, keep: impl Fn(u64) -> bool) -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let options = crate::Options {
            ledger_bytes_max: 8 << 20,
            retention_min_ms: 60_000,
            downtime_ms_min: i64::MAX,
            disk_free_bytes_min: 0,
            ..crate::Options::new(folder.path())
        };
        let ledger = Ledger::open(options, setgate_base::clock::Clock::manual(NOW)).unwrap();
        let plan = with_events(&ledger, 0).await;
        let other: TenantId = "quiet".parse().unwrap();
        if quiet > 0 {
            ledger
                .registry
                .put_tenant(setgate_domain::tenant::Tenant { id: other.clone(), ..tenant() }, Precondition::Absent)
                .await
                .unwrap();
        }
        let count = quiet + count;
        for n in 1..=count {
            let mut large = event(n);
            large.original = noise(64 << 10, n).into();
            if n <= quiet {
                large.tenant = other.clone();
            }
            ledger.events.append(large).await.unwrap();
        }
        let deliveries = (quiet + 1..=count).map(|n| new_delivery(n, 1, plan)).collect();
        let made = ledger.events.fan_out(FanOut { through: EventSeq(count as i64), deliveries }).await.unwrap();
        for (n, due) in (quiet + 1..).zip(made).filter(|(n, _)| !keep(*n)) {
            let step = Step::Delivered { attempt: attempt(1, 200) };
            ledger.deliveries.settle(Settlement::new(due.seq, NOW.plus_millis(n.cast_signed()), step)).await.unwrap();
        }
        // The writer measures the size only at intervals.
        let used = ledger.store.queue().write(|batch| used_bytes(batch.conn)).await.unwrap();
        ledger.store.shared().space.set_ledger_used(used);
        (folder, ledger)
    }

    #[test]
    fn size_limit_deletes_oldest_ended_events() {
        block_on(async {
            let (_folder, ledger) = filled(120, |n| n <= 3).await;
            assert!(ledger.store.shared().space.used() > (8 << 20) - (8 << 20) / 10);
            // None of them has reached the minimum age.
            assert_eq!(ledger.upkeep.retain(NOW.plus_millis(60_000)).await.unwrap().events, 0);
            assert_eq!(ledger.upkeep.retain(NOW.plus_millis(3_600_000)).await.unwrap().deleted_early, 100);
            let left = journal(&ledger).await;
            assert_eq!(left[..4], [1, 2, 3, 104], "what is due stays, then the youngest");
            assert!(ledger.store.shared().space.used() <= (8 << 20) - (8 << 20) / 5);
            assert_eq!(ledger.upkeep.retain(NOW.plus_millis(3_600_000)).await.unwrap().events, 0, "it is small enough");
        });
    }

    #[test]
    fn size_limit_deletes_largest_tenant_first() {
        block_on(async {
            let (_folder, ledger) = filled_behind(5, 115, |_| false).await;
            assert!(ledger.upkeep.retain(NOW.plus_millis(3_600_000)).await.unwrap().deleted_early > 0);
            assert_eq!(journal(&ledger).await[..5], [1, 2, 3, 4, 5], "the oldest are the neighbour's");
        });
    }

    #[test]
    fn due_events_are_never_deleted() {
        block_on(async {
            let (_folder, ledger) = filled(130, |_| true).await;
            assert!(matches!(ledger.usage.shortage(), Some(crate::Shortage::Ledger { max, .. }) if max == 8 << 20));
            assert_eq!(ledger.upkeep.retain(LATER).await.unwrap().events, 0);
            assert_eq!(ledger.history.counts(&TENANT.parse().unwrap(), None).await.unwrap().due, 130);
        });
    }

    #[test]
    fn damaged_event_does_not_block_retention() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 4).await;
            ledger.events.fan_out(FanOut { through: EventSeq(4), deliveries: vec![] }).await.unwrap();
            // A timestamp that is not a number is reported like a damaged page.
            let spoil = "UPDATE event SET accepted_at = 'damaged' WHERE seq = 2";
            ledger.store.queue().write(move |batch| Ok(batch.conn.execute(spoil, [])?)).await.unwrap();
            assert_eq!(ledger.upkeep.retain(LATER).await.unwrap().events, 3);
        });
    }
}
