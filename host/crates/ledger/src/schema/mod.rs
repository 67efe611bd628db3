//! Tables, connection settings and migrations.

pub(crate) mod compression;
pub(crate) mod files;
pub(crate) mod readers;
pub(crate) mod sql_types;
pub(crate) mod statements;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use setgate_base::crypto::MasterKey;

use crate::{Error, Options, sealed_endpoints};

/// Oldest supported SQLite, as `sqlite3_libversion_number` encodes it. Up to 3.51.2, a race during the WAL reset could
/// lose commits.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// SQLite's default page size, which no setting here changes.
const PAGE_BYTES: u64 = 4096;

/// Name of the database file within the ledger's folder.
pub(crate) const FILE: &str = "ledger.db";

/// Entry `i` migrates a file from schema `i` to `i + 1`; `user_version` is the number applied.
pub(crate) const MIGRATIONS: [&str; 15] = [
    V1,
    V2,
    ORDER,
    SENT,
    STATISTICS,
    REPLAYS,
    SETTLED,
    AUDIT,
    TRACE,
    PACKED,
    DEDUPE,
    IDEMPOTENCY,
    sealed_endpoints::STEP,
    STORED,
    WEIGHED,
];

/// First schema that stores attempts under a single integer key.
const ATTEMPTS_BY_KEY: i64 = 10;

/// Small columns come before large ones, so that a scan never follows overflow pages.
///
/// `delivery` and `event` are written for every event, so each index must justify its cost: `event_dedupe` has been
/// replaced (`dedupe.rs`), `event_id` and `delivery_event` grow at their end, the two `_history` indexes append to one
/// page per tenant that is hot anyway, and `delivery_due` and `delivery_rest` hold only rows in the states they cover.
/// A filter by type, subject or subscription is a bounded scan instead of an index.
const V1: &str = "
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    dedupe_hash INTEGER NOT NULL,
    dedupe_key BLOB NOT NULL,
    dedupe_body BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    jti TEXT NOT NULL,
    types TEXT NOT NULL,
    subject TEXT,
    content_type TEXT NOT NULL,
    set_text TEXT NOT NULL,
    original BLOB
);
CREATE UNIQUE INDEX event_id ON event (id);
CREATE INDEX event_dedupe ON event (dedupe_hash);
CREATE INDEX event_history ON event (tenant, accepted_at);

CREATE TABLE plan (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    refs INTEGER NOT NULL,
    interned_at INTEGER NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_seq INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    subscription BLOB NOT NULL,
    run INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    state INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    plan INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    attempts_before INTEGER NOT NULL,
    filter_tries INTEGER NOT NULL,
    filtered INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    reason TEXT
);
CREATE UNIQUE INDEX delivery_event ON delivery (event_seq, subscription, run);
CREATE INDEX delivery_due ON delivery (subscription, due_at) WHERE state = 0;
CREATE INDEX delivery_rest ON delivery (tenant, state, created_at) WHERE state IN (3, 4);
CREATE INDEX delivery_history ON delivery (tenant, created_at);

CREATE TABLE filtered (
    delivery INTEGER PRIMARY KEY,
    claims TEXT,
    runs TEXT NOT NULL
);

CREATE TABLE attempt (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    signed_with TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

CREATE TABLE tally (
    tenant TEXT NOT NULL,
    subscription BLOB NOT NULL,
    due INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    held INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (tenant, subscription)
) WITHOUT ROWID;

CREATE TABLE entry (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, id)
) WITHOUT ROWID;

