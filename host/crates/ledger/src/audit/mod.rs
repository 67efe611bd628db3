//! The audit log: one row for each change of the control plane, written in the transaction of that change.
//!
//! # Invariants
//!
//! 1. Rows are appended at the end, and only retention deletes them, at the beginning: `seq` has no gaps.
//! 2. `hash` is SHA-256 over the previous row's hash, `seq` (8 bytes, big endian) and `doc`. For the first row, the
//!    previous `seq` (8 bytes) and hash (32 bytes) are stored in `meta` as the anchor; initially both are 0. A changed,
//!    missing or inserted row is therefore detected by [`verify`].
//! 3. The searchable columns (`tenant`, `action`) are computed from `doc`, never stored separately.

pub(crate) mod idempotency;

use rusqlite::{Connection, OptionalExtension};
use setgate_base::crypto::sha256;
use setgate_domain::audit::{AuditEntry, AuditQuery, AuditRecord};
use setgate_domain::id::{Digest, TenantId};
use setgate_domain::page::PageBuilder;
use setgate_domain::time::Timestamp;

use crate::commit::queue::Batch;
use crate::schema::sql_types::{ReadColumn, params};
use crate::{Error, HISTORY_LIMIT_MAX, HISTORY_SCAN_ROWS_MAX};

/// Rows that retention deletes per transaction, and rows per read of the check.
const CHUNK_ROWS: i64 = 500;
/// Key of the anchor in `meta`.
const ANCHOR: &str = "audit anchor";

/// Result of checking the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditCheck {
    /// Number of valid rows.
    pub(crate) rows: u64,
    /// Hash of the last valid row. A copy stored elsewhere reveals whether the whole log was rewritten.
    pub(crate) head: Digest,
    /// Description of the first invalid row.
    pub(crate) fault: Option<String>,
}

/// A position in the hash chain.
#[derive(Debug, Clone, Copy)]
struct Link {
    seq: i64,
    hash: [u8; 32],
}

impl Link {
    const START: Link = Link { seq: 0, hash: [0; 32] };

    fn next(self, doc: &str) -> Self {
        let seq = self.seq + 1;
        let content = [self.hash.as_slice(), seq.to_be_bytes().as_slice(), doc.as_bytes()].concat();
        Self { seq, hash: sha256(&content) }
    }
}

/// Verifies the hash chain of the whole log. For a dedicated connection, such as one to a backup.
pub(crate) fn verify(conn: &Connection) -> Result<AuditCheck, Error> {
    let (mut at, mut rows) = (Link::START, 0);
    loop {
        let (link, checked, fault) = verify_chunk(conn, at)?;
        rows += checked;
        at = link;
        if checked == 0 || fault.is_some() {
            return Ok(AuditCheck { rows, head: Digest(at.hash), fault });
        }
    }
}

