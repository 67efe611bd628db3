//! The ledger: all durable state of a host, in one folder that one process holds.
//!
//! # Format
//!
//! `ledger.lock` is locked while a process has the ledger open. `ledger.db` (with `-wal` and `-shm`) is SQLite in WAL
//! mode with `synchronous=FULL`; `user_version` is the schema (`schema.rs`). `ledger.probe` was written to see why a write
//! failed, `ledger.db-wal.damaged` is a WAL put aside (`tail.rs`). The tables:
//!
//! | table | a row is | named by |
//! |---|---|---|
//! | `event` | an accepted event: the SET, the original bytes where they differ, both packed (`packed.rs`), its place in a trace | `seq`, rising, never used twice |
//! | `delivery` | event x subscription x run, with its state | `seq`; unique (event, subscription, run) |
//! | `filtered` | claims after the chain, and what each filter did, where it is not in an attempt | the delivery |
//! | `attempt` | one exchange with a receiver, packed (`attempts.rs`) | delivery and number in one |
//! | `plan` | a chain as it was, JSON | SHA-256; `refs` deliveries run it |
//! | `tally` | deliveries by state | tenant, subscription |
//! | `statistic` | what a minute or an hour came to, JSON | tenant, subscription, length, begin |
//! | `entry` | a document of the control plane, JSON, with its version | kind, tenant, id |
//! | `blob`, `blob_part` | a filter's component or a table's rows, and its parts | SHA-256 |
//! | `dedupe_run`, `dedupe_part`, `dedupe_head` | a run of the index of dedupe keys, and its pages (`dedupe.rs`) | a number |
//! | `mark` | `cursor` (fanned out up to there), `revision` (last version given to a document), `settled` and `settled_floor` (last batch in the log of settlements, last one deleted from it), `rewrite` (the file has to be written anew, `sealed_endpoints.rs`) | name |
//! | `settled` | what became of deliveries in a batch, JSON | batch, tenant |
//! | `replay` | past events made into new runs, JSON, with how far it has come | its id |
//! | `failing` | since when a subscription has had no success, while it has none | the subscription |
//! | `purge` | a tenant whose rows are still being deleted | tenant |
//! | `audit` | a change of the control plane, JSON (`audit.rs`) | `seq`, rising without gaps; chained by hash |
//! | `meta` | what the host remembers about itself | name |
//!
//! Ids are 16 bytes, digests 32, instants milliseconds since the epoch, states the order of `State::ALL`.
//!
//! # Invariants
//!
//! 1. What a call acknowledged is durable: rows, counts and cursor of a batch are one transaction, and answers go out
//!    after its commit. A commit that fails is an error for everyone in it, and none of it counts.
//! 2. An event is in the journal once per dedupe key and window. Every event's key is found by the index of dedupe keys, or
//!    the event is later than all of its runs.
//! 3. Every event at or before the cursor has all its deliveries. One behind it has all of them or none, save replays and the
//!    one of `append_for`.
//! 4. A delivery is made once, by `append_with`, `fan_out`, `append_for` or a step of a replay; only `settle` moves it out of due, only `redrive` and `rerun`
//!    (and `expire_held`, from held to dead) out of rest, only retention and a tenant's removal delete it, and
//!    retention only what has been at rest for the retention time, or the least of it where the ledger is too large,
//!    and never while held. Only `rerun` and `repin`
//!    change its plan, and only while it has not got through its chain.
//! 5. `tally` and `plan.refs` are the counts of the rows, at every commit. The backlog in memory is that of `tally`.
//! 6. A delivery with an order key is not due while an earlier one of its subscription with that key is due or held.
//! 7. `statistic` is the sum of the attempts recorded and the deliveries that came to rest in its time, each counted once,
//!    by the transaction that wrote it. What is deleted later stays counted until the bucket is past its time.
//! 8. A replay's deliveries and its position are one transaction: what stands before it is made, what stands behind it is not.
//! 9. `settled` has every change of a delivery's state and every attempt, in the order of the commits, save what is older than
//!    `tail_retention_ms`. A batch's number is never used twice.
//! 10. Every change of a document, and every decision of a person about a delivery, is a row of `audit` in the same
//!     transaction.
//! 11. Memory (snapshot, cursor, backlog) changes after the commit and before its answers.
//!
//! `append_with` and `settle` are the two transactions of an event's life, and `fan_out` for the deliveries of an event that was
//! appended without them. Each is idempotent, so recovery is opening the file and going on.

