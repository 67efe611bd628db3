//! The tables, the settings of every connection, and how an older file is brought up to date.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Error, Options, files, sealed_endpoints};
use crate::crypto::MasterKey;

/// Oldest SQLite the ledger runs on, as `sqlite3_libversion_number` writes it: through 3.51.2 a race at the reset of
/// the WAL could lose commits.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Bytes of a page: SQLite's own choice, which no setting here changes.
const PAGE_BYTES: u64 = 4096;

/// The file within the ledger's folder.
pub(super) const FILE: &str = "ledger.db";

/// Each entry brings a file from the schema of its index to the next; `user_version` counts them.
pub(super) const MIGRATIONS: [&str; 14] = [
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
];

/// The schema from which on attempts have a key of their own.
const ATTEMPTS_BY_KEY: i64 = 10;

/// Small columns stand before large ones, so that a scan never walks overflow pages.
///
/// `delivery` and `event` are written for every event, so each index has to earn its place:
/// `event_dedupe` is gone by now (`dedupe.rs`), `event_id` and `delivery_event` grow at
/// their end, the two `_history` indexes end at the page of each tenant that is hot anyway, `delivery_due` and
/// `delivery_rest` hold only rows in the states they ask for. A filter by type, subject or subscription is a bounded
/// scan instead of an index.
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

/// Blobs in parts. Those that are there stay as they are, whole in their row.
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

/// Order within a subject, and since when a subscription fails. The index holds only rows of subscriptions that ask for
/// order, while they wait.
const ORDER: &str = "
ALTER TABLE delivery ADD COLUMN order_key INTEGER;
CREATE INDEX delivery_order ON delivery (subscription, order_key, seq) WHERE order_key IS NOT NULL AND state IN (0, 3);
CREATE TABLE failing (subscription BLOB PRIMARY KEY, tenant TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
";

/// What an attempt sent, and over which connection: JSON, and nothing where an older version recorded the attempt.
const SENT: &str = "
ALTER TABLE attempt ADD COLUMN sent TEXT;
ALTER TABLE attempt ADD COLUMN connection TEXT;
";

/// Counts of minutes and hours. A bucket enters the index once, with its first row; what is counted later leaves it alone.
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

/// Replays. `at` and `seq` are the place of the last event looked at.
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

/// The log of settlements. It grows at its end and is deleted from its begin.
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

/// The audit log. What it is searched by is computed from the entry, so that the two cannot differ.
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

/// An event's place in a trace: 25 bytes and a `tracestate`; null where it is in none, which at the end of the row takes a
/// byte. Whoever reads it reads the bytes before it as well.
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

/// Which bytes of an event are packed (`packed.rs`): bits, none in events of before. Attempts by one integer key, with what is
/// told of them in one text (`attempts.rs`): a table whose rows are its keys' holds them in the inner pages of its tree as
/// well, a few to each. By now those that are there are copied ([`copy_attempts`]).
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

/// The tables of `dedupe.rs`.
pub(super) const DEDUPE_TABLES: &str = dedupe_tables!();

/// The index of dedupe keys in runs, in the place of one that was a tree. Whoever opens it takes the events in that are there.
const DEDUPE: &str = concat!(dedupe_tables!(), "DROP INDEX event_dedupe;");

/// Requests with an `Idempotency-Key`: see `idempotency.rs`.
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

/// What each tenant has stored (`stored.rs`). Whose a blob is: of who put it first; nobody's where it is from before.
const STORED: &str = "
ALTER TABLE blob ADD COLUMN tenant TEXT;
ALTER TABLE blob ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
CREATE TABLE stored (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
";

/// Rows of attempts copied between two commits.
const COPIED_ROWS: i64 = 50_000;

/// Copies the attempts of a ledger of schema 9, a part at a time, each in a transaction of its own: there may be millions, which
/// takes minutes, and a host that is killed meanwhile goes on where it was. Texts are put together as they are, so that one
/// that cannot be read is no reason not to start.
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
        // The WAL is not to become as large as all of them.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        if copied == 0 {
            break;
        }
    }
    if count("attempt_by_key")? != rows {
        // An earlier Setgate has written in between: all over again.
        conn.execute_batch("DROP TABLE attempt_by_key")?;
        return copy_attempts(conn);
    }
    Ok(())
}

/// The schema that this Setgate writes.
pub(super) fn known() -> i64 {
    MIGRATIONS.len() as i64
}

/// Refuses a ledger that a later version wrote.
pub(super) fn refuse_later(found: i64) -> Result<(), Error> {
    let known = known();
    if found > known { Err(Error::Schema { found, known }) } else { Ok(()) }
}

/// Opens the one connection that writes, makes or updates the tables, and checks what durability depends on.
pub(super) fn open_writer(options: &Options) -> Result<Connection, Error> {
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
    // Waits only for a checkpoint or a recovery of our own connections: no other process has the lock file.
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    // Takes effect on an empty file only, so it stands before the first table.
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

/// Moves what was recovered of the WAL into the file and begins a new WAL. What a crash left there may be more than was
/// ever synced, or what a failed sync has lost while memory still shows it: nothing new is to stand behind it. A full
/// disk cannot have made it so, and must not keep the host from starting.
fn move_the_wal(conn: &Connection) -> Result<(), Error> {
    match conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            tracing::warn!(%error, "the ledger's WAL could not be moved into its file at the start; it is tried again");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Opens a connection that can only read.
pub(super) fn open_reader(folder: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(FILE), flags)?;
    leave_the_wal(&conn)?;
    plan_once(&conn)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    // Its pages are void after each commit of the writer, so that more of them would be memory without a use.
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
    )?;
    Ok(conn)
}

/// Opens the connection that moves the WAL into the file. Its size in the cache is what a checkpoint reads, not rows.
pub(super) fn open_checkpointer(folder: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(FILE), flags)?;
    leave_the_wal(&conn)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

/// The last connection that closes runs no checkpoint: after a sync that failed, what it would rely on is not to be
/// believed (`disk.rs`). The writer runs one where all is well.
pub(super) fn leave_the_wal(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// A statement is planned when it is prepared and not again. Else SQLite prepares it anew for each value of a parameter that
/// another plan might suit better, which for a row by its key never is so: it was a tenth of what the writer did, and nine
/// tenths of reading a delivery. What asks for a state, for which there are partial indexes, names it in its text.
fn plan_once(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Bytes of the file that hold something, as this connection sees it.
pub(super) fn used_bytes(conn: &Connection) -> Result<u64, Error> {
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
            // A page that is damaged is no reason not to start: what it held is not charged then.
            if let Err(error) = transaction.execute(&format!("INSERT INTO stored {}", super::stored::RECOUNT), []) {
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

    /// The hot queries run on their indexes: a scan would grow with the history.
    #[test]
    fn hot_queries_use_their_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&Options::new(folder.path())).unwrap();
        for (sql, index) in [
            (super::super::outbox::DUE, "delivery_due"),
            (super::super::outbox::LANES, "delivery_due"),
            (super::super::outbox::DUE, "delivery_order"),
            (super::super::order::LINE, "delivery_order"),
            (super::super::history::DELIVERIES, "delivery_history"),
            (super::super::history::DELIVERIES_AT_REST, "delivery_rest"),
            (&super::super::redrive::oldest_at_rest(), "delivery_rest"),
            (super::super::history::EVENTS, "event_history"),
            (super::super::replays::REPLAY_EVENTS, "event_history"),
            (super::super::tail::SETTLED, "PRIMARY KEY"),
            (super::super::audit::OF_TENANT, "audit_tenant"),
            (super::super::registry::write::NAMED, "entry_name"),
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
