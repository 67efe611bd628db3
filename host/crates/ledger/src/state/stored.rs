//! Bytes stored by each tenant: events, deliveries, attempts, filter output, signed SETs, plans, blobs and unfinished uploads. Tenants
//! share a disk, and row counts say little about its use.
//!
//! The table `tenant_usage` has one row per tenant. Each write or delete of a row reports the change
//! ([`crate::commit::effects::Effects::stored`]), and the sums are written in the same transaction, so they are exact after a
//! crash. [`RECOUNT`] defines the sums, and `admin check` compares the two. Lengths are those of the compressed columns
//! on disk, which SQLite reads from the row header. The overhead of a row, including its index entries, is a constant
//! per kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::delivery::DeliverySeq;
use setgate_domain::event::EventSeq;
use setgate_domain::id::TenantId;

use crate::Error;
use crate::schema::sql_types::{ReadColumn, params};

macro_rules! event_bytes {
    () => {
        "400 + octet_length(set_text) + coalesce(octet_length(original), 0) + octet_length(types) + octet_length(issuer)
            + octet_length(jti) + coalesce(octet_length(subject), 0) + octet_length(content_type)
            + coalesce(octet_length(trace), 0)"
    };
}

macro_rules! filtered_bytes {
    () => {
        "coalesce(octet_length(claims), 0) + octet_length(runs)"
    };
}

macro_rules! signed_set_bytes {
    () => {
        "100 + octet_length(kid) + octet_length(jti) + octet_length(token)"
    };
}

/// Bytes of a delivery's row without its reason. Must match [`RECOUNT`].
pub(crate) const DELIVERY_BYTES: i64 = 300;
/// Bytes of an attempt's row without its document. Must match [`RECOUNT`].
pub(crate) const ATTEMPT_BYTES: i64 = 32;

/// The correct sums, computed from the rows: tenant and bytes.
pub(crate) const RECOUNT: &str = concat!(
    "SELECT tenant, sum(bytes) AS bytes FROM (
        SELECT tenant, ",
    event_bytes!(),
    " AS bytes FROM event
        UNION ALL SELECT tenant, 300 + coalesce(octet_length(reason), 0) FROM delivery
        UNION ALL SELECT d.tenant, ",
    filtered_bytes!(),
    " FROM filter_output f JOIN delivery d ON d.seq = f.delivery
        UNION ALL SELECT d.tenant, ",
    signed_set_bytes!(),
    " FROM signed_set s JOIN delivery d ON d.seq = s.delivery
        UNION ALL SELECT d.tenant, 32 + octet_length(a.doc) FROM attempt a JOIN delivery d ON d.seq = a.id >> 20
        UNION ALL SELECT doc ->> '$.tenant', octet_length(doc) FROM plan WHERE json_valid(doc) AND doc ->> '$.tenant' IS NOT NULL
        UNION ALL SELECT tenant, bytes FROM blob
        UNION ALL SELECT tenant, bytes FROM upload
    ) GROUP BY tenant"
);

/// Bytes of an event's row, or 0 if it does not exist.
pub(crate) fn of_event(conn: &Connection, event: EventSeq) -> Result<i64, Error> {
    let sql = concat!("SELECT ", event_bytes!(), " FROM event WHERE seq = ?1");
    let bytes = conn.prepare_cached(sql)?.query_row(params![event], |row| row.get(0)).optional()?;
    Ok(bytes.unwrap_or(0))
}

/// Bytes of a delivery's filter output.
pub(crate) fn of_filtered(conn: &Connection, delivery: DeliverySeq) -> Result<i64, Error> {
    let sql = concat!("SELECT ", filtered_bytes!(), " FROM filter_output WHERE delivery = ?1");
    let bytes = conn.prepare_cached(sql)?.query_row(params![delivery], |row| row.get(0)).optional()?;
    Ok(bytes.unwrap_or(0))
}

/// Bytes of a delivery's signed SET.
pub(crate) fn of_signed_set(conn: &Connection, delivery: DeliverySeq) -> Result<i64, Error> {
    let sql = concat!("SELECT ", signed_set_bytes!(), " FROM signed_set WHERE delivery = ?1");
    let bytes = conn.prepare_cached(sql)?.query_row(params![delivery], |row| row.get(0)).optional()?;
    Ok(bytes.unwrap_or(0))
}

/// Bytes of a delivery with its attempts, filter output and signed SET.
pub(crate) fn of_delivery(conn: &Connection, delivery: DeliverySeq) -> Result<i64, Error> {
    let row: Option<i64> = conn
        .prepare_cached("SELECT 300 + coalesce(octet_length(reason), 0) FROM delivery WHERE seq = ?1")?
        .query_row(params![delivery], |row| row.get(0))
        .optional()?;
    let attempts: i64 = conn
        .prepare_cached(
            "SELECT coalesce(sum(32 + octet_length(doc)), 0) FROM attempt WHERE id >= ?1 << 20 AND id < (?1 + 1) << 20",
        )?
        .query_row(params![delivery], |row| row.get(0))?;
    Ok(row.unwrap_or(0) + attempts + of_filtered(conn, delivery)? + of_signed_set(conn, delivery)?)
}

