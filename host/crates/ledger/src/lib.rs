//! The ledger: all durable state of a host, in one folder that one process opens at a time.
//!
//! # Format
//!
//! `ledger.lock` is locked while a process has the ledger open. `ledger.db` (with `-wal` and `-shm`) is SQLite in WAL
//! mode with `synchronous=FULL`; `user_version` is the schema version (`schema/tables.rs`). `ledger.probe` is a scratch
//! file that finds out why a write failed, and `ledger.db-wal.damaged` is a damaged WAL that was set aside
//! (`integrity/wal_check.rs`). The tables:
//!
//! | table | row | key |
//! |---|---|---|
//! | `event` | an accepted event: the SET, the original bytes if they differ from it (both compressed, `schema/compression.rs`), the trace context | `seq`, increasing, never reused |
//! | `delivery` | event x subscription x run, with its state | `seq`; unique (event, subscription, run) |
//! | `filter_output` | claims after the chain, and the filter runs that are not stored in an attempt | the delivery |
//! | `attempt` | one exchange with a receiver, compressed (`deliveries/attempts.rs`) | delivery and number in one integer |
//! | `plan` | a pinned filter chain, JSON | SHA-256; `refs` counts the deliveries that use it |
//! | `tally` | number of deliveries by state | tenant, subscription |
//! | `statistic` | counters of one minute or one hour, JSON | tenant, subscription, bucket length, start |
//! | `document` | a control-plane document, JSON, with its version | kind, tenant, id |
//! | `blob`, `blob_part`, `upload` | a filter component or the rows of a lookup table, its parts, and the bytes of an unfinished upload by tenant | SHA-256 |
//! | `dedupe_run`, `dedupe_part`, `dedupe_header` | a run of the dedupe index, and its pages (`dedupe/`) | a number |
//! | `mark` | `cursor` (last event fanned out), `revision` (last version given to a document) | name |
//! | `replay` | a replay of past events into new runs, JSON, with its progress | its id |
//! | `failure_streak` | start of a subscription's current failure streak, if it has one | the subscription |
//! | `purge` | a tenant whose rows are still being deleted | tenant |
//! | `audit` | a control-plane change, JSON (`audit/`) | `seq`, increasing without gaps; a hash chain |
//! | `issuer_name` | number of tenants with this name that ever had an issuer key; never deleted | tenant |
//! | `signed_set` | the signed SET of a delivery, the key that signed it, and its `jti` | the delivery |
//! | `meta` | small values of the host itself | name |
//!
//! Ids are 16 bytes, digests 32, instants are milliseconds since the epoch, and a state is its index in `State::ALL`.
//!
//! # Invariants
//!
//! 1. An acknowledged call is durable: rows, counts and cursor of a batch are one transaction, and replies are sent
//!    after its commit. If the commit fails, every request of the batch gets an error and none of it takes effect.
//! 2. An event is in the journal once per dedupe key and window. The key of every event is found through the dedupe
//!    index, or the event is newer than all runs of the index.
//! 3. Every event at or before the cursor has all its deliveries. An event after the cursor has all of them or none,
//!    except for deliveries of replays and the one made by `append_for`.
//! 4. A delivery is created once, by `append_with`, `fan_out`, `append_for` or a step of a replay. Only `settle` moves
//!    it out of due; only `redrive`, `requeue_with_plan` and `expire_held` (from held to dead) move it out of a resting
//!    state. Only retention and the removal of its tenant delete it. Retention deletes a delivery only after it has
//!    rested for the retention time, or for the minimum retention time if the ledger is too large, and never while it
//!    is held. Only `requeue_with_plan` and `replace_plan` change its plan, and only until it has passed its chain.
//! 5. `tally` and `plan.refs` match the rows at every commit. The backlog in memory matches `tally`.
//! 6. A delivery with an order key is not due while an earlier delivery with that key, of the same subscription, is due
//!    or held.
//! 7. `statistic` counts each recorded attempt and each delivery that came to rest in its bucket exactly once, in the
//!    transaction that wrote it. Deleting rows later does not change a bucket; it expires as a whole.
//! 8. A replay's deliveries and its position are one transaction: everything before the position has been created,
//!    nothing after it.
//! 9. The settlement log, in memory, has every state change and every failed attempt of a tenant's deliveries once, in
//!    commit order, from the tenant's first live tail on. A reader that missed entries, because of the limits of the log
//!    or a restart, is informed of it.
//! 10. Every document change, and every manual decision about a delivery, adds a row to `audit` in the same
//!     transaction.
//! 11. A tenant has its issuer from its first issuer key on. The name of a tenant that had one is never forgotten, and a
//!     key is removed only if no delivery has a SET that it signed (`registry/issuer_keys.rs`).
//! 12. Memory (snapshot, cursor, backlog, settlement log) changes after the commit and before the replies.
//!
//! An event passes through two transactions, `append_with` and `settle`, and through `fan_out` as well if it was
//! appended without its deliveries. Each is idempotent, so recovery means opening the file and continuing.
//!
//! # Modules, from the lowest to the highest
//!
//! `schema` (the file, its rows and connections), `dedupe` (the index of dedupe keys), `state` (memory that follows the
//! commits), `commit` (queue, writer thread, group commit, checkpoints), `store` (the part that all handles share),
//! `audit`, `registry`, `deliveries`, `history`, `events`, `upkeep`, `integrity`. None imports a higher one.

