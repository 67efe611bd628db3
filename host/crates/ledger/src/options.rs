//! Location and limits of a ledger, with their defaults.

use std::path::PathBuf;

use setgate_domain::tenant::Quota;

/// Location and limits of the ledger.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder. Created with mode 0700 if it is missing.
    pub path: PathBuf,
    /// How long an event is retained after its acceptance and after the end of its last delivery, in milliseconds.
    /// Default: 30 days.
    pub retention_ms: i64,
    /// How long statistics are retained, in milliseconds. Default: 7 days.
    pub statistics_retention_ms: i64,
    /// How long the settlement log is retained, in milliseconds. Default: 1 hour.
    pub tail_retention_ms: i64,
    /// Maximum number of requests in one commit. Default: 256.
    pub batch_max: usize,
    /// Maximum group-commit delay in microseconds. If the last commit had at least [`GATHER_FROM`](crate::GATHER_FROM) requests, the writer
    /// waits for half of that commit's duration, and longer while many requests arrive. Default: 3 milliseconds.
    pub gather_us_max: u64,
    /// Maximum number of deliveries that [`Events::append_with`](crate::Events::append_with) inserts together with an event. An event with more is
    /// left to [`Events::fan_out`](crate::Events::fan_out), because a long append delays every other request.
    pub append_deliveries_max: usize,
    /// Capacity of the writer's queue in requests. When it is full, an append is refused and any other request waits.
    /// Default: 4096.
    pub queue_max: usize,
    /// Maximum bytes of recent events and new deliveries handed over in memory; the rest is read back. Default: 16 MiB.
    pub hot_bytes_max: usize,
    /// Maximum bytes of events in the writer's queue. An append beyond this is refused. Default: 64 MiB.
    pub queue_bytes_max: usize,
    /// Events whose dedupe keys (about 24 bytes each) are buffered in memory before indexing. Default: 16,384.
    pub dedupe_run_events: usize,
    /// Read connections for the data plane. Default: 3.
    pub readers_max: u32,
    /// Read connections for history queries. Default: 2.
    pub history_readers_max: u32,
    /// The writer's page cache in bytes. Default: 16 MiB. A larger cache is not faster: each time SQLite rebalances a
    /// full node, the commit scans the whole cache (`balance_nonroot`, `pcache1TruncateUnsafe`).
    pub cache_bytes: u64,
    /// How often to check whether a checkpoint is due, in milliseconds. Default: 200.
    pub checkpoint_poll_ms: u64,
    /// Number of uncheckpointed WAL pages (4 KiB each) at which a checkpoint is started. Default: 4096 (16 MiB).
    pub checkpoint_pages_min: u32,
    /// Number of WAL pages at which the writer helps to finish a checkpoint. Default: 16384 (64 MiB).
    pub wal_pages_max: u32,
    /// Bytes of the file in use above which events are removed before their retention time ends and the ledger is
    /// [short](crate::Usage::shortage) of space. 0 means no limit. Default: 0.
    pub ledger_bytes_max: u64,
    /// How long an event is retained after its acceptance and after the end of its deliveries, even if the ledger is
    /// too large, in milliseconds. Default: 1 day.
    pub retention_min_ms: i64,
    /// If at least this much time lies between two rounds of retention, the host counts as having been down in between.
    /// In milliseconds. Default: 1 hour.
    pub gap_ms_min: i64,
    /// Time limit for the check for damage after the start, in milliseconds. 0 disables the check. Default: 10 seconds.
    pub check_ms_max: u64,
    /// Free bytes on the disk below which the ledger is [short](crate::Usage::shortage) of space. Default: 256 MiB.
    pub disk_free_bytes_min: u64,
    /// Quota of a tenant that has none of its own.
    pub quota: Quota,
}

pub(crate) const READERS_MAX: u32 = 3;
const HISTORY_READERS_MAX: u32 = 2;

impl Options {
    /// Default options for the given folder.
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
        }
    }
}
