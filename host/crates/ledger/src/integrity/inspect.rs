//! Checks a ledger for inconsistencies: SQLite's own structures, then the invariants listed in `mod.rs`. Reads only, in
//! one transaction, so it can run on a ledger that a host is writing to.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use setgate_base::crypto::sha256;
use setgate_domain::filter::Plan;
use setgate_domain::id::Digest;

use crate::audit;
use crate::dedupe;
use crate::deliveries::attempts;
use crate::registry::blobs;
use crate::registry::plans;
use crate::schema;
use crate::schema::FILE;
use crate::schema::event_row::{EVENT_COLUMNS, read_event};
use crate::schema::sql_types;
use crate::schema::sql_types::ReadColumn;
use crate::state::stored;
use crate::upkeep::backup::is_in_use;
use crate::upkeep::identity;
use crate::{BackupError, Error, Snapshot};

/// Maximum number of faults of one check that are described; further ones are only counted.
pub const FAULTS_LISTED_MAX: usize = 20;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the check.
    pub name: &'static str,
    /// Number of faults.
    pub faults: u64,
    /// Descriptions of the first [`FAULTS_LISTED_MAX`] faults.
    pub details: Vec<String>,
}

/// Result of [`inspect`].
pub struct Inspection {
    /// All checks, with or without faults.
    pub checks: Vec<Check>,
    /// The documents, if they can be read.
    pub snapshot: Option<Snapshot>,
    /// The readable plans of deliveries.
    pub plans: Vec<Plan>,
    /// Fingerprint of the master key that the ledger belongs to.
    pub master_key: Option<String>,
}

impl Check {
    /// A check with the given faults.
    pub fn new(name: &'static str, faults: Vec<String>) -> Self {
        let count = faults.len() as u64;
        Self { name, faults: count, details: faults.into_iter().take(FAULTS_LISTED_MAX).collect() }
    }

    fn of(name: &'static str, result: Result<Vec<String>, Error>) -> Self {
        Self::new(name, result.unwrap_or_else(|error| vec![format!("the check could not run: {error}")]))
    }
}

/// Subscriptions with a `tally` that differs from their delivery rows.
const TALLY: &str = "
SELECT coalesce(t.tenant, d.tenant) || '/' || lower(hex(coalesce(t.subscription, d.subscription))) || ': `tally` has '
    || concat_ws(' ', coalesce(t.due, 0), coalesce(t.delivered, 0), coalesce(t.dropped, 0), coalesce(t.held, 0), coalesce(t.dead, 0))
    || ', the rows have ' || concat_ws(' ', coalesce(s0, 0), coalesce(s1, 0), coalesce(s2, 0), coalesce(s3, 0), coalesce(s4, 0))
FROM tally t FULL JOIN (
    SELECT tenant, subscription, sum(state = 0) s0, sum(state = 1) s1, sum(state = 2) s2, sum(state = 3) s3, sum(state = 4) s4
    FROM delivery GROUP BY tenant, subscription) d ON t.tenant = d.tenant AND t.subscription = d.subscription
WHERE (coalesce(t.due, 0), coalesce(t.delivered, 0), coalesce(t.dropped, 0), coalesce(t.held, 0), coalesce(t.dead, 0))
    <> (coalesce(s0, 0), coalesce(s1, 0), coalesce(s2, 0), coalesce(s3, 0), coalesce(s4, 0))";

/// Plans with a `refs` that differs from the number of their deliveries, and deliveries without a plan.
const REFS: &str = "
SELECT 'plan ' || lower(hex(p.digest)) || ': `refs` is ' || p.refs || ', but the number of its deliveries is ' || coalesce(d.n, 0)
FROM plan p LEFT JOIN (SELECT plan, count(*) n FROM delivery GROUP BY plan) d ON d.plan = p.id WHERE p.refs <> coalesce(d.n, 0)
UNION ALL
SELECT 'delivery ' || seq || ': its plan is missing' FROM delivery WHERE plan NOT IN (SELECT id FROM plan)";