mod audit;
mod commit;
mod dedupe;
mod deliveries;
mod error;
mod events;
mod history;
mod integrity;
mod limits;
mod metric_names;
#[cfg(test)]
mod model;
mod options;
mod registry;
mod schema;
mod settings;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use rusqlite::OptionalExtension;
use setgate_base::clock::Clock;
use setgate_domain::time::Timestamp;
use tokio::sync::mpsc;

use crate::commit::{checkpoint, effects, group_commit, queue, writer};
use crate::integrity::wal_check;
use crate::schema::folder::{lock_folder, sync_folder};
use crate::schema::readers;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::counters;
use crate::store::{Store, join};
use crate::upkeep::uptime;

pub use audit::idempotency::{ExecutedRequest, IDEMPOTENCY_RETENTION_MS, StoredResponses};
pub use commit::group_commit::BUSY_COMMIT_REQUESTS;
pub use deliveries::Deliveries;
pub use deliveries::outbox::{DUE_LIMIT_MAX, DueSummary};
pub use deliveries::redrive::REDRIVE_CHUNK_ROWS;
pub use deliveries::replan::PlanChange;
pub use deliveries::settle::{Decision, ExpireOutcome, RedriveOutcome, SettleOutcome};
pub use deliveries::signed_sets::SignedSet;
pub use error::Error;
pub use events::fan_out::{FAN_OUT_DELIVERIES_MAX, FanOut};
pub use events::journal::{AppendOutcome, Appended, JOURNAL_BYTES_MAX, JOURNAL_LIMIT_MAX};
pub use events::replays::{AdvanceOutcome, REPLAY_EVENTS_MAX, REPLAYS_RETAINED_MAX, ReplayStep};
pub use events::{Events, Replays};
pub use history::History;
pub use history::queries::{Counts, Cursor, DeliveryQuery, EventQuery, Page};
pub use history::settlement_log::{
    SETTLED_BYTES_MAX, SETTLED_LIMIT_MAX, SettledPage, SettledQuery, SettledRecord, SettlementReader,
};
pub use history::statistics::{MINUTE_RETENTION_MS, StatisticsWindow};
pub use integrity::damage::QuickCheck;
pub use integrity::inspect::{Check, FAULTS_LISTED_MAX, Inspection, inspect};
pub use limits::{HISTORY_LIMIT_MAX, HISTORY_SCAN_ROWS_MAX, PLANS_CACHED_MAX, UNUSED_RETENTION_MS};
pub use metric_names::{BATCH_SIZE, BUCKETS, COMMIT_FAILURES, COMMIT_SECONDS};
pub use options::Options;
pub use registry::Registry;
pub use registry::blobs::BLOB_PART_BYTES;
pub use registry::blobs::Blobs;
pub use registry::plans::Plans;
pub use registry::plans::{VersionsInUse, plan_digest};
pub use registry::{Precondition, WriteContext};
pub use schema::SQLITE_VERSION_MIN;
pub use schema::files::check_folder_mode;
pub use settings::Settings;
pub use state::content::Content;
pub use state::disk::Cause;
pub use state::document_usage::{DOCUMENT_BYTES, DOCUMENT_BYTES_MAX, DocumentUsage};
pub use state::fanout_cursor::FanoutCursor;
pub use state::new_deliveries::NewDue;
pub use state::settlements::SettlementPosition;
pub use state::snapshot::{Snapshot, TenantView, Versioned};
pub use state::space::Shortage;
pub use upkeep::backup::{BackupError, Manifest, back_up, is_in_use, manifest, restore};
pub use upkeep::identity::{Identity, identity};
pub use upkeep::retention::RetentionReport;
pub use upkeep::usage::Stats;
pub use upkeep::{Upkeep, Usage};

/// A handle to the ledger; clones share it. When the last clone is dropped, queued requests are written and the threads
/// are joined, which blocks. [`Ledger::shutdown`] does the same without blocking a runtime thread.
#[derive(Clone)]
pub struct Ledger {
    /// The journal.
    pub events: Events,
    /// Deliveries.
    pub deliveries: Deliveries,
    /// Replays of past events.
    pub replays: Replays,
    /// Pinned filter chains.
    pub plans: Plans,
    /// Documents of the control plane.
    pub registry: Registry,
    /// Components and table rows.
    pub blobs: Blobs,
    /// Queries for people.
    pub history: History,
    /// Retention and checks.
    pub upkeep: Upkeep,
    /// Figures from memory.
    pub usage: Usage,
    store: Arc<Store>,
}