CREATE TABLE blob (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    put_at INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO mark VALUES ('cursor', 0), ('revision', 0);

CREATE TABLE purge (tenant TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// Stores blobs in parts. Blobs written before stay whole in their row.
const V2: &str = "
CREATE TABLE blob_part (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    put_at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX blob_part_of ON blob_part (digest, number);
";

/// Order within a subject, and failure streaks of subscriptions. The index holds only unfinished rows of subscriptions
/// with ordered delivery.
const ORDER: &str = "
ALTER TABLE delivery ADD COLUMN order_key INTEGER;
CREATE INDEX delivery_order ON delivery (subscription, order_key, seq) WHERE order_key IS NOT NULL AND state IN (0, 3);
CREATE TABLE failing (subscription BLOB PRIMARY KEY, tenant TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
";

/// The request an attempt sent, and its connection, as JSON. Null in attempts that an older version recorded.
const SENT: &str = "
ALTER TABLE attempt ADD COLUMN sent TEXT;
ALTER TABLE attempt ADD COLUMN connection TEXT;
";

/// Counters per minute and hour. Only the first write of a bucket changes the index; later updates do not.
const STATISTICS: &str = "
CREATE TABLE statistic (
    tenant TEXT NOT NULL,
    subscription BLOB NOT NULL,
    bucket_ms INTEGER NOT NULL,
    at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (tenant, subscription, bucket_ms, at)
) WITHOUT ROWID;
CREATE INDEX statistic_age ON statistic (bucket_ms, at);
";

/// Replays. `at` and `seq` are the position of the last event examined.
const REPLAYS: &str = "
CREATE TABLE replay (
    id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    state INTEGER NOT NULL,
    last INTEGER NOT NULL,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    made INTEGER NOT NULL,
    passed_over INTEGER NOT NULL,
    ended_at INTEGER,
    reason TEXT,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX replay_of ON replay (tenant, id);
CREATE INDEX replay_running ON replay (state, id) WHERE state = 0;
";

/// The settlement log. Rows are appended at its end and deleted from its start.
const SETTLED: &str = "
CREATE TABLE settled (
    batch INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (batch, tenant)
) WITHOUT ROWID;
INSERT INTO mark VALUES ('settled', 0), ('settled_floor', 0);
";

/// The audit log. The searchable columns are computed from the document, so the two cannot disagree.
const AUDIT: &str = "
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL,
    doc TEXT NOT NULL,
    tenant TEXT AS (doc ->> '$.tenant'),
    action TEXT AS (doc ->> '$.action')
);
CREATE INDEX audit_tenant ON audit (tenant);
CREATE INDEX audit_made ON audit (tenant) WHERE action = 'tenant.create';
";

/// Trace context of an event: 25 bytes and a `tracestate`, or null, which costs one byte at the end of the row. Reading
/// it means reading the columns before it as well.
const TRACE: &str = "ALTER TABLE event ADD COLUMN trace BLOB";

macro_rules! attempt_by_key {
    () => {
        "CREATE TABLE IF NOT EXISTS attempt_by_key (
            id INTEGER PRIMARY KEY,
            at INTEGER NOT NULL,
            latency_us INTEGER NOT NULL,
            told NOT NULL
        );"
    };
}

/// `packed` has a bit for each compressed column of an event (`packed.rs`); 0 in older events. Attempts move to one
/// integer key with one document per attempt (`attempts.rs`): a WITHOUT ROWID table stores whole rows in the interior
/// pages of its tree too, with only a few per page. Existing attempts have been copied before this step
/// ([`copy_attempts`]).
const PACKED: &str = concat!(
    attempt_by_key!(),
    "ALTER TABLE event ADD COLUMN packed INTEGER NOT NULL DEFAULT 0;
     DROP TABLE attempt;
     ALTER TABLE attempt_by_key RENAME TO attempt;"
);

macro_rules! dedupe_tables {
    () => {
        "CREATE TABLE dedupe_run (
            id INTEGER PRIMARY KEY,
            level INTEGER NOT NULL,
            last_seq INTEGER NOT NULL,
            entries INTEGER NOT NULL
        );
        CREATE TABLE dedupe_part (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
        CREATE TABLE dedupe_head (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    };
}

/// Tables of the dedupe index (`dedupe.rs`).
pub(crate) const DEDUPE_TABLES: &str = dedupe_tables!();

/// Replaces the B-tree index of dedupe keys by an index of runs. Existing events are added when the index is opened.
const DEDUPE: &str = concat!(dedupe_tables!(), "DROP INDEX event_dedupe;");

/// Requests with an `Idempotency-Key` header (`idempotency.rs`).
const IDEMPOTENCY: &str = "
CREATE TABLE idempotency (
    id INTEGER PRIMARY KEY,
    claim BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    request BLOB NOT NULL,
    answer TEXT
);
CREATE INDEX idempotency_tenant ON idempotency (tenant, bytes);
CREATE INDEX idempotency_at ON idempotency (at);
";

/// Bytes of unfinished uploads per tenant (`stored.rs`). Created together with `stored`, which is filled from it.
macro_rules! upload_table {
    () => {
        "CREATE TABLE IF NOT EXISTS upload (
            digest BLOB NOT NULL,
            tenant TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            PRIMARY KEY (digest, tenant)
        ) WITHOUT ROWID;"
    };
}

/// Bytes stored per tenant (`stored.rs`). A blob is charged to the tenant that stored it first, and to none if it
/// predates this column.
const STORED: &str = concat!(
    "ALTER TABLE blob ADD COLUMN tenant TEXT;
     ALTER TABLE blob ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE stored (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;",
    upload_table!()
);

/// Memory that a delivery needs while it is in flight, in bytes; 0 in older rows. Parts of unfinished uploads are charged
/// to their tenants, except parts that predate this schema.
const WEIGHED: &str = concat!("ALTER TABLE delivery ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;", upload_table!());

/// Attempts copied per transaction.
const COPIED_ROWS: i64 = 50_000;

/// Copies the attempts of a schema 9 ledger in chunks, each in its own transaction: there may be millions, which takes
/// minutes, and a host killed meanwhile resumes at the last chunk. The JSON is concatenated without parsing, so a
/// document that cannot be read does not prevent the start.
fn copy_attempts(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(attempt_by_key!())?;
    let count = |table: &str| conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    let rows = count("attempt")?;
    if rows > COPIED_ROWS {
        tracing::info!(
            rows,
            "the ledger of an earlier Setgate is brought up to date: attempts are copied, which may take minutes"
        );
    }
    loop {
        let (delivery, number): (i64, i64) = conn.query_row(
            "SELECT coalesce(max(id), 0) >> 20, coalesce(max(id), 0) & 1048575 FROM attempt_by_key",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let copied = conn.execute(
            "INSERT INTO attempt_by_key
             SELECT delivery << 20 | number, at, latency_us, '{\"outcome\":' || outcome || ',\"signed_with\":' || signed_with
                 || ',\"sent\":' || coalesce(sent, 'null') || ',\"connection\":' || coalesce(connection, 'null') || '}'
             FROM attempt WHERE (delivery, number) > (?1, ?2) ORDER BY delivery, number LIMIT ?3",
            [delivery, number, COPIED_ROWS],
        )?;
        // Keeps the WAL from growing to the size of the whole table.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        if copied == 0 {
            break;
        }
    }
    if count("attempt_by_key")? != rows {
        // An earlier version of Setgate wrote attempts in between: start over.
        conn.execute_batch("DROP TABLE attempt_by_key")?;
        return copy_attempts(conn);
    }
    Ok(())
}

/// Schema version written by this build.
pub(crate) fn known() -> i64 {
    MIGRATIONS.len() as i64
}

/// Refuses a ledger written by a later version.
pub(crate) fn refuse_later(found: i64) -> Result<(), Error> {
    let known = known();
    if found > known { Err(Error::Schema { found, known }) } else { Ok(()) }
}

/// Opens the only write connection, creates or migrates the tables, and verifies the settings that durability depends
/// on.
pub(crate) fn open_writer(options: &Options) -> Result<Connection, Error> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(Error::EngineVersion { found: rusqlite::version() });
    }
    let mut conn = connect_writer(options)?;
    migrate(&conn, options.master.as_deref())?;
    if sealed_endpoints::is_due(&conn)? {
        sealed_endpoints::rewrite(conn, &options.path)?;
        conn = connect_writer(options)?;
    }
    expect(&conn, "auto_vacuum", "auto_vacuum", "2")?;
    move_the_wal(&conn)?;
    Ok(conn)
}

fn connect_writer(options: &Options) -> Result<Connection, Error> {
    let file = options.path.join(FILE);
    files::begin_private(&file).map_err(|source| Error::Folder { path: file.clone(), source })?;
    let conn = Connection::open(file)?;
    leave_the_wal(&conn)?;
    plan_once(&conn)?;
    conn.set_prepared_statement_cache_capacity(128);
    // Only a checkpoint or a recovery by our own connections can make it wait: no other process holds the lock file.
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    // Only takes effect on an empty file, so it comes before the first table is created.
    conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    expect(&conn, "journal_mode = WAL", "journal_mode", "wal")?;
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {};
         PRAGMA cache_size = -{};
         PRAGMA temp_store = MEMORY;
         PRAGMA secure_delete = FAST;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
        u64::from(options.wal_pages_max) * 4096,
        options.cache_bytes / 1024,
    ))?;
    expect(&conn, "synchronous", "synchronous", "2")?;
    Ok(conn)
}