/// Tenants whose recorded bytes differ from the sum over their rows.
fn stored_faults(conn: &Connection) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT coalesce(s.tenant, r.tenant) || ': ' || coalesce(s.bytes, 0) || ' bytes are recorded, but the rows have '
             || coalesce(r.bytes, 0)
         FROM tenant_usage s FULL JOIN ({}) r ON r.tenant = s.tenant WHERE coalesce(s.bytes, 0) <> coalesce(r.bytes, 0)",
        stored::RECOUNT
    );
    lines(conn, &sql)
}

/// Rows without their parent row.
const ORPHANS: &str = "
SELECT 'delivery ' || d.seq || ': its event is missing' FROM delivery d LEFT JOIN event e ON e.seq = d.event_seq
WHERE e.seq IS NULL OR e.id <> d.event_id
UNION ALL
SELECT 'attempt ' || (a.id & 1048575) || ' of delivery ' || (a.id >> 20) || ': its delivery is missing' FROM attempt a
WHERE a.id >> 20 NOT IN (SELECT seq FROM delivery)
UNION ALL
SELECT 'filter output ' || f.delivery || ': its delivery is missing' FROM filter_output f WHERE f.delivery NOT IN (SELECT seq FROM delivery)
UNION ALL
SELECT 'signed SET ' || s.delivery || ': its delivery is missing' FROM signed_set s WHERE s.delivery NOT IN (SELECT seq FROM delivery)";

/// A cursor that is missing or beyond the end of the journal.
const CURSOR: &str = "
SELECT 'the cursor ' || m.value || ' is beyond the last event ' || coalesce(s.seq, 0)
FROM mark m LEFT JOIN sqlite_sequence s ON s.name = 'event' WHERE m.name = 'cursor' AND m.value > coalesce(s.seq, 0)
UNION ALL
SELECT 'the cursor is missing' WHERE NOT EXISTS (SELECT 1 FROM mark WHERE name = 'cursor')";

/// Checks the ledger in a folder, or a backup. Blocks for as long as reading the whole file takes. Meanwhile the WAL of
/// a running host cannot be reset and grows.
pub fn inspect(folder: &Path) -> Result<Inspection, BackupError> {
    if !folder.join(FILE).is_file() {
        return Err(BackupError::NoLedger(folder.to_owned()));
    }
    let mut found = Inspection { checks: Vec::new(), snapshot: None, plans: Vec::new(), master_key: None };
    let conn = match open(folder) {
        // Damaged to the point that not even the schema can be read.
        Err(error) if error.is_damage() => {
            found.checks.push(Check::of("integrity", Err(error)));
            return Ok(found);
        }
        opened => opened?,
    };
    let transaction = conn.unchecked_transaction()?;
    let integrity = lines(&conn, &format!("PRAGMA integrity_check({FAULTS_LISTED_MAX})"))
        .map(|lines| lines.into_iter().filter(|line| line != "ok").collect());
    found.checks.push(Check::of("integrity", integrity));
    let schema = schema_fault(&conn);
    let is_known = matches!(&schema, Ok(faults) if faults.is_empty());
    found.checks.push(Check::of("schema", schema));
    if !is_known {
        // The following queries are written for the current schema.
        return Ok(found);
    }
    for (name, sql) in [("tally", TALLY), ("refs", REFS), ("rows", ORPHANS), ("cursor", CURSOR)] {
        found.checks.push(Check::of(name, lines(&conn, sql)));
    }
    found.checks.push(Check::of("stored", stored_faults(&conn)));
    found.checks.push(Check::of("events", check_events(&conn)));
    found.checks.push(Check::of("dedupe", dedupe::faults(&conn, FAULTS_LISTED_MAX)));
    found.checks.push(Check::of("attempts", attempts::unreadable(&conn, FAULTS_LISTED_MAX)));
    let snapshot = Snapshot::load(&conn, 0);
    let unreadable = snapshot.as_ref().err().map(ToString::to_string);
    found.checks.push(Check::new("documents", unreadable.into_iter().collect()));
    found.snapshot = snapshot.ok();
    let mut plans = Vec::new();
    found.checks.push(Check::of("plans", check_plans(&conn, &mut plans)));
    found.checks.push(Check::of("blobs", check_blobs(&conn, found.snapshot.as_ref(), &plans)));
    found.checks.push(Check::of("audit", audit::verify(&conn).map(|log| log.fault.into_iter().collect())));
    found.plans = plans;
    found.master_key = conn
        .query_row("SELECT value FROM meta WHERE name = 'master key'", [], |row| row.get::<_, Vec<u8>>(0))
        .optional()
        .ok()
        .flatten()
        .map(|key| String::from_utf8_lossy(&key).into_owned());
    drop(transaction);
    Ok(found)
}

