//! The settlement log: recent state changes of deliveries in memory, one ring per tenant, from which live tails read.
//!
//! A tenant's ring begins when its first tail is opened. Until then no position in it was issued, so nothing has to be
//! retained and the commits of that tenant add nothing. After the last tail has disconnected, the ring continues, so
//! that a client can resume from its position. It ends as soon as no position can be resumed without a gap, that is, if
//! an entry after the last issued position has to be evicted.
//!
//! The writer adds the changes of a batch after its commit, in commit order, and before it replies. So a reader finds
//! the row of each entry in the file, and a settlement that commits while a tail is being opened is either before the
//! first position of that tail or is shown by it.
//!
//! Nothing here is durable. Each ring has a random id, which every position contains. A position from before a restart,
//! or from a ring that has ended, therefore never matches: its reader is informed that settlements are missing, as is a
//! reader whose next entry has been evicted. The rows of the deliveries are authoritative.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use setgate_base::crypto::random_bytes;
use setgate_domain::delivery::{DeliverySeq, State};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;
use tokio::sync::watch;

use crate::Error;
use crate::state::snapshot::Snapshot;

/// Maximum memory of all rings, in bytes. Beyond it the largest rings evict their oldest entries.
const SETTLEMENTS_BYTES_MAX: usize = 16 << 20;
/// Maximum memory of one tenant's ring, in bytes: about 20,000 entries.
const SETTLEMENTS_BYTES_PER_TENANT_MAX: usize = 2 << 20;
/// Memory of an entry, in bytes. A queue doubles its capacity when it grows, so it may have room for twice its entries.
const ENTRY_BYTES: usize = 2 * size_of::<StateChange>();
/// Maximum number of entries that one read examines, since the writer waits for it.
const SCAN_ENTRIES_MAX: usize = 10_000;

/// A state change of a delivery. Further details are read from the rows of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateChange {
    pub(crate) delivery: DeliverySeq,
    pub(crate) subscription: SubscriptionId,
    /// State after the change.
    pub(crate) state: State,
    /// Number of the attempt that led to it.
    pub(crate) attempt: Option<u32>,
    pub(crate) at: Timestamp,
}

/// A position in a tenant's ring, just after an entry. Its text form is opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettlementPosition {
    /// Id of the ring.
    ring: u64,
    /// Number of the entry, from 1 on. 0 is before the first entry.
    entry: u64,
}

impl fmt::Display for SettlementPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.ring, self.entry)
    }
}

impl FromStr for SettlementPosition {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let part = |range| given.get(range).and_then(|hex: &str| u64::from_str_radix(hex, 16).ok());
        let position = part(0..16).zip(part(16..32)).map(|(ring, entry)| Self { ring, entry });
        position.filter(|position| position.to_string() == given).ok_or(Error::InvalidCursor)
    }
}

/// The log. The writer adds entries, tails read them.
pub(crate) struct SettlementLog {
    /// Maximum number of entries of a tenant.
    tenant_max: usize,
    /// Maximum number of entries of all tenants.
    total_max: usize,
    rings: Mutex<Rings>,
}

#[derive(Default)]
struct Rings {
    by_tenant: HashMap<TenantId, Ring>,
    /// Number of entries of all rings.
    entries: usize,
}

/// The newest entries of a tenant.
struct Ring {
    id: u64,
    entries: VecDeque<StateChange>,
    /// Number of entries evicted, which is the number of the entry before the first one.
    evicted: u64,
    /// Number of the last entry. Readers are woken when it changes.
    last: watch::Sender<u64>,
    /// Number of open tails.
    tails: usize,
    /// Number of the last entry when the last tail disconnected. No position after it was issued while `tails` is 0.
    issued: u64,
}

/// A tail's registration, from [`SettlementLog::open`]. To be closed with [`SettlementLog::close`].
pub(crate) struct OpenRing {
    id: u64,
    /// Number of the last entry. The channel closes if the tenant is removed.
    pub(crate) last: watch::Receiver<u64>,
}

impl OpenRing {
    /// The end of the ring.
    pub(crate) fn end(&self) -> SettlementPosition {
        SettlementPosition { ring: self.id, entry: *self.last.borrow() }
    }
}

/// Entries after a position.
#[derive(Debug)]
pub(crate) struct Entries {
    /// Matching entries, oldest first, each with the position after it.
    pub(crate) found: Vec<(SettlementPosition, StateChange)>,
    /// Position up to which all entries were examined.
    pub(crate) examined: SettlementPosition,
    /// Whether entries after the requested position are not in the ring, or may have been in another one.
    pub(crate) missed: bool,
}

impl Default for SettlementLog {
    fn default() -> Self {
        Self::new(SETTLEMENTS_BYTES_PER_TENANT_MAX, SETTLEMENTS_BYTES_MAX)
    }
}

