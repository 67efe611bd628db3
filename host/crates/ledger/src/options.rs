//! Location and limits of a ledger, with their defaults.

use std::path::PathBuf;

use setgate_domain::tenant::Quota;

use crate::Settings;

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
    /// Maximum number of requests in one commit. Default: 512.
    pub batch_max: usize,
    /// Maximum group-commit delay in microseconds. If the last commit had at least [`BUSY_COMMIT_REQUESTS`](crate::BUSY_COMMIT_REQUESTS) requests, the writer
    /// waits for half of that commit's duration, and longer while many requests arrive. Default: 3 milliseconds.
    pub commit_delay_us_max: u64,
    /// Maximum number of deliveries that [`Events::append_with`](crate::Events::append_with) inserts together with an event. An event with more is
    /// left to [`Events::fan_out`](crate::Events::fan_out), because a long append delays every other request.
    pub append_deliveries_max: usize,
    /// Capacity of the writer's queue in requests. When it is full, an append is refused and any other request waits.
    /// Default: 8192.
    pub queue_max: usize,
    /// Maximum bytes of recent events and new deliveries handed over in memory; the rest is read back. Default: 16 MiB.
    pub recent_writes_bytes_max: usize,
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
    pub downtime_ms_min: i64,
    /// Time limit for the check for damage after the start, in milliseconds. 0 disables the check. Default: 10 seconds.
    pub check_ms_max: u64,
    /// Free bytes on the disk below which the ledger is [short](crate::Usage::shortage) of space. Default: 256 MiB.
    pub disk_free_bytes_min: u64,
    /// Quota of a tenant that has none of its own.
    pub quota: Quota,
}

/// How long statistics are retained, in milliseconds.
const STATISTICS_RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;
/// Events or settlements in one commit.
const BATCH_MAX: usize = 512;
/// Longest group-commit delay of a busy writer, in microseconds.
const COMMIT_DELAY_US_MAX: u64 = 3_000;
/// Writes queued for commit. If the queue is full, an append is refused.
pub(crate) const QUEUE_MAX: usize = 8_192;
/// Bytes of events in the writer's queue.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of events and new deliveries passed to the dispatcher in memory; anything beyond is read back from disk.
pub(crate) const RECENT_WRITES_BYTES_MAX: usize = 16 << 20;
/// Time limit of the check of the ledger file for damage after the start, in milliseconds.
const CHECK_MS_MAX: u64 = 10_000;
/// If at least this much time lies between two rounds of retention, the host was down in between. In milliseconds.
const DOWNTIME_MS_MIN: i64 = 3600 * 1000;
pub(crate) const READERS_MAX: u32 = 3;
const HISTORY_READERS_MAX: u32 = 2;

impl Options {
    /// The options that follow from the settings and from the default quota of a tenant; limits that are not settings
    /// have their constants.
    pub fn of(settings: &Settings, quota: Quota) -> Self {
        let millis = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        Self {
            path: settings.dir.join("ledger"),
            retention_ms: millis(settings.retention_s),
            statistics_retention_ms: STATISTICS_RETENTION_MS,
            batch_max: BATCH_MAX,
            commit_delay_us_max: COMMIT_DELAY_US_MAX,
            append_deliveries_max: settings.inline_fanout_max,
            queue_max: QUEUE_MAX,
            recent_writes_bytes_max: RECENT_WRITES_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            dedupe_run_events: settings.dedupe_run_events,
            readers_max: READERS_MAX,
            history_readers_max: HISTORY_READERS_MAX,
            cache_bytes: 16 << 20,
            checkpoint_poll_ms: 200,
            checkpoint_pages_min: 4096,
            wal_pages_max: 16_384,
            ledger_bytes_max: settings.ledger_bytes_max,
            retention_min_ms: millis(settings.retention_min_s),
            downtime_ms_min: millis(settings.retention_every_s).saturating_mul(3).max(DOWNTIME_MS_MIN),
            check_ms_max: CHECK_MS_MAX,
            disk_free_bytes_min: settings.disk_free_bytes_min,
            quota,
        }
    }

    /// The options with default settings, for the given folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::of(&Settings::default(), Quota::default()) }
    }
}