/// Opens a read connection. If no file can be written next to the database, as on a read-only mount, the file is opened
/// without its shared-memory index.
fn open(folder: &Path) -> Result<Connection, Error> {
    let conn = schema::open_reader(folder)?;
    match conn.query_row("PRAGMA user_version", [], |_| Ok(())) {
        Err(error) if !is_in_use(folder) => {
            tracing::debug!(%error, "the ledger is read without its shared-memory index");
            identity::open_untouched(folder)
        }
        _ => Ok(conn),
    }
}

fn lines(conn: &Connection, sql: &str) -> Result<Vec<String>, Error> {
    let mut statement = conn.prepare(sql)?;
    let lines = statement.query_map([], |row| row.get(0))?;
    Ok(lines.collect::<Result<_, _>>()?)
}

fn schema_fault(conn: &Connection) -> Result<Vec<String>, Error> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = schema::version();
    if let Err(later) = schema::check_version(found) {
        return Ok(vec![later.to_string()]);
    }
    let older = (found != known).then(|| {
        format!(
            "an earlier version of Setgate wrote the ledger: its schema version is {found}, and this version's is {known}. \
             Start a host of this version once to migrate it, or check it with the version that wrote it"
        )
    });
    Ok(older.into_iter().collect())
}

/// Reads every event, which verifies the checksums of its compressed columns.
fn check_events(conn: &Connection) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT {EVENT_COLUMNS} FROM event e");
    sql_types::unreadable(conn, &sql, read_event, |seq| format!("event {seq}"), FAULTS_LISTED_MAX)
}

fn check_plans(conn: &Connection, plans: &mut Vec<Plan>) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    let mut statement = conn.prepare("SELECT digest, doc FROM plan")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (digest, doc): (Digest, String) = (row.column(0)?, row.get(1)?);
        if sha256(doc.as_bytes()) != digest.0 {
            faults.push(format!("plan {digest}: its text does not match its digest"));
        }
        match plans::parse(&digest, &doc) {
            Ok(plan) => plans.push(plan),
            Err(error) => faults.push(error.to_string()),
        }
    }
    Ok(faults)
}