impl SettlementLog {
    /// An empty log with limits in bytes.
    fn new(tenant_bytes_max: usize, bytes_max: usize) -> Self {
        let (tenant_max, total_max) = (tenant_bytes_max / ENTRY_BYTES, bytes_max / ENTRY_BYTES);
        Self { tenant_max, total_max, rings: Mutex::default() }
    }

    /// Adds the entries of a committed batch, in order.
    ///
    /// The requests of a batch record their changes before it is known which tenants have a ring, because a tail can be
    /// opened until the commit. That costs a copy of some 60 bytes for each settlement. Everything else happens here, and
    /// for tenants without a ring it is one lookup.
    pub(crate) fn add(&self, changes: &[(TenantId, StateChange)]) {
        if changes.is_empty() {
            return;
        }
        let mut rings = self.lock();
        let Rings { by_tenant, entries } = &mut *rings;
        for of_tenant in changes.chunk_by(|(one, _), (next, _)| one == next) {
            let tenant = &of_tenant[0].0;
            let Some(ring) = by_tenant.get_mut(tenant) else { continue };
            for (_, change) in of_tenant {
                *entries -= ring.trim(self.tenant_max.saturating_sub(1));
                ring.entries.push_back(*change);
                *entries += 1;
            }
            ring.last.send_replace(ring.last());
            if ring.has_ended() {
                *entries -= ring.entries.len();
                by_tenant.remove(tenant);
            }
        }
        if *entries > self.total_max {
            rings.make_room(self.total_max);
        }
    }

    /// Registers a tail of a tenant. Creates the ring if the tenant has none. `None` if the tenant does not exist.
    pub(crate) fn open(&self, tenant: &TenantId, exists: impl FnOnce() -> bool) -> Option<OpenRing> {
        let mut rings = self.lock();
        // Checked under the lock, so that the ring of a tenant that is being removed is either not created or removed by
        // `retain_tenants`.
        if !exists() {
            return None;
        }
        let ring = rings.by_tenant.entry(tenant.clone()).or_insert_with(|| Ring {
            id: u64::from_ne_bytes(random_bytes()),
            entries: VecDeque::new(),
            evicted: 0,
            last: watch::Sender::new(0),
            tails: 0,
            issued: 0,
        });
        ring.tails += 1;
        Some(OpenRing { id: ring.id, last: ring.last.subscribe() })
    }

    /// Ends the registration of a tail.
    pub(crate) fn close(&self, tenant: &TenantId, open: &OpenRing) {
        // The tenant may have been removed, and have a new ring if it was created again.
        if let Some(ring) = self.lock().by_tenant.get_mut(tenant).filter(|ring| ring.id == open.id) {
            ring.tails -= 1;
            ring.issued = ring.last();
        }
    }

    /// Removes the rings of tenants that no longer exist.
    pub(crate) fn retain_tenants(&self, snapshot: &Snapshot) {
        let mut rings = self.lock();
        let Rings { by_tenant, entries } = &mut *rings;
        by_tenant.retain(|tenant, ring| {
            let exists = snapshot.tenants.contains_key(tenant);
            if !exists {
                *entries -= ring.entries.len();
            }
            exists
        });
    }

