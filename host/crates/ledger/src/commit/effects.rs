//! Changes of a batch other than its own rows: derived counts and in-memory state. They are collected while the
//! requests run, so that counts are written once per batch and memory changes only after the commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use rusqlite::Connection;
use setgate_domain::delivery::{DeliverySeq, DueDelivery, State};
use setgate_domain::event::{Event, EventSeq};
use setgate_domain::id::{SubscriptionId, TenantId};
use tokio::sync::watch;

use crate::schema::sql_types::{ReadColumn, params, state_number};
use crate::state::counters::{BatchCounters, StatisticsCache};
use crate::state::disk::Disk;
use crate::state::fanout_cursor::FanoutCursor;
use crate::state::new_deliveries::NewDeliveries;
use crate::state::recent_writes::{ChangedRows, RecentWrites};
use crate::state::settlements::{SettlementLog, StateChange};
use crate::state::snapshot::{Change, Snapshot};
use crate::state::space::{Shortage, Space};
use crate::state::stored::Stored;
use crate::{Error, Options};

/// Deliveries by state, in the order of [`State::ALL`].
type Deltas = [i64; State::ALL.len()];

/// Effects of one request, or of all successful requests of a batch. The maps of a request have only a few keys, which
/// makes comparing cheaper than hashing.
#[derive(Default)]
pub(crate) struct Effects {
    tally: BTreeMap<(TenantId, SubscriptionId), Deltas>,
    plan_refs: BTreeMap<i64, i64>,
    /// Change of the bytes stored per tenant.
    stored: BTreeMap<TenantId, i64>,
    appended: Vec<Arc<Event>>,
    /// New deliveries that have not changed since.
    inserted: Vec<DueDelivery>,
    /// Deliveries changed after their insertion.
    touched: Vec<DeliverySeq>,
    /// The request may have changed rows of deliveries that it did not list.
    rows_changed: bool,
    /// New deliveries of which the ledger has to notify the dispatcher.
    unannounced: Vec<DueDelivery>,
    changes: Vec<Change>,
    /// A replay was started or cancelled.
    replays_changed: bool,
    /// Entries for the settlement log.
    settled: Vec<(TenantId, StateChange)>,
    /// Counts for the statistics.
    pub(crate) statistics: BatchCounters,
}

impl Effects {
    /// A delivery enters (`by` = 1) or leaves (`by` = -1) a state.
    pub(crate) fn count(&mut self, tenant: &TenantId, subscription: SubscriptionId, state: State, by: i64) {
        let deltas = self.tally.entry((tenant.clone(), subscription)).or_default();
        deltas[state_number(state) as usize] += by;
    }

    /// Net change in the number of due deliveries.
    pub(crate) fn due(&self) -> i64 {
        self.tally.values().map(|deltas| deltas[state_number(State::Due) as usize]).sum()
    }

    /// A delivery starts (1) or stops (-1) referring to a plan.
    pub(crate) fn add_plan_ref(&mut self, plan: i64, by: i64) {
        *self.plan_refs.entry(plan).or_default() += by;
    }

    /// Adds to the tenant's stored bytes (`by` may be negative).
    pub(crate) fn add_stored_bytes(&mut self, tenant: &TenantId, by: i64) {
        match self.stored.get_mut(tenant) {
            Some(bytes) => *bytes += by,
            None => drop(self.stored.insert(tenant.clone(), by)),
        }
    }

    pub(crate) fn appended(&mut self, event: Arc<Event>) {
        self.appended.push(event);
    }

    /// A delivery was inserted and is not blocked.
    pub(crate) fn inserted(&mut self, delivery: &DueDelivery) {
        self.inserted.push(delivery.clone());
    }

    pub(crate) fn touched(&mut self, delivery: DeliverySeq) {
        self.touched.push(delivery);
    }

    /// See [`ChangedRows`].
    pub(crate) fn may_have_changed(&mut self, rows: ChangedRows) {
        self.rows_changed |= rows == ChangedRows::Unknown;
    }

    /// A delivery was inserted, and the caller of the request will not notify the dispatcher of it.
    pub(crate) fn notify_dispatcher(&mut self, delivery: DueDelivery) {
        self.unannounced.push(delivery);
    }

    /// A delivery changed its state, or an attempt failed.
    pub(crate) fn settled(&mut self, tenant: &TenantId, change: StateChange) {
        self.settled.push((tenant.clone(), change));
    }