mod attempts;
mod audit;
mod backup;
mod blobs;
mod checkpoint;
mod columns;
mod damage;
mod dedupe;
mod disk;
#[cfg(test)]
mod earlier;
mod effects;
mod error;
mod failing;
mod fan_out;
mod files;
mod gather;
mod history;
mod hot;
mod idempotency;
mod identity;
mod inspect;
mod journal;
mod lived;
#[cfg(test)]
mod model;
mod order;
mod outbox;
mod packed;
mod past;
mod plans;
mod queue;
mod reach;
mod readers;
mod redrive;
mod registry;
mod repin;
mod replays;
mod rerun;
mod retention;
mod schema;
mod sealed_endpoints;
mod settle;
mod space;
mod statements;
mod statistics;
mod stored;
mod tail;
#[cfg(test)]
mod tests;
mod untold;
mod wal_tail;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use rusqlite::{OptionalExtension, params};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::crypto::MasterKey;
use crate::domain::event::EventSeq;
use crate::domain::filter::Plan;
use crate::domain::id::{Digest, TenantId};
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;

pub use backup::{BackupError, Manifest, back_up, is_in_use, manifest, restore};
pub use blobs::BLOB_PART_BYTES;
pub use damage::Checked;
pub use disk::Cause;
pub use error::Error;
pub use fan_out::{FAN_OUT_DELIVERIES_MAX, FanOut};
pub use files::refuse_shared;
pub use gather::GATHER_FROM;
pub use history::{Counts, Cursor, DeliveryQuery, EventQuery, HISTORY_LIMIT_MAX, HISTORY_SCAN_ROWS_MAX, Page};
pub use idempotency::{ANSWERS_KEPT_MS, AnswersStored, CarriedOut};
pub use identity::{Identity, identity};
pub use inspect::{Check, FAULTS_TOLD_MAX, Inspected, inspect};
pub use journal::{Appended, JOURNAL_BYTES_MAX, JOURNAL_LIMIT_MAX, Taken};
pub use outbox::{Content, DUE_LIMIT_MAX, Lane};
pub use plans::{VersionsInUse, plan_name};
pub use reach::Reach;
pub use redrive::REDRIVE_CHUNK_ROWS;
pub use registry::{DOCUMENT_BYTES, DOCUMENT_BYTES_MAX, Expected, Intent, Snapshot, TenantView, Versioned, Weight};
pub use replays::{Advanced, REPLAY_EVENTS_MAX, REPLAYS_KEPT_MAX, ReplayStep};
pub use rerun::Rerun;
pub use retention::Retained;
pub use schema::SQLITE_VERSION_MIN;
pub use settle::{Decision, Expired, Redriven, Settled};
pub use space::Shortage;
pub use statistics::{Counted, MINUTES_KEPT_MS};
pub use tail::{SETTLED_BYTES_MAX, SETTLED_LIMIT_MAX, SettledPage, SettledPlace, SettledQuery, SettledRecord};
pub use untold::Made;

/// The file that a process which has the ledger open holds locked.
const LOCK: &str = "ledger.lock";
/// How long a plan or a blob that nothing refers to is kept after it was last put, in milliseconds: one day, so that
/// what is put is still there when the document or the delivery that needs it follows.
pub const UNUSED_KEPT_MS: i64 = 24 * 3600 * 1000;
/// Plans held in memory.
pub const PLANS_CACHED_MAX: u64 = 1_000;

/// Histogram: seconds a batch took, from its begin to the end of its commit.
pub const COMMIT_SECONDS: &str = "setgate_ledger_commit_seconds";
/// Histogram: requests of a batch.
pub const BATCH_SIZE: &str = "setgate_ledger_batch_size";
/// Upper bounds of the buckets of these histograms.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (COMMIT_SECONDS, &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]),
    (BATCH_SIZE, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0]),
];
/// Counter: batches that could not be committed.
pub const COMMIT_FAILURES: &str = "setgate_ledger_commit_failures_total";
/// Gauge: 1 once damage was found in the ledger's files since the start.
const DAMAGED: &str = "setgate_ledger_damaged";