/// Checkpoints the recovered WAL into the file and starts a new one. After a crash the WAL may hold frames that were
/// never synced, or that a failed fsync lost although the page cache still shows them: no new frames may follow those.
/// A full disk cannot cause this, so it must not prevent the start.
fn move_the_wal(conn: &Connection) -> Result<(), Error> {
    match conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            tracing::warn!(%error, "the ledger's WAL could not be moved into its file at the start; it is tried again");
            Ok(())
        }
        other => Ok(other?),
    }
}

pub(crate) fn open_reader(folder: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(FILE), flags)?;
    leave_the_wal(&conn)?;
    plan_once(&conn)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    // Each commit of the writer invalidates the cached pages, so a larger cache would only waste memory.
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
    )?;
    Ok(conn)
}

/// Opens the connection that checkpoints the WAL. Its cache is not sized, because a checkpoint reads WAL frames rather
/// than rows.
pub(crate) fn open_checkpointer(folder: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(FILE), flags)?;
    leave_the_wal(&conn)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

/// Disables the checkpoint when the last connection closes: after a failed fsync the pages it would copy cannot be
/// trusted (`disk.rs`). The writer checkpoints explicitly if the disk is healthy.
pub(crate) fn leave_the_wal(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Plans a statement once, when it is prepared. Otherwise SQLite prepares it again whenever a parameter value might
/// favour another plan, which never applies to lookups by key: this cost a tenth of the writer's time and nine tenths
/// of reading a delivery. Queries that need a partial index therefore write the state as a literal.
fn plan_once(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Bytes of the file in use, as seen by this connection.
pub(crate) fn used_bytes(conn: &Connection) -> Result<u64, Error> {
    let number = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let used = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(used).unwrap_or(0) * PAGE_BYTES)
}

fn expect(conn: &Connection, pragma: &str, name: &'static str, wanted: &str) -> Result<(), Error> {
    let found = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        })
    })?;
    if found == wanted { Ok(()) } else { Err(Error::Setting { name, found }) }
}

