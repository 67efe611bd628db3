//! `[data]`: the settings of storage. Limits that no operator has a reason to change are constants in `options`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Lower bound of `data.ledger_bytes_max`: schema, keys and undelivered events must fit.
const LEDGER_BYTES_MIN: u64 = 8 << 20;

/// Storage: data directory, retention and disk limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Directory of the ledger, the compiled filters and, by default, the master key. Created with mode 0700.
    pub dir: PathBuf,
    /// File of the master key that encrypts secrets at rest. Defaults to `<dir>/master.key`, which is created at the
    /// first start.
    pub master_key_file: Option<PathBuf>,
    /// How long (seconds) an event is retained once all its deliveries have ended. A duplicate event is recognised
    /// within this time.
    pub retention_s: u64,
    /// How long (seconds) ended events are retained even if the ledger is nearly full. A duplicate event is recognised
    /// for at least as long.
    pub retention_min_s: u64,
    /// Interval (seconds) between two runs that delete expired data.
    pub retention_every_s: u64,
    /// How long (seconds) audit log entries are retained.
    pub audit_retention_s: u64,
    /// Bytes of the ledger file in use. From nine tenths of it, the oldest ended events are removed before
    /// `retention_s`; if there are none left to remove, ingest is answered 503 once the limit is reached. The WAL
    /// (about 64 MiB) is not included. 0: unlimited.
    pub ledger_bytes_max: u64,
    /// Free disk space (bytes) below which ingest and uploads are answered 503; deliveries continue. 0: unlimited.
    pub disk_free_bytes_min: u64,
    /// How long (seconds) the system clock must run steadily after a jump before the host adopts its time.
    pub clock_settle_s: u64,
    /// Deliveries of an event that are created in the same commit as the event. An event with more is accepted first
    /// and fanned out afterwards. 0: all are created with it. One commit never creates more than 5000 of them.
    pub inline_fanout_max: usize,
    /// Number of events whose dedupe keys are buffered in memory (about 24 bytes each) before they are written to the
    /// dedupe index. A start reads that many rows.
    pub dedupe_run_events: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("setgate-data"),
            master_key_file: None,
            retention_s: 30 * 24 * 3600,
            retention_min_s: 24 * 3600,
            retention_every_s: 60,
            audit_retention_s: 400 * 24 * 3600,
            ledger_bytes_max: 0,
            disk_free_bytes_min: 256 << 20,
            clock_settle_s: 600,
            inline_fanout_max: 64,
            dedupe_run_events: 16_384,
        }
    }
}

impl Settings {
    /// One message for each value that is not usable.
    pub fn faults(&self) -> Vec<String> {
        let not_zero = [
            ("retention_s", self.retention_s),
            ("retention_every_s", self.retention_every_s),
            ("audit_retention_s", self.audit_retention_s),
            ("dedupe_run_events", self.dedupe_run_events as u64),
        ];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        let mut faults: Vec<_> = zeros.map(|(key, _)| format!("`data.{key}` is 0, but must be at least 1")).collect();
        if self.ledger_bytes_max != 0 && self.ledger_bytes_max < LEDGER_BYTES_MIN {
            faults.push(format!(
                "`data.ledger_bytes_max` is less than {LEDGER_BYTES_MIN}, the minimum that the ledger needs; 0 means unlimited"
            ));
        }
        faults
    }
}