impl Ledger {
    /// Opens the ledger in a folder, or creates it. Blocks. After a crash the WAL is replayed, which takes
    /// milliseconds.
    ///
    /// [`Error::Locked`] if another process has it open, [`Error::Schema`] if a later version of Setgate wrote it,
    /// [`Error::Corrupt`] if a document of the registry cannot be read.
    pub fn open(options: Options, clock: Clock) -> Result<Self, Error> {
        let lock = lock_folder(&options.path)?;
        wal_check::check(&options.path)?;
        let conn = schema::open_writer(&options)?;
        start_clock(&conn, &clock)?;
        // The directory entry must be as durable as the data in the file.
        sync_folder(&options.path)?;
        let dedupe = dedupe::Index::open(&conn, options.dedupe_run_events)?;
        let shared = Arc::new(effects::SharedState::load(&conn, &options)?);
        shared.dedupe_bytes.store(dedupe.bytes(), Ordering::Relaxed);
        let readers = readers::Readers::open(&options.path, options.readers_max)?;
        let history_readers = readers::Readers::open(&options.path, options.history_readers_max)?;
        let (sender, receiver) = mpsc::channel(options.queue_max.max(1));
        let (writer_alive, ended) = std::sync::mpsc::channel();
        let queue = queue::Queue::new(sender, Arc::clone(&shared), options.queue_bytes_max);
        let checkpoint_conn = Arc::new(Mutex::new(Some(schema::open_checkpointer(&options.path)?)));
        let checkpointer = checkpoint::Checkpointer {
            conn: Arc::clone(&checkpoint_conn),
            shared: Arc::clone(&shared),
            writer: queue.downgrade(),
            writer_alive: ended,
            poll: Duration::from_millis(options.checkpoint_poll_ms.max(1)),
            pages_min: options.checkpoint_pages_min,
            wal_pages_max: options.wal_pages_max,
        };
        let batch_max = options.batch_max.max(1);
        let commit_delay_max = Duration::from_micros(options.commit_delay_us_max);
        let writer = writer::Writer {
            conn: Some(conn),
            options: options.clone(),
            readers: [readers.clone(), history_readers.clone()],
            checkpointer: checkpoint_conn,
            measured_at: None,
            reopened_at: None,
            statistics: counters::StatisticsCache::default(),
            dedupe,
            shared: Arc::clone(&shared),
            queue: receiver,
            batch_max,
            commit_delay: group_commit::CommitDelay::new(commit_delay_max),
            lock,
            writer_alive,
        };
        let threads = vec![
            spawn(&options.path, "ledger-writer", move || writer.run())?,
            spawn(&options.path, "ledger-checkpointer", move || checkpointer.run())?,
        ];
        Ok(Self::from_store(Arc::new(Store {
            options: ArcSwap::from_pointee(options),
            clock,
            shared,
            queue: Some(queue),
            readers,
            history_readers,
            plans: moka::future::Cache::new(PLANS_CACHED_MAX),
            threads: Mutex::new(threads),
        })))
    }

    fn from_store(store: Arc<Store>) -> Self {
        Self {
            events: Events(Arc::clone(&store)),
            deliveries: Deliveries(Arc::clone(&store)),
            replays: Replays(Arc::clone(&store)),
            plans: Plans(Arc::clone(&store)),
            registry: Registry(Arc::clone(&store)),
            blobs: Blobs(Arc::clone(&store)),
            history: History(Arc::clone(&store)),
            upkeep: Upkeep(Arc::clone(&store)),
            usage: Usage(Arc::clone(&store)),
            store,
        }
    }

    /// Writes all queued requests, checkpoints the WAL, ends the threads and releases the folder. Later calls on any
    /// clone return [`Error::Closed`].
    pub async fn shutdown(&self) {
        self.store.queue().stop().await;
        self.store.readers.close().await;
        self.store.history_readers.close().await;
        let threads = std::mem::take(&mut *self.store.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "the ledger's threads did not end cleanly");
        }
    }
}

fn spawn(path: &Path, name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| Error::Folder { path: path.to_owned(), source })
}

/// Starts the clock no earlier than the newest stored timestamp. If the stored data is from a time that the clock
/// considers implausible, postponed deliveries keep their remaining delay relative to now instead of waiting until that
/// time.
fn start_clock(conn: &rusqlite::Connection, clock: &Clock) -> Result<(), Error> {
    let newest: Option<Timestamp> = conn
        .query_row("SELECT accepted_at FROM event ORDER BY seq DESC LIMIT 1", [], |row| row.column(0))
        .optional()?;
    let Some(stored) = newest.max(uptime::Uptime::last_recorded(conn)?) else { return Ok(()) };
    clock.advance_to(stored);
    let now = clock.now();
    if stored > now {
        let rows = conn.execute(
            "UPDATE delivery SET due_at = ?1 + max(due_at - updated_at, 0), updated_at = ?1
             WHERE state = 0 AND updated_at > ?1",
            params![now],
        )?;
        tracing::warn!(
            rows,
            "the clock was far ahead when these deliveries were scheduled; their waits are counted from now"
        );
    }
    Ok(())
}
