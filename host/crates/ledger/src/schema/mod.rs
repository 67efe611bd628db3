//! The file: its schema version, migrations and the settings of connections.

pub(crate) mod compression;
pub(crate) mod event_row;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod readers;
pub(crate) mod sql_types;
pub(crate) mod statements;
pub(crate) mod tables;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::schema::tables::MIGRATIONS;
use crate::{Error, Options};

/// Oldest supported SQLite, as `sqlite3_libversion_number` encodes it. Up to 3.51.2, a race during the WAL reset could
/// lose commits.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// SQLite's default page size, which no setting here changes.
const PAGE_BYTES: u64 = 4096;

/// Name of the database file within the ledger's folder.
pub(crate) const FILE: &str = "ledger.db";

/// Schema version written by this build.
pub(crate) fn version() -> i64 {
    MIGRATIONS.len() as i64
}

/// Refuses a ledger written by a later version.
pub(crate) fn check_version(found: i64) -> Result<(), Error> {
    let known = version();
    if found > known { Err(Error::Schema { found, known }) } else { Ok(()) }
}

/// Opens the only write connection, creates or migrates the tables, and verifies the settings that durability depends
/// on.
pub(crate) fn open_writer(options: &Options) -> Result<Connection, Error> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(Error::EngineVersion { found: rusqlite::version() });
    }
    let conn = connect_writer(options)?;
    migrate(&conn)?;
    expect(&conn, "auto_vacuum", "auto_vacuum", "2")?;
    checkpoint_at_start(&conn)?;
    Ok(conn)
}

fn connect_writer(options: &Options) -> Result<Connection, Error> {
    let file = options.path.join(FILE);
    files::create_private(&file).map_err(|source| Error::Folder { path: file.clone(), source })?;
    let conn = Connection::open(file)?;
    disable_checkpoint_on_close(&conn)?;
    fix_query_plans(&conn)?;
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
fn checkpoint_at_start(conn: &Connection) -> Result<(), Error> {
    match conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            tracing::warn!(%error, "the checkpoint at the start failed because the disk is full; it is retried");
            Ok(())
        }
        other => Ok(other?),
    }
}

pub(crate) fn open_reader(folder: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(folder.join(FILE), flags)?;
    disable_checkpoint_on_close(&conn)?;
    fix_query_plans(&conn)?;
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
    disable_checkpoint_on_close(&conn)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

/// Disables the checkpoint when the last connection closes: after a failed fsync the pages it would copy cannot be
/// trusted (`state/disk.rs`). The writer checkpoints explicitly if the disk is healthy.
pub(crate) fn disable_checkpoint_on_close(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Plans a statement once, when it is prepared. Otherwise SQLite prepares it again whenever a parameter value might
/// favour another plan, which never applies to lookups by key: this cost a tenth of the writer's time and nine tenths
/// of reading a delivery. Queries that need a partial index therefore write the state as a literal.
fn fix_query_plans(conn: &Connection) -> Result<(), Error> {
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
    if found == wanted { Ok(()) } else { Err(Error::PragmaRefused { name, found }) }
}

fn migrate(conn: &Connection) -> Result<(), Error> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let Some(steps) = usize::try_from(found).ok().and_then(|from| MIGRATIONS.get(from..)) else {
        return Err(Error::Schema { found, known: version() });
    };
    for (step, to) in steps.iter().zip(found + 1..) {
        let transaction = conn.unchecked_transaction()?;
        transaction.execute_batch(step)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {to}"))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use setgate_base::clock::Clock;

    use super::*;
    use crate::Ledger;
    use crate::tests::NOW;

    #[test]
    fn later_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path());
        open_writer(&options).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(
            matches!(open_writer(&options), Err(Error::Schema { found: 99, known }) if known == MIGRATIONS.len() as i64)
        );
    }

    /// Every earlier version is migrated when the ledger is opened, and its documents stay readable.
    #[test]
    fn earlier_versions_are_migrated() {
        for version in 1..MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let old = Connection::open(folder.path().join(FILE)).unwrap();
            old.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").unwrap();
            MIGRATIONS[..version].iter().for_each(|step| old.execute_batch(step).unwrap());
            // As version 1 wrote it.
            let tenant = r#"{"id":"acme","display_name":null,"quota":null,"created_at":"2026-01-01T00:00:00.000Z"}"#;
            old.execute("INSERT INTO document VALUES ('tenant', 'acme', 'acme', 1, ?1)", [tenant]).unwrap();
            old.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
            drop(old);
            crate::tests::block_on(async {
                let ledger = Ledger::open(Options::new(folder.path()), Clock::manual(NOW)).unwrap();
                assert_eq!(ledger.registry.snapshot().tenants.len(), 1);
                ledger.shutdown().await;
            });
            let found = crate::inspect(folder.path()).unwrap();
            assert!(found.checks.iter().all(|check| check.faults == 0), "from {version}: {:?}", found.checks);
            let fresh = tempfile::tempdir().unwrap();
            drop(open_writer(&Options::new(fresh.path())).unwrap());
            assert_eq!(tables(folder.path()), tables(fresh.path()), "from {version}");
        }
    }

    /// The script of each table and index.
    fn tables(folder: &Path) -> Vec<String> {
        let conn = open_reader(folder).unwrap();
        let mut statement = conn.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The hot queries must use their indexes: a scan would become slower as the history grows.
    #[test]
    fn hot_queries_use_their_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let conn = open_writer(&Options::new(folder.path())).unwrap();
        for (sql, index) in [
            (crate::deliveries::outbox::DUE, "delivery_due"),
            (crate::deliveries::outbox::DUE_SUMMARY, "delivery_due"),
            (crate::deliveries::outbox::DUE, "delivery_order"),
            (crate::deliveries::fifo::NEXT_IN_FIFO, "delivery_order"),
            (crate::history::queries::DELIVERIES, "delivery_history"),
            (crate::history::queries::RESTING_DELIVERIES, "delivery_rest"),
            (&crate::history::queries::resting_deliveries_sql(), "delivery_rest"),
            (crate::history::queries::EVENTS, "event_history"),
            (crate::events::replays::REPLAY_EVENTS, "event_history"),
            (crate::audit::OF_TENANT, "audit_tenant"),
            (crate::registry::write::SUBSCRIPTION_BY_NAME, "document_name"),
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