fn migrate(conn: &Connection, master: Option<&MasterKey>) -> Result<(), Error> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = known();
    let Some(steps) = usize::try_from(found).ok().and_then(|from| MIGRATIONS.get(from..)) else {
        return Err(Error::Schema { found, known });
    };
    for (step, to) in steps.iter().zip(found + 1..) {
        if to == ATTEMPTS_BY_KEY {
            copy_attempts(conn)?;
        }
        if to == sealed_endpoints::SCHEMA {
            sealed_endpoints::redact_attempts(conn)?;
        }
        let transaction = conn.unchecked_transaction()?;
        if to == sealed_endpoints::SCHEMA {
            sealed_endpoints::seal(conn, master)?;
        }
        transaction.execute_batch(step)?;
        if *step == STORED {
            // A damaged page must not prevent the start; its content is then not charged.
            if let Err(error) =
                transaction.execute(&format!("INSERT INTO stored {}", crate::state::stored::RECOUNT), [])
            {
                tracing::warn!(%error, "the bytes that tenants have stored could not be counted: counting begins at 0");
            }
        }
        transaction.execute_batch(&format!("PRAGMA user_version = {to}"))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_ledger_of_a_later_schema() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path());
        open_writer(&options).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(
            matches!(open_writer(&options), Err(Error::Schema { found: 99, known }) if known == MIGRATIONS.len() as i64)
        );
    }

    /// The hot queries must use their indexes: a scan would become slower as the history grows.
    #[test]
    fn hot_queries_use_their_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&Options::new(folder.path())).unwrap();
        for (sql, index) in [
            (crate::deliveries::outbox::DUE, "delivery_due"),
            (crate::deliveries::outbox::LANES, "delivery_due"),
            (crate::deliveries::outbox::DUE, "delivery_order"),
            (crate::deliveries::fifo::LINE, "delivery_order"),
            (crate::history::queries::DELIVERIES, "delivery_history"),
            (crate::history::queries::DELIVERIES_AT_REST, "delivery_rest"),
            (&crate::deliveries::redrive::oldest_at_rest(), "delivery_rest"),
            (crate::history::queries::EVENTS, "event_history"),
            (crate::deliveries::replays::REPLAY_EVENTS, "event_history"),
            (crate::history::settlement_log::SETTLED, "PRIMARY KEY"),
            (crate::history::audit::OF_TENANT, "audit_tenant"),
            (crate::registry::write::NAMED, "entry_name"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = statement.parameter_count();
            let nothing = vec![rusqlite::types::Null; count];
            let steps: Vec<String> = statement
                .query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let plan = steps.join("; ");
            assert!(plan.contains(index), "{sql}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }
}