    pub(crate) fn replays_changed(&mut self) {
        self.replays_changed = true;
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn merge(&mut self, other: Effects) {
        for (key, deltas) in other.tally {
            let sum = self.tally.entry(key).or_default();
            for (sum, delta) in sum.iter_mut().zip(deltas) {
                *sum += delta;
            }
        }
        for (plan, by) in other.plan_refs {
            self.add_plan_ref(plan, by);
        }
        for (tenant, by) in other.stored {
            self.add_stored_bytes(&tenant, by);
        }
        self.appended.extend(other.appended);
        self.inserted.extend(other.inserted);
        self.touched.extend(other.touched);
        self.rows_changed |= other.rows_changed;
        self.unannounced.extend(other.unannounced);
        self.changes.extend(other.changes);
        self.replays_changed |= other.replays_changed;
        self.settled.extend(other.settled);
        self.statistics.merge(other.statistics);
    }

    /// Writes the counts, and the cursor if it has moved. The last step before the commit.
    pub(crate) fn store(
        &self,
        conn: &Connection,
        statistics: &mut StatisticsCache,
        cursor: Option<EventSeq>,
    ) -> Result<(), Error> {
        for ((tenant, subscription), [due, delivered, dropped, held, dead]) in &self.tally {
            conn.prepare_cached(
                "INSERT INTO tally VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET due = due + ?3, delivered = delivered + ?4, dropped = dropped + ?5,
                     held = held + ?6, dead = dead + ?7",
            )?
            .execute(params![tenant, subscription, due, delivered, dropped, held, dead])?;
        }
        for (plan, by) in &self.plan_refs {
            conn.prepare_cached("UPDATE plan SET refs = refs + ?2 WHERE id = ?1")?.execute([plan, by])?;
        }
        for (tenant, by) in self.stored.iter().filter(|(_, by)| **by != 0) {
            conn.prepare_cached(
                "INSERT INTO tenant_usage VALUES (?1, ?2) ON CONFLICT DO UPDATE SET bytes = bytes + ?2",
            )?
            .execute(params![tenant, by])?;
        }
        self.statistics.store(conn, statistics)?;
        if let Some(cursor) = cursor {
            conn.prepare_cached("UPDATE mark SET value = ?1 WHERE name = 'cursor'")?.execute(params![cursor])?;
        }
        Ok(())
    }
}

/// In-memory state of the ledger. Updated by the writer after each commit, read by all threads.
pub(crate) struct SharedState {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) revision: watch::Sender<u64>,
    /// End of the journal and fan-out cursor. Watchers are woken only if something is left to the fan-out loop.
    pub(crate) fanout_cursor: watch::Sender<FanoutCursor>,
    /// New deliveries that the dispatcher has not fetched yet.
    pub(crate) new_deliveries: NewDeliveries,
    /// Number of times replays were started or cancelled.
    pub(crate) replays: watch::Sender<u64>,
    /// Recent state changes of deliveries, for live tails.
    pub(crate) settlements: SettlementLog,
    /// Deliveries due or held per tenant; tenants without any are absent.
    backlog: RwLock<HashMap<TenantId, i64>>,
    /// Bytes stored per tenant.
    pub(crate) stored: Stored,
    /// Bytes of requests in the writer's queue.
    pub(crate) queue_bytes: AtomicUsize,
    /// Retention has examined all events up to here; those that remain must be retained.
    pub(crate) retention_watermark: AtomicI64,
    /// Memory used by the dedupe index, in bytes.
    pub(crate) dedupe_bytes: AtomicUsize,
    /// Number of commits. The checkpointer skips its check if this has not changed.
    pub(crate) commits: AtomicUsize,
    /// Recent events and deliveries, handed over in memory.
    pub(crate) recent_writes: RecentWrites,
    /// Whether the disk accepts writes.
    pub(crate) disk: Disk,
    /// Whether there is free space.
    pub(crate) space: Space,
}