/// Where the ledger is and what it may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made with mode 0700 where it is not there.
    pub path: PathBuf,
    /// How long an event is kept after its acceptance, and after the end of the last of its deliveries, in
    /// milliseconds. Default: 30 days.
    pub retention_ms: i64,
    /// How long statistics are kept, in milliseconds. Default: 7 days.
    pub statistics_retention_ms: i64,
    /// How long the log of settlements is kept, in milliseconds. Default: 1 hour.
    pub tail_retention_ms: i64,
    /// Requests of one commit. Default: 256.
    pub batch_max: usize,
    /// How long the writer waits for more requests, where there were at least [`GATHER_FROM`] in its last commit, in
    /// microseconds: half of what that commit took, and on while many come. Default: 3 milliseconds.
    pub gather_us_max: u64,
    /// Deliveries that [`Ledger::append_with`] makes together with an event; one with more is left to [`Ledger::fan_out`], since
    /// everyone else's requests wait while an append is written.
    pub append_deliveries_max: usize,
    /// Requests that may wait for the writer; an append beyond is refused, all else waits. Default: 4096.
    pub queue_max: usize,
    /// Bytes of events and new deliveries that are handed on in memory; beyond, they are read back from the file. Default: 16 MiB.
    pub hot_bytes_max: usize,
    /// Bytes of events that may wait for the writer; an append beyond is refused. Default: 64 MiB.
    pub queue_bytes_max: usize,
    /// Events whose dedupe keys are held in memory until they are written to the index, some 24 bytes each. Default: 16,384.
    pub dedupe_run_events: usize,
    /// Connections that read for the data plane. Default: 3.
    pub readers_max: u32,
    /// Connections that read history. Default: 2.
    pub history_readers_max: u32,
    /// Bytes of the writer's page cache. Default: 16 MiB. Larger is not faster: wherever SQLite has put pages of a full node
    /// in order, the commit looks through all of the cache (`balance_nonroot`, `pcache1TruncateUnsafe`).
    pub cache_bytes: u64,
    /// How often to see whether a checkpoint is due, in milliseconds. Default: 200.
    pub checkpoint_poll_ms: u64,
    /// Pages of 4 KiB in the WAL, not yet in the file, from which a checkpoint is run. Default: 4096 (16 MiB).
    pub checkpoint_pages_min: u32,
    /// Pages of the WAL from which the writer helps to finish a checkpoint. Default: 16384 (64 MiB).
    pub wal_pages_max: u32,
    /// Bytes of the file in use from which events are removed before their time, and beyond which the ledger is
    /// [short](Ledger::shortage) of space; 0: none. Default: none.
    pub ledger_bytes_max: u64,
    /// How long an event is kept after its acceptance and after the end of its deliveries, whatever its size, in
    /// milliseconds. Default: 1 day.
    pub retention_min_ms: i64,
    /// Time between two rounds of retention from which the host counts as not having lived in between, in
    /// milliseconds. Default: 1 hour.
    pub gap_ms_min: i64,
    /// How long the file is looked over for damage after the start, in milliseconds; 0: not at all. Default: 10 seconds.
    pub check_ms_max: u64,
    /// Bytes free on the disk below which the ledger is [short](Ledger::shortage) of space. Default: 256 MiB.
    pub disk_free_bytes_min: u64,
    /// What a tenant without a quota of its own may use.
    pub quota: Quota,
    /// Seals what a ledger of an earlier Setgate holds in the clear. Default: none, with which such a ledger does not open.
    pub master: Option<Arc<MasterKey>>,
}

/// Connections that read for the data plane.
const READERS_MAX: u32 = 3;
/// Connections that read history.
const HISTORY_READERS_MAX: u32 = 2;

impl Options {
    /// The defaults, in the given folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            retention_ms: 30 * 24 * 3600 * 1000,
            statistics_retention_ms: 7 * 24 * 3600 * 1000,
            tail_retention_ms: 3600 * 1000,
            batch_max: 256,
            gather_us_max: 3_000,
            append_deliveries_max: 64,
            queue_max: 4096,
            hot_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            dedupe_run_events: 16_384,
            readers_max: READERS_MAX,
            history_readers_max: HISTORY_READERS_MAX,
            cache_bytes: 16 << 20,
            checkpoint_poll_ms: 200,
            checkpoint_pages_min: 4096,
            wal_pages_max: 16_384,
            ledger_bytes_max: 0,
            retention_min_ms: 24 * 3600 * 1000,
            gap_ms_min: 3600 * 1000,
            check_ms_max: 10_000,
            disk_free_bytes_min: 256 << 20,
            quota: Quota::default(),
            master: None,
        }
    }
}

/// What the ledger looks like from outside, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Whether it takes requests.
    pub open: bool,
    /// Why the last batch could not be written; none: it could. It is tried again each second.
    pub failing: Option<Cause>,
    /// Requests that wait for the writer.
    pub queue_depth: usize,
    /// Bytes of events that wait for the writer.
    pub queue_bytes: usize,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// Size of the WAL, in bytes.
    pub wal_bytes: u64,
    /// Bytes in memory of the index of dedupe keys: some 1.3 for each event of the ledger.
    pub dedupe_bytes: u64,
    /// The last event of the journal.
    pub last: EventSeq,
    /// The last event fanned out.
    pub cursor: EventSeq,
    /// Batches committed since it was opened, each with a sync of its own.
    pub commits: u64,
}