pub(crate) fn record(batch: &mut Batch<'_>, entry: &AuditEntry) -> Result<(), Error> {
    let conn = batch.conn;
    let doc = serde_json::to_string(entry)
        .map_err(|error| Error::Engine(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
    let last = conn
        .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok(Link { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?;
    let last = match last {
        Some(last) => last,
        None => anchor(conn)?,
    };
    let Link { seq, hash } = last.next(&doc);
    conn.prepare_cached("INSERT INTO audit (seq, hash, doc) VALUES (?1, ?2, ?3)")?.execute(params![seq, hash, doc])?;
    if let Some(claim) = &entry.claim {
        idempotency::insert(conn, claim, entry.at)?;
    }
    Ok(())
}

fn anchor(conn: &Connection) -> Result<Link, Error> {
    let stored = conn
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([ANCHOR], |row| row.get::<_, [u8; 40]>(0))
        .optional()?;
    let Some(stored) = stored else { return Ok(Link::START) };
    let (seq, hash) = stored.split_at(8);
    match (seq.try_into(), hash.try_into()) {
        (Ok(seq), Ok(hash)) => Ok(Link { seq: i64::from_be_bytes(seq), hash }),
        _ => Err(Error::corrupt("the audit log's anchor in `meta` cannot be decoded")),
    }
}

/// The last `tenant.create` of a tenant; earlier rows belong to a previous tenant of that name.
const LAST_CREATION: &str = "SELECT max(seq) FROM audit WHERE tenant = ?1 AND action = 'tenant.create'";
const OF_ALL: &str = "SELECT seq, hash, doc FROM audit WHERE seq < ?1 AND seq >= ?2 ORDER BY seq DESC";
pub(crate) const OF_TENANT: &str =
    "SELECT seq, hash, doc FROM audit WHERE seq < ?1 AND seq >= ?2 AND tenant = ?3 ORDER BY seq DESC";

pub(crate) fn page(
    conn: &Connection,
    tenant: Option<&TenantId>,
    since_creation: bool,
    query: &AuditQuery,
    before: Option<i64>,
    limit: usize,
) -> Result<(Vec<AuditRecord>, Option<i64>), Error> {
    let limit = limit.clamp(1, HISTORY_LIMIT_MAX);
    let before = before.unwrap_or(i64::MAX);
    let from = match tenant {
        Some(tenant) if since_creation => conn
            .prepare_cached(LAST_CREATION)?
            .query_row(params![tenant], |row| row.get::<_, Option<i64>>(0))?
            .unwrap_or(0),
        _ => 0,
    };
    let mut statement;
    let mut rows = match tenant {
        Some(tenant) => {
            statement = conn.prepare_cached(OF_TENANT)?;
            statement.query(params![before, from, tenant])?
        }
        None => {
            statement = conn.prepare_cached(OF_ALL)?;
            statement.query(params![before, from])?
        }
    };
    let mut filling = PageBuilder::new(limit);
    let (mut scanned, mut last) = (0, before);
    while let Some(row) = rows.next()? {
        if filling.is_full() || scanned >= HISTORY_SCAN_ROWS_MAX {
            return Ok((filling.into_items(), Some(last)));
        }
        scanned += 1;
        let seq = row.get(0)?;
        let text = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let entry: AuditEntry = serde_json::from_str(text)
            .map_err(|error| Error::corrupt(format!("audit log entry {seq} cannot be decoded: {error}")))?;
        if query.matches(&entry) && !filling.push(AuditRecord { seq, hash: row.column(1)?, entry }) {
            return Ok((filling.into_items(), Some(last)));
        }
        last = seq;
    }
    Ok((filling.into_items(), None))
}

/// Verifies a chunk of rows after `after`. Returns the last valid position, the number of valid rows, and the fault of
/// the next row.
fn verify_chunk(conn: &Connection, after: Link) -> Result<(Link, u64, Option<String>), Error> {
    let anchor = anchor(conn)?;
    // Retention may have deleted rows that the check has not reached.
    let mut at = if anchor.seq > after.seq { anchor } else { after };
    let mut valid = 0;
    let mut statement = conn.prepare_cached("SELECT seq, hash, doc FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query(params![at.seq, CHUNK_ROWS])?;
    while let Some(row) = rows.next()? {
        let (seq, hash): (i64, [u8; 32]) = (row.get(0)?, row.get(1)?);
        let next = at.next(row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?);
        if seq != next.seq {
            return Ok((at, valid, Some(format!("audit log entry {} is missing", next.seq))));
        }
        if hash != next.hash {
            let fault =
                format!("audit log entry {seq} or the one before it was changed: the hash chain does not match");
            return Ok((at, valid, Some(fault)));
        }
        at = next;
        valid += 1;
    }
    if valid == 0 {
        let written: Option<i64> =
            conn.query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = 'audit'", [], |row| row.get(0))?;
        if written.unwrap_or(0) > at.seq {
            let fault =
                format!("the audit log ends with entry {}, but later entries were written and are missing", at.seq);
            return Ok((at, valid, Some(fault)));
        }
    }
    Ok((at, valid, None))
}

pub(crate) fn retain(conn: &Connection, before: Timestamp) -> Result<u64, Error> {
    let mut removed = 0;
    let mut past = None;
    {
        let mut statement = conn.prepare_cached("SELECT seq, hash, doc ->> '$.at' FROM audit ORDER BY seq LIMIT ?1")?;
        let mut rows = statement.query([CHUNK_ROWS])?;
        while let Some(row) = rows.next()? {
            let at = row.get::<_, Option<String>>(2)?.and_then(|at| Timestamp::parse(&at));
            if at.is_none_or(|at| at >= before) {
                break;
            }
            past = Some(Link { seq: row.get(0)?, hash: row.get(1)? });
            removed += 1;
        }
    }
    let Some(Link { seq, hash }) = past else { return Ok(0) };
    conn.prepare_cached("DELETE FROM audit WHERE seq <= ?1")?.execute([seq])?;
    let anchor = [seq.to_be_bytes().as_slice(), hash.as_slice()].concat();
    conn.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
        .execute(params![ANCHOR, anchor])?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::Precondition;
    use crate::tests::{NOW, TENANT, block_on, copy, open, open_at, reopen, tenant, with_tenant};
    use setgate_domain::audit::{Actor, AuditAction, AuditObject, AuditOutcome, Originator};
    use setgate_domain::id::KeyId;
    use setgate_domain::source::{Compat, Form, Proof, Source};

    fn source(issuer: &str) -> Source {
        Source {
            tenant: TENANT.parse().unwrap(),
            name: "idp".parse().unwrap(),
            form: Form::Set,
            proofs: vec![Proof::Open],
            issuer: Some(issuer.into()),
            issuers_allowed: vec![],
            websub_topics: vec![],
            timestamp_tolerance_s: 300,
            allow_sha1: false,
            allow_plain_event_names: false,
            replace_lone_surrogates: false,
            compat: Compat::default(),
            created_at: NOW,
        }
    }

    fn audit(action: &'static str) -> AuditAction {
        let by = Originator::Key(KeyId::from_bytes([1; 16]));
        let actor = Actor { by, request: Some("req".into()), remote: Some("192.0.2.1".into()), claim: None };
        actor.action(action)
    }

    async fn all(ledger: &Ledger) -> Vec<AuditRecord> {
        ledger.history.audit(None, false, AuditQuery::default(), None, 100).await.unwrap().0
    }

    #[test]
    fn each_committed_change_adds_one_row() {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            let first =
                ledger.registry.put_source(source("a"), (Precondition::Absent, audit("source.create"))).await.unwrap();
            assert!(
                ledger.registry.put_source(source("b"), (Precondition::Absent, audit("source.create"))).await.is_err()
            );
            let second = ledger.registry.put_source(source("b"), Precondition::Version(first)).await.unwrap();
            let id: TenantId = TENANT.parse().unwrap();
            ledger
                .registry
                .remove_source(&id, &source("b").name, (Precondition::Any, audit("source.remove")))
                .await
                .unwrap();
            assert!(!ledger.registry.remove_source(&id, &source("b").name, Precondition::Any).await.unwrap());

            let ledger = reopen(&folder, ledger).await;
            let log = all(&ledger).await;
            let told: Vec<_> = log.iter().map(|r| (r.seq, r.entry.action.as_str())).collect();
            assert_eq!(told, [(4, "source.remove"), (3, "source.update"), (2, "source.create"), (1, "tenant.create")]);
            let made = &log[2].entry;
            assert_eq!((made.version_before, made.version), (None, Some(first)));
            assert_eq!((made.request.as_deref(), made.remote.as_deref()), (Some("req"), Some("192.0.2.1")));
            let changed = &log[1].entry;
            assert_eq!(
                (changed.version_before, changed.version, changed.by),
                (Some(first), Some(second), Originator::Host)
            );
            assert_eq!(changed.changed, ["issuer"]);
            assert_eq!((log[0].entry.version_before, log[0].entry.version), (Some(second), None));
            assert_eq!(log[0].entry.outcome, AuditOutcome::Done);
            let check = checked(&ledger).await;
            assert_eq!(check, AuditCheck { rows: 4, head: log[0].hash, fault: None });
        });
    }

    async fn checked(ledger: &Ledger) -> AuditCheck {
        ledger.store.history_readers().read(verify).await.unwrap()
    }

    #[test]
    fn detects_tampering() {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            for n in 0..4 {
                ledger.registry.put_source(source(&n.to_string()), Precondition::Any).await.unwrap();
            }
            for (sql, words) in [
                ("UPDATE audit SET doc = json_set(doc, '$.by', 'host', '$.note', 'x') WHERE seq = 3", "entry 3"),
                ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
                ("DELETE FROM audit WHERE seq = 5", "ends with entry 4"),
                ("DELETE FROM audit WHERE seq = 1", "entry 1 is missing"),
                ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", "entry 4"),
            ] {
                let copied = copy(&folder);
                let other = open_at(&copied);
                assert_eq!(checked(&other).await.fault, None);
                other.store.queue().write(move |batch| Ok(batch.conn.execute(sql, [])?)).await.unwrap();
                let fault = checked(&other).await.fault.expect(sql);
                assert!(fault.contains(words), "{sql}: {fault}");
            }
        });
    }

    #[test]
    fn retention_preserves_hash_chain() {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            ledger.registry.put_source(source("a"), Precondition::Any).await.unwrap();
            let later = NOW.plus_millis(1_000);
            ledger.store.clock().set(later);
            ledger.registry.put_source(source("b"), Precondition::Any).await.unwrap();
            assert_eq!(ledger.upkeep.retain_audit(NOW).await.unwrap(), 0);
            assert_eq!(ledger.upkeep.retain_audit(later).await.unwrap(), 2);
            let check = checked(&ledger).await;
            assert_eq!((check.rows, check.fault), (1, None));
            // When all rows are gone, the next one still continues the chain.
            assert_eq!(ledger.upkeep.retain_audit(later.plus_millis(1)).await.unwrap(), 1);
            let ledger = reopen(&folder, ledger).await;
            ledger.registry.put_source(source("c"), Precondition::Any).await.unwrap();
            let check = checked(&ledger).await;
            assert_eq!((check.rows, check.fault), (1, None));
            assert_eq!(all(&ledger).await[0].seq, 4);
        });
    }

    #[test]
    fn new_tenant_of_same_name_cannot_read_old_rows() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            ledger.registry.put_source(source("a"), Precondition::Any).await.unwrap();
            let id = tenant().id;
            ledger.registry.remove_tenant(&id, Precondition::Any).await.unwrap();
            with_tenant(&ledger).await;
            ledger.registry.put_source(source("b"), Precondition::Any).await.unwrap();
            let own = ledger.history.audit(Some(&id), true, AuditQuery::default(), None, 100).await.unwrap().0;
            assert_eq!(own.iter().map(|r| r.seq).collect::<Vec<_>>(), [5, 4]);
            let operators = ledger.history.audit(Some(&id), false, AuditQuery::default(), None, 100).await.unwrap().0;
            assert_eq!(operators.len(), 5, "the operator sees both");
            let other: TenantId = "other".parse().unwrap();
            assert!(
                ledger.history.audit(Some(&other), true, AuditQuery::default(), None, 100).await.unwrap().0.is_empty()
            );
        });
    }

    #[test]
    fn pages_and_filters() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            for n in 0..5 {
                ledger.registry.put_source(source(&n.to_string()), Precondition::Any).await.unwrap();
            }
            let object = AuditObject { kind: "delivery".into(), id: "dlv_1".into() };
            let entry = AuditEntry::new(audit("delivery.again"), NOW, Some(tenant().id), object);
            ledger.history.record_audit(entry).await.unwrap();
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let (items, next) =
                    ledger.history.audit(Some(&tenant().id), true, AuditQuery::default(), before, 3).await.unwrap();
                seen.extend(items.iter().map(|r| r.seq));
                before = next;
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
            let count =
                async |query: AuditQuery| ledger.history.audit(None, false, query, None, 100).await.unwrap().0.len();
            let any = AuditQuery::default;
            assert_eq!(count(AuditQuery { kind: Some("source".into()), ..any() }).await, 5);
            assert_eq!(count(AuditQuery { action: Some("source.create".into()), ..any() }).await, 1);
            assert_eq!(count(AuditQuery { object: Some("dlv_1".into()), ..any() }).await, 1);
            assert_eq!(count(AuditQuery { by: Some(Originator::Host), ..any() }).await, 6);
            assert_eq!(count(AuditQuery { since: Some(NOW.plus_millis(1)), ..any() }).await, 0);
            assert_eq!(count(AuditQuery { until: Some(NOW.plus_millis(1)), ..any() }).await, 7);
        });
    }
}