impl SharedState {
    /// Loads the marks, the counts and the registry.
    pub(crate) fn load(conn: &Connection, options: &Options) -> Result<Self, Error> {
        let mark = |name: &str| -> Result<i64, Error> {
            Ok(conn.query_row("SELECT value FROM mark WHERE name = ?1", [name], |row| row.get(0))?)
        };
        let cursor = mark("cursor")?;
        let revision = mark("revision")?;
        let revision = u64::try_from(revision).map_err(|_| Error::corrupt(format!("the revision is {revision}")))?;
        let last = conn.query_row("SELECT max(seq) FROM event", [], |row| row.column::<Option<EventSeq>>(0))?;
        let mut backlog = HashMap::new();
        let mut statement = conn.prepare("SELECT tenant, sum(due + held) FROM tally GROUP BY tenant")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            backlog.insert(row.column::<TenantId>(0)?, row.get::<_, i64>(1)?);
        }
        backlog.retain(|_, count| *count != 0);
        let stored = Stored::load(conn)?;
        let snapshot = Snapshot::load(conn, revision)?;
        // The registry is in memory now, so its pages need not stay in this connection's cache.
        conn.execute_batch("PRAGMA shrink_memory")?;
        Ok(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            revision: watch::Sender::new(revision),
            fanout_cursor: watch::Sender::new(FanoutCursor::new(last.unwrap_or_default(), EventSeq(cursor))),
            new_deliveries: NewDeliveries::default(),
            replays: watch::Sender::new(0),
            settlements: SettlementLog::default(),
            backlog: RwLock::new(backlog),
            stored,
            queue_bytes: AtomicUsize::new(0),
            retention_watermark: AtomicI64::new(0),
            dedupe_bytes: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            recent_writes: RecentWrites::new(options.recent_writes_bytes_max),
            disk: Disk::new(&options.path),
            space: Space::new(options),
        })
    }

    /// Makes a committed batch visible in memory.
    pub(crate) fn publish(&self, effects: Effects, fanout_cursor: FanoutCursor) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let rows = if effects.rows_changed { ChangedRows::Unknown } else { ChangedRows::Listed };
        self.recent_writes.add_batch(
            effects.appended,
            effects.inserted,
            &effects.touched,
            fanout_cursor.position(),
            rows,
        );
        if !effects.tally.is_empty() {
            // A counter cannot be left half updated, so a poisoned lock is safe to use.
            let mut backlog = self.backlog.write().unwrap_or_else(PoisonError::into_inner);
            for ((tenant, _), deltas) in effects.tally {
                let by = deltas[state_number(State::Due) as usize] + deltas[state_number(State::Held) as usize];
                if by == 0 {
                    continue;
                }
                let count = backlog.entry(tenant.clone()).or_default();
                *count += by;
                if *count == 0 {
                    backlog.remove(&tenant);
                }
            }
        }
        if !effects.stored.is_empty() {
            let grown = self.stored.add(effects.stored);
            self.space.add_written(grown);
        }
        if !effects.changes.is_empty() {
            let mut next = Snapshot::clone(&self.snapshot.load());
            for change in effects.changes {
                next.apply(change);
            }
            let revision = next.revision;
            let next = Arc::new(next);
            self.snapshot.store(Arc::clone(&next));
            self.settlements.retain_tenants(&next);
            self.revision.send_replace(revision);
        }
        self.settlements.add(&effects.settled);
        if effects.replays_changed {
            self.replays.send_modify(|times| *times += 1);
        }
        self.new_deliveries.add(effects.unannounced);
        self.fanout_cursor.send_if_modified(|before| {
            *before = fanout_cursor;
            fanout_cursor.has_pending()
        });
    }

    pub(crate) fn backlog(&self, tenant: &TenantId) -> u64 {
        let backlog = self.backlog.read().unwrap_or_else(PoisonError::into_inner);
        backlog.get(tenant).copied().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    /// The shortage of a tenant that stores more than an equal share of all stored bytes, if it does. `None` if
    /// there is only one tenant.
    pub(crate) fn over_share(&self, tenant: &TenantId) -> Option<Shortage> {
        let tenants = self.snapshot.load().tenants.len();
        let (stored, total) = (self.stored.of(tenant), self.stored.total());
        let share = total / u64::try_from(tenants).ok().filter(|count| *count > 1)?;
        (stored > share).then_some(Shortage::Share { stored, share })
    }

    /// The tenants above an equal share. `None` if there is only one tenant or none is above it.
    pub(crate) fn tenants_over_share(&self) -> Option<HashSet<TenantId>> {
        let all = self.stored.all().into_iter().map(|(tenant, _)| tenant);
        let heavy: HashSet<_> = all.filter(|tenant| self.over_share(tenant).is_some()).collect();
        (!heavy.is_empty()).then_some(heavy)
    }
}