/// A handle on the ledger; all clones are the same one. When the last is dropped, what waits is written and the
/// threads are joined; [`Ledger::shutdown`] does so without blocking a runtime thread.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    options: ArcSwap<Options>,
    clock: Clock,
    shared: Arc<effects::Shared>,
    /// None only while dropping: the writer ends when its queue does.
    queue: Option<queue::Queue>,
    readers: readers::Readers,
    history_readers: readers::Readers,
    plans: moka::future::Cache<Digest, Arc<Plan>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the ledger of a folder, or makes one. Blocks; a crash before costs the replay of the WAL, milliseconds.
    ///
    /// [`Error::Locked`] where another process has it open, [`Error::Schema`] where a later Setgate wrote it,
    /// [`Error::Corrupt`] where a document of the registry cannot be read.
    pub fn open(options: Options, clock: Clock) -> Result<Self, Error> {
        let lock = hold(&options.path)?;
        wal_tail::look(&options.path)?;
        let conn = schema::open_writer(&options)?;
        begin_behind(&conn, &clock)?;
        // The file's own name has to be as durable as what is written into it.
        sync_folder(&options.path)?;
        let dedupe = dedupe::Index::open(&conn, options.dedupe_run_events)?;
        let shared = Arc::new(effects::Shared::load(&conn, &options)?);
        shared.dedupe_bytes.store(dedupe.bytes(), Ordering::Relaxed);
        let readers = readers::Readers::open(&options.path, options.readers_max)?;
        let history_readers = readers::Readers::open(&options.path, options.history_readers_max)?;
        let (sender, receiver) = mpsc::channel(options.queue_max.max(1));
        let (alive, ended) = std::sync::mpsc::channel();
        let queue = queue::Queue::new(sender, Arc::clone(&shared), options.queue_bytes_max);
        let shelf = Arc::new(Mutex::new(Some(schema::open_checkpointer(&options.path)?)));
        let checkpointer = checkpoint::Checkpointer {
            conn: Arc::clone(&shelf),
            shared: Arc::clone(&shared),
            writer: queue.downgrade(),
            alive: ended,
            poll: Duration::from_millis(options.checkpoint_poll_ms.max(1)),
            pages_min: options.checkpoint_pages_min,
            wal_pages_max: options.wal_pages_max,
        };
        let batch_max = options.batch_max.max(1);
        let gather_max = Duration::from_micros(options.gather_us_max);
        let writer = writer::Writer {
            conn: Some(conn),
            options: options.clone(),
            readers: [readers.clone(), history_readers.clone()],
            checkpointer: shelf,
            measured_at: None,
            reopened_at: None,
            statistics: statistics::Known::default(),
            dedupe,
            shared: Arc::clone(&shared),
            queue: receiver,
            batch_max,
            gather: gather::Gather::new(gather_max),
            lock,
            alive,
        };
        let threads = vec![
            spawn(&options.path, "ledger-writer", move || writer.run())?,
            spawn(&options.path, "ledger-checkpointer", move || checkpointer.run())?,
        ];
        Ok(Self(Arc::new(Inner {
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

    /// Writes what waits, moves the WAL into the file, ends the threads and frees the folder. Every later call, on any
    /// clone, is [`Error::Closed`].
    pub async fn shutdown(&self) {
        self.queue().stop().await;
        self.0.readers.close().await;
        self.0.history_readers.close().await;
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "the ledger's threads could not be joined");
        }
    }

    /// What the host remembers under a name.
    pub async fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let name = name.to_owned();
        self.readers()
            .read(move |conn| {
                Ok(conn
                    .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
                    .query_row([name], |row| row.get(0))
                    .optional()?)
            })
            .await
    }

    /// How many deliveries of each tenant are due, held and dead.
    pub async fn deliveries_by_state(&self) -> Result<Vec<(TenantId, [i64; 3])>, Error> {
        self.readers()
            .read(move |conn| {
                let sql = "SELECT tenant, sum(due), sum(held), sum(dead) FROM tally GROUP BY tenant";
                let mut statement = conn.prepare_cached(sql)?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Remembers a value under a name, in place of the one before.
    pub async fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.queue()
            .write(move |batch| {
                batch
                    .conn
                    .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
                Ok(())
            })
            .await
    }

    /// Sizes and depths as of now. Asks the file system for two sizes; never waits for the writer.
    pub fn stats(&self) -> Stats {
        let options = self.options();
        let size = |name: &str| fs::metadata(options.path.join(name)).map_or(0, |meta| meta.len());
        let reach = *self.shared().reach.borrow();
        Stats {
            open: self.queue().is_open(),
            failing: self.0.shared.disk.failing(),
            queue_depth: self.queue().depth(),
            queue_bytes: self.0.shared.queue_bytes.load(Ordering::Relaxed),
            file_bytes: size(schema::FILE),
            wal_bytes: size(&format!("{}-wal", schema::FILE)),
            dedupe_bytes: self.0.shared.dedupe_bytes.load(Ordering::Relaxed) as u64,
            last: reach.last(),
            cursor: reach.cursor(),
            commits: self.0.shared.commits.load(Ordering::Relaxed) as u64,
        }
    }

    /// See [`Options::append_deliveries_max`].
    pub fn append_deliveries_max(&self) -> usize {
        self.options().append_deliveries_max
    }

    /// Whether the last batch could be written. Never waits.
    pub fn takes_writes(&self) -> bool {
        self.shared().disk.failing().is_none()
    }

    /// Why nothing may be added just now, events and uploads above all; none: there is room. Looked at once a second;
    /// never waits.
    pub fn shortage(&self) -> Option<Shortage> {
        self.shared().space.shortage()
    }

    /// Takes over how long things are kept and how much room there is from other options, for the next round of retention
    /// and the next look at the disk: `retention_ms`, `retention_min_ms`, `statistics_retention_ms`,
    /// `tail_retention_ms`, `gap_ms_min`, `ledger_bytes_max`, `disk_free_bytes_min` and `quota`. All else is settled when a ledger is
    /// opened.
    pub fn keep(&self, other: &Options) {
        let kept = Options {
            retention_ms: other.retention_ms,
            retention_min_ms: other.retention_min_ms,
            statistics_retention_ms: other.statistics_retention_ms,
            tail_retention_ms: other.tail_retention_ms,
            gap_ms_min: other.gap_ms_min,
            ledger_bytes_max: other.ledger_bytes_max,
            disk_free_bytes_min: other.disk_free_bytes_min,
            quota: other.quota.clone(),
            ..Options::clone(&self.options())
        };
        self.shared().space.bound(&kept);
        self.0.options.store(Arc::new(kept));
    }

    /// Waits until there is reason to call [`Ledger::retain`] before its time: the disk or the ledger fills up.
    pub async fn pressed(&self) {
        self.shared().space.pressed.notified().await;
    }

    fn queue(&self) -> &queue::Queue {
        self.0.queue.as_ref().expect("only `drop` takes the queue, and a handle is alive")
    }

    fn readers(&self) -> &readers::Readers {
        &self.0.readers
    }

    fn history_readers(&self) -> &readers::Readers {
        &self.0.history_readers
    }

    fn shared(&self) -> &effects::Shared {
        &self.0.shared
    }

    fn plans(&self) -> &moka::future::Cache<Digest, Arc<Plan>> {
        &self.0.plans
    }

    fn options(&self) -> Guard<Arc<Options>> {
        self.0.options.load()
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        join(threads);
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the ledger panicked");
        }
    }
}

fn spawn(path: &Path, name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| Error::Folder { path: path.to_owned(), source })
}

/// Makes the folder where needed and takes its lock, which lasts as long as the returned file is open.
fn hold(path: &Path) -> Result<fs::File, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    refuse_shared(path)?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed(path))?;
    let name = path.join(LOCK);
    files::begin_private(&name).map_err(failed(&name))?;
    let file = fs::OpenOptions::new().write(true).open(&name).map_err(failed(&name))?;
    match file.try_lock() {
        Ok(()) => {
            files::make_private(path)?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(&name)(source)),
    }
}

/// Has the clock begin where what is stored ends. Where what is stored is from a time that the clock does not believe,
/// what was made to wait then waits as long from now on, and not until that time comes.
fn begin_behind(conn: &rusqlite::Connection, clock: &Clock) -> Result<(), Error> {
    let newest: Option<Timestamp> =
        conn.query_row("SELECT accepted_at FROM event ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).optional()?;
    let Some(stored) = newest.max(lived::Lived::last(conn)?) else { return Ok(()) };
    clock.not_before(stored);
    let now = clock.now();
    if stored > now {
        let rows = conn.execute(
            "UPDATE delivery SET due_at = ?1 + max(due_at - updated_at, 0), updated_at = ?1
             WHERE state = 0 AND updated_at > ?1",
            [now],
        )?;
        tracing::warn!(rows, "deliveries that were put off by a clock far ahead are due as if put off now");
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    for folder in [Some(path), path.parent().filter(|p| !p.as_os_str().is_empty())].into_iter().flatten() {
        fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    Ok(())
}