    /// The entries of a ring after a position that match, at most `limit`.
    ///
    /// [`Error::InvalidCursor`] if the position is after the end of the ring, so that it was never issued.
    pub(crate) fn read(
        &self,
        tenant: &TenantId,
        open: &OpenRing,
        after: SettlementPosition,
        limit: usize,
        matches: impl Fn(&StateChange) -> bool,
    ) -> Result<Entries, Error> {
        let rings = self.lock();
        match rings.by_tenant.get(tenant).filter(|ring| ring.id == open.id) {
            Some(ring) => ring.read(after, limit, matches),
            // The tenant was removed, and its deliveries with it.
            None => Ok(Entries { found: Vec::new(), examined: open.end(), missed: false }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        // No step can panic between a change of a ring and that of the count, so a poisoned lock is safe to use.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Number of the last entry.
    fn last(&self) -> u64 {
        self.evicted + self.entries.len() as u64
    }

    /// Evicts the oldest entries beyond `max`. Returns their number.
    fn trim(&mut self, max: usize) -> usize {
        let excess = self.entries.len().saturating_sub(max);
        self.entries.drain(..excess);
        self.evicted += excess as u64;
        excess
    }

    /// Whether no tail is open, and no issued position can be resumed without a gap.
    fn has_ended(&self) -> bool {
        self.tails == 0 && self.evicted > self.issued
    }

    fn read(
        &self,
        after: SettlementPosition,
        limit: usize,
        matches: impl Fn(&StateChange) -> bool,
    ) -> Result<Entries, Error> {
        let of_another_ring = after.ring != self.id;
        let after = if of_another_ring { 0 } else { after.entry };
        if after > self.last() {
            return Err(Error::InvalidCursor);
        }
        let missed = of_another_ring || after < self.evicted;
        let mut examined = after.max(self.evicted);
        let start = usize::try_from(examined - self.evicted).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for change in self.entries.range(start..).take(SCAN_ENTRIES_MAX) {
            if found.len() == limit {
                break;
            }
            examined += 1;
            if matches(change) {
                found.push((SettlementPosition { ring: self.id, entry: examined }, *change));
            }
        }
        Ok(Entries { found, examined: SettlementPosition { ring: self.id, entry: examined }, missed })
    }
}

impl Rings {
    /// Evicts the oldest entries of the largest rings, so that each tenant has at most an equal share of the room that
    /// the smaller rings leave (max-min fairness). An eighth of the total is free afterwards, so that the pass over all
    /// rings is rare.
    fn make_room(&mut self, total_max: usize) {
        let mut lengths: Vec<usize> = self.by_tenant.values().map(|ring| ring.entries.len()).collect();
        lengths.sort_unstable();
        let (mut room, mut share) = (total_max - total_max / 8, 0);
        for (length, rings) in lengths.iter().zip((1..=lengths.len()).rev()) {
            share = room / rings;
            if *length > share {
                break;
            }
            room -= length;
        }
        let Self { by_tenant, entries } = self;
        by_tenant.retain(|_, ring| {
            let evicted = ring.trim(share);
            if evicted > 0 {
                ring.entries.shrink_to_fit();
                *entries -= evicted;
            }
            let has_ended = ring.has_ended();
            if has_ended {
                *entries -= ring.entries.len();
            }
            !has_ended
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, subscription};

    /// A log with limits in entries.
    fn log(tenant_max: usize, total_max: usize) -> SettlementLog {
        SettlementLog::new(tenant_max * ENTRY_BYTES, total_max * ENTRY_BYTES)
    }

    fn change(delivery: i64) -> StateChange {
        StateChange {
            delivery: DeliverySeq(delivery),
            subscription: subscription(1),
            state: State::Delivered,
            attempt: Some(1),
            at: NOW,
        }
    }

    fn add(log: &SettlementLog, tenant: &str, deliveries: std::ops::Range<i64>) {
        let tenant: TenantId = tenant.parse().unwrap();
        log.add(&deliveries.map(|n| (tenant.clone(), change(n))).collect::<Vec<_>>());
    }

    /// An open tail.
    struct Tail<'a> {
        log: &'a SettlementLog,
        tenant: TenantId,
        open: OpenRing,
    }

    impl<'a> Tail<'a> {
        fn open(log: &'a SettlementLog, tenant: &str) -> Self {
            let tenant = tenant.parse().unwrap();
            let open = log.open(&tenant, || true).unwrap();
            Self { log, tenant, open }
        }

        fn end(&self) -> SettlementPosition {
            self.open.end()
        }

        /// The deliveries after a position, and whether earlier ones are missing.
        fn after(&self, position: SettlementPosition) -> (Vec<i64>, bool) {
            let read = self.log.read(&self.tenant, &self.open, position, usize::MAX, |_| true).unwrap();
            assert_eq!(read.examined, self.end());
            (read.found.iter().map(|(_, change)| change.delivery.0).collect(), read.missed)
        }
    }

    impl Drop for Tail<'_> {
        fn drop(&mut self) {
            self.log.close(&self.tenant, &self.open);
        }
    }

    #[test]
    fn without_a_tail_nothing_is_retained() {
        let log = log(10, 30);
        add(&log, "a", 0..5);
        assert!(log.lock().by_tenant.is_empty());
        let tail = Tail::open(&log, "a");
        let begin = tail.end();
        assert_eq!(tail.after(begin), (vec![], false));
        add(&log, "b", 0..5);
        add(&log, "a", 5..7);
        assert_eq!(tail.after(begin), (vec![5, 6], false));
        assert_eq!(log.lock().entries, 2, "the other tenant has no tail");
        assert!(log.open(&"gone".parse().unwrap(), || false).is_none());
    }

    #[test]
    fn full_ring_evicts_only_its_own_tenants_entries() {
        let log = log(10, 25);
        let (a, b) = (Tail::open(&log, "a"), Tail::open(&log, "b"));
        let (begin_a, begin_b) = (a.end(), b.end());
        add(&log, "a", 0..3);
        let after_three = a.end();
        add(&log, "b", 0..10_000);
        assert_eq!(a.after(begin_a), ((0..3).collect(), false));
        assert_eq!(b.after(begin_b), ((9_990..10_000).collect(), true));
        add(&log, "a", 3..11);
        assert_eq!(a.after(begin_a), ((1..11).collect(), true), "the first entry is evicted");
        assert_eq!(a.after(after_three), ((3..11).collect(), false), "and this reader has passed it");
    }

    #[test]
    fn largest_rings_make_room_and_memory_stays_within_its_bytes() {
        let log = log(10, 16);
        let tails = ["a", "b", "c"].map(|tenant| Tail::open(&log, tenant));
        let begin: Vec<_> = tails.iter().map(Tail::end).collect();
        add(&log, "a", 0..2);
        add(&log, "b", 0..8);
        add(&log, "c", 0..6);
        assert_eq!(log.lock().entries, 16);
        add(&log, "c", 6..7);
        let after: Vec<_> = tails.iter().zip(&begin).map(|(tail, begin)| tail.after(*begin)).collect();
        assert_eq!(after, [(vec![0, 1], false), ((2..8).collect(), true), ((1..7).collect(), true)]);
        assert_eq!(log.lock().entries, 14, "an eighth is free");
        for (tenant, n) in ["a", "b", "c"].into_iter().cycle().zip(7..1_000) {
            add(&log, tenant, n..n + 1);
            let rings = log.lock();
            let (mut entries, mut bytes) = (0, 0);
            for ring in rings.by_tenant.values() {
                entries += ring.entries.len();
                bytes += ring.entries.capacity() * size_of::<StateChange>();
            }
            // The smallest capacity of a queue is 4.
            assert!(entries == rings.entries && bytes <= (16 + 3 * 2) * ENTRY_BYTES, "{entries}, {bytes}");
        }
    }

    #[test]
    fn client_resumes_without_a_gap_while_its_next_entry_is_retained() {
        let log = log(10, 30);
        let tail = Tail::open(&log, "a");
        add(&log, "a", 0..3);
        let position = tail.end();
        drop(tail);
        add(&log, "a", 3..13);
        let tail = Tail::open(&log, "a");
        assert_eq!(tail.after(position), ((3..13).collect(), false));
        drop(tail);
        // With the position at the end, all entries up to it can be evicted.
        add(&log, "a", 13..23);
        assert_eq!(log.lock().entries, 10);
        add(&log, "a", 23..24);
        assert!(log.lock().by_tenant.is_empty() && log.lock().entries == 0, "nobody can resume without a gap");
        let tail = Tail::open(&log, "a");
        assert_eq!(tail.after(position), (vec![], true));
        add(&log, "a", 24..25);
        assert_eq!(tail.after(position), (vec![24], true));
    }

    #[test]
    fn position_from_before_a_restart_is_answered_with_missed() {
        let (before, after) = (log(10, 30), log(10, 30));
        let position = {
            let tail = Tail::open(&before, "a");
            add(&before, "a", 0..3);
            tail.end()
        };
        let tail = Tail::open(&after, "a");
        assert_eq!(tail.after(position), (vec![], true));
        // The number of the entry is valid in the new ring, too.
        add(&after, "a", 7..12);
        assert_eq!(tail.after(position), ((7..12).collect(), true));
        assert_eq!(tail.after(tail.end()), (vec![], false));
    }

    #[test]
    fn read_ends_at_its_limit_and_the_next_one_continues_there() {
        let log = log(20_000, 30_000);
        let tail = Tail::open(&log, "a");
        let begin = tail.end();
        add(&log, "a", 0..6);
        let read = |after, limit, matches: fn(i64) -> bool| {
            let read = log.read(&tail.tenant, &tail.open, after, limit, |change| matches(change.delivery.0)).unwrap();
            (read.found.iter().map(|(_, change)| change.delivery.0).collect::<Vec<_>>(), read.examined)
        };
        let even = |n| n % 2 == 0;
        let (first, examined) = read(begin, 2, even);
        assert_eq!(first, [0, 2]);
        assert_eq!(read(examined, 2, even), (vec![4], tail.end()));

        add(&log, "a", 6..16_006);
        let (found, examined) = read(begin, 2, |n| n > 12_000);
        assert_eq!((found, examined.entry), (vec![], SCAN_ENTRIES_MAX as u64), "the writer waits for a read");
        assert_eq!(read(examined, 2, |n| n > 12_000).0, [12_001, 12_002]);

        let never_issued = SettlementPosition { entry: tail.end().entry + 1, ..begin };
        let refused = log.read(&tail.tenant, &tail.open, never_issued, 2, |_| true);
        assert!(matches!(refused, Err(Error::InvalidCursor)));
    }

    #[tokio::test]
    async fn readers_are_woken_after_the_entries_can_be_read() {
        let log = log(10, 30);
        let (mut a, b) = (Tail::open(&log, "a"), Tail::open(&log, "b"));
        add(&log, "a", 0..2);
        a.open.last.changed().await.unwrap();
        assert_eq!((*a.open.last.borrow(), *b.open.last.borrow()), (2, 0));
        assert!(!b.open.last.has_changed().unwrap(), "a tail is woken for its own tenant only");
    }
}