/// Verifies the digest of every blob, and that every blob referred to by filters, tables and plans exists.
fn check_blobs(conn: &Connection, snapshot: Option<&Snapshot>, plans: &[Plan]) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    let mut existing = BTreeSet::new();
    let mut statement = conn.prepare("SELECT digest FROM blob")?;
    let digests = statement.query_map([], |row| row.column::<Digest>(0))?.collect::<Result<Vec<_>, _>>()?;
    for digest in digests {
        if blobs::read(conn, &digest)?.is_none_or(|body| sha256(&body) != digest.0) {
            faults.push(format!("blob {digest}: its content does not match its digest"));
        }
        existing.insert(digest);
    }
    let mut referenced = BTreeSet::new();
    for view in snapshot.iter().flat_map(|snapshot| snapshot.tenants.values()) {
        referenced.extend(view.filters.values().flat_map(|filter| filter.value.versions.iter().map(|v| v.digest)));
        referenced.extend(view.tables.values().flat_map(|table| table.value.digests()));
    }
    for plan in plans {
        referenced.extend(plan.steps.iter().map(|step| step.digest));
        referenced.extend(plan.tables.values().copied());
    }
    faults.extend(
        referenced
            .difference(&existing)
            .map(|digest| format!("blob {digest}: a filter, table or plan refers to it, but it is missing")),
    );
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use crate::schema::sql_types::params;

    use super::*;
    use crate::tests::{TENANT, block_on, event, new_delivery, open, tenant, with_events};
    use crate::{FanOut, Ledger};
    use setgate_domain::event::EventSeq;

    async fn filled() -> (tempfile::TempDir, Ledger) {
        let (folder, ledger) = open();
        let plan = with_events(&ledger, 3).await;
        ledger.blobs.put(&tenant().id, vec![7; 300 << 10].into()).await.unwrap();
        let deliveries = (1..=2).map(|n| new_delivery(n, 1, plan)).collect();
        ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
        assert_eq!((event(1).tenant.as_str(), tenant().id.as_str()), (TENANT, TENANT));
        (folder, ledger)
    }

    fn faulty(folder: &Path) -> Vec<&'static str> {
        let found = inspect(folder).unwrap();
        found.checks.iter().filter(|check| check.faults > 0).map(|check| check.name).collect()
    }

    #[test]
    fn open_ledger_has_no_faults() {
        block_on(async {
            let (folder, _ledger) = filled().await;
            let found = inspect(folder.path()).unwrap();
            let names: Vec<_> = found.checks.iter().map(|check| check.name).collect();
            let all =
                "integrity schema tally refs rows cursor stored events dedupe attempts documents plans blobs audit";
            assert_eq!(names, all.split(' ').collect::<Vec<_>>());
            assert!(found.checks.iter().all(|check| check.faults == 0), "{:?}", found.checks);
            assert_eq!(found.snapshot.unwrap().tenants.len(), 1);
        });
    }

    /// Each invariant, broken by hand, is reported by its own check and no other.
    #[test]
    fn each_broken_invariant_is_reported() {
        block_on(async {
            let cases: [(&str, &str, &str); 14] = [
                ("tally", "UPDATE tally SET due = due + 1", "the rows have 2"),
                ("tally", "DELETE FROM tally", "`tally` has 0"),
                ("refs", "UPDATE plan SET refs = 9", "`refs` is 9"),
                ("rows", "DELETE FROM event WHERE seq = 1", "its event is missing"),
                ("stored", "UPDATE tenant_usage SET bytes = bytes + 1", "bytes are recorded, but the rows have"),
                ("cursor", "UPDATE mark SET value = 99 WHERE name = 'cursor'", "is beyond the last event 3"),
                ("events", "UPDATE event SET compressed = 3 WHERE seq = 2", "event 2: "),
                ("dedupe", "UPDATE event SET dedupe_hash = 9 WHERE seq = 2", "event 2: its dedupe hash"),
                ("dedupe", "INSERT INTO dedupe_run VALUES (9, 0, 3, 3)", "are incomplete"),
                ("attempts", "INSERT INTO attempt VALUES (1 << 20 | 1, 0, 0, '{}')", "attempt 1 of delivery 1: "),
                ("documents", "UPDATE document SET doc = '{}' WHERE kind = 'tenant'", "tenant"),
                ("plans", "UPDATE plan SET doc = replace(doc, '{', '{ ')", "does not match its digest"),
                (
                    "blobs",
                    "UPDATE blob_part SET body = zeroblob(length(body)) WHERE number = 1",
                    "does not match its digest",
                ),
                ("audit", "UPDATE audit SET doc = replace(doc, '{', '{ ')", "the hash chain does not match"),
            ];
            for (name, sql, text) in cases {
                let (folder, ledger) = filled().await;
                ledger.shutdown().await;
                let conn = Connection::open(folder.path().join(FILE)).unwrap();
                assert!(conn.execute(sql, params![]).unwrap() > 0, "{sql}");
                drop(conn);
                // A row added, removed or enlarged by hand also makes the `stored` sums wrong.
                let found: Vec<_> =
                    faulty(folder.path()).into_iter().filter(|fault| *fault != "stored" || name == "stored").collect();
                assert_eq!(found, [name], "{sql}");
                let found = inspect(folder.path()).unwrap();
                let check = found.checks.iter().find(|check| check.name == name).unwrap();
                assert!(check.details[0].contains(text), "{sql}: {:?}", check.details);
            }
        });
    }

    #[test]
    fn damaged_page_is_reported() {
        block_on(async {
            let (folder, ledger) = filled().await;
            ledger.shutdown().await;
            let file = folder.path().join(FILE);
            let mut bytes = std::fs::read(&file).unwrap();
            // After the first page, which holds the schema.
            let at = bytes.len() / 2;
            bytes[at..at + 4096].fill(0xa5);
            std::fs::write(&file, bytes).unwrap();
            assert!(faulty(folder.path()).contains(&"integrity"));
        });
    }
}