/// A length as a signed number, for differences.
pub(crate) fn bytes(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Sums as of the last commit. Tenants without stored bytes are absent.
pub(crate) struct Stored {
    of: RwLock<HashMap<TenantId, i64>>,
    total: AtomicI64,
}

impl Stored {
    pub(crate) fn load(conn: &Connection) -> Result<Self, Error> {
        let mut statement = conn.prepare("SELECT tenant, bytes FROM tenant_usage WHERE bytes <> 0")?;
        let of =
            statement.query_map([], |row| Ok((row.column(0)?, row.get(1)?)))?.collect::<Result<HashMap<_, _>, _>>()?;
        let stored = Self { of: RwLock::default(), total: AtomicI64::new(0) };
        stored.add(of.into_iter().collect());
        Ok(stored)
    }

    /// Adds the changes of a committed batch. Returns the total of its increases.
    pub(crate) fn add(&self, changes: BTreeMap<TenantId, i64>) -> u64 {
        // A counter cannot be left half updated, so a poisoned lock is safe to use.
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        let mut grown = 0;
        for (tenant, by) in changes {
            grown += u64::try_from(by).unwrap_or(0);
            self.total.fetch_add(by, Ordering::Relaxed);
            let bytes = of.entry(tenant.clone()).or_default();
            *bytes += by;
            if *bytes == 0 {
                of.remove(&tenant);
            }
        }
        grown
    }

    pub(crate) fn of(&self, tenant: &TenantId) -> u64 {
        let of = self.of.read().unwrap_or_else(PoisonError::into_inner);
        of.get(tenant).and_then(|bytes| u64::try_from(*bytes).ok()).unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        u64::try_from(self.total.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(crate) fn all(&self) -> Vec<(TenantId, u64)> {
        let of = self.of.read().unwrap_or_else(PoisonError::into_inner);
        of.iter().map(|(tenant, bytes)| (tenant.clone(), u64::try_from(*bytes).unwrap_or(0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect;
    use crate::tests::{NOW, TENANT, attempt, block_on, due_one, event, open, reopen, run, tenant};
    use crate::{Ledger, Precondition};
    use setgate_domain::delivery::{Redrive, Settlement, Step};

    /// Checks that the sums match the rows.
    fn assert_exact(folder: &tempfile::TempDir, after: &str) {
        let found = inspect(folder.path()).unwrap();
        let stored = found.checks.iter().find(|check| check.name == "stored").unwrap();
        assert_eq!(stored.faults, 0, "after {after}: {:?}", stored.details);
    }

    fn of(ledger: &Ledger) -> u64 {
        ledger.usage.stored(&TENANT.parse().unwrap())
    }

    #[test]
    fn sum_matches_rows_after_every_change() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            assert_exact(&folder, "an event with a delivery");
            let settle = async |step: Step| {
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            };
            let redrive = async |action: Redrive| {
                ledger.deliveries.redrive(&TENANT.parse().unwrap(), due.id, action, NOW).await.unwrap();
            };
            settle(Step::FilterRetry { runs: vec![run()], due_at: NOW }).await;
            settle(Step::FilterRetry { runs: vec![run(), run()], due_at: NOW.plus_millis(1) }).await;
            assert_exact(&folder, "two runs of its filters");
            settle(Step::Held { runs: vec![run()], reason: "trapped".into() }).await;
            assert_exact(&folder, "a fault");
            redrive(Redrive::Again).await;
            settle(Step::Filtered { claims: Some("{\"claims\":1}".into()), runs: vec![run()] }).await;
            assert_exact(&folder, "a patch");
            let before = of(&ledger);
            settle(Step::Retry { attempt: attempt(1, 500), due_at: NOW }).await;
            assert!(of(&ledger) > before);
            settle(Step::Dead { attempt: Some(attempt(2, 500)), reason: "given up".into() }).await;
            assert_exact(&folder, "two attempts");
            redrive(Redrive::Again).await;
            settle(Step::Held { runs: vec![], reason: "again".into() }).await;
            redrive(Redrive::Release).await;
            assert_exact(&folder, "its claims were let go of");
            settle(Step::Delivered { attempt: attempt(3, 200) }).await;
            ledger.blobs.put(&tenant().id, vec![7; 300 << 10].into()).await.unwrap();
            ledger.blobs.put(&"another".parse().unwrap(), vec![7; 300 << 10].into()).await.unwrap();
            assert_exact(&folder, "an upload, stored once");
            let full = of(&ledger);
            assert!(full > 300 << 10);
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(of(&ledger), full, "a restart knows the same");
            assert_eq!(ledger.usage.stored_by_tenant(), [(tenant().id, full)]);

            ledger.events.append(event(9)).await.unwrap();
            ledger.upkeep.retain(NOW.plus_millis(40 * 24 * 3_600_000)).await.unwrap();
            assert_exact(&folder, "retention");
            assert!(of(&ledger) < full / 100, "{} of {full} are left", of(&ledger));
            ledger.registry.remove_tenant(&tenant().id, Precondition::Any).await.unwrap();
            ledger.upkeep.retain(NOW.plus_millis(80 * 24 * 3_600_000)).await.unwrap();
            assert_exact(&folder, "its tenant was removed");
            assert_eq!(of(&ledger), 0);
        });
    }
}
