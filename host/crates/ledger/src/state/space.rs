//! Free space: on the disk, and below `ledger_bytes_max`. Checked once a second, with hysteresis, so that ingest does
//! not alternate between refusing and accepting with every event.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::Options;

/// Gauge: free bytes on the ledger's disk that this user may use.
pub(crate) const DISK_FREE_BYTES: &str = "setgate_disk_free_bytes";
/// Gauge: bytes of the ledger's file in use, limited by `data.ledger_bytes_max`.
pub(crate) const USED_BYTES: &str = "setgate_ledger_used_bytes";
/// Gauge: 1 while new data is refused for lack of space.
pub(crate) const SHORT_OF_SPACE: &str = "setgate_ledger_short_of_space";

/// Reason why new data is refused. Deliveries, settlements and retention continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The disk is nearly full.
    #[error("the disk has {free} free bytes, less than `data.disk_free_bytes_min` ({min})")]
    Disk {
        /// Free bytes.
        free: u64,
        /// The configured minimum.
        min: u64,
    },
    /// Space is getting short, and the tenant stores more than an equal share.
    #[error(
        "the host is short of space, and tenants that store more than an equal share ({share} bytes) are refused first: this \
         tenant stores {stored} bytes"
    )]
    Share {
        /// Bytes stored by the tenant.
        stored: u64,
        /// An equal share, in bytes.
        share: u64,
    },
    /// The ledger has reached its maximum size, and nothing in it may be deleted yet.
    #[error("the ledger uses {used} bytes and has reached `data.ledger_bytes_max` ({max})")]
    Ledger {
        /// Bytes in use.
        used: u64,
        /// The configured maximum.
        max: u64,
    },
}

impl Shortage {
    /// Stable code for metrics and problem details.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disk { .. } | Self::Share { .. } => "disk_low",
            Self::Ledger { .. } => "ledger_full",
        }
    }
}

/// Current figures and limits, shared by the ledger's threads.
pub(crate) struct Space {
    folder: PathBuf,
    free_min: AtomicU64,
    ledger_max: AtomicU64,
    free: AtomicU64,
    used: AtomicU64,
    /// Estimated bytes written to the disk since it was last checked.
    written: AtomicU64,
    disk_low: AtomicBool,
    ledger_full: AtomicBool,
    /// Wakes the retention task.
    pub(crate) pressure_started: Notify,
}

impl Space {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            folder: options.path.clone(),
            free_min: AtomicU64::new(options.disk_free_bytes_min),
            ledger_max: AtomicU64::new(options.ledger_bytes_max),
            free: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(0),
            written: AtomicU64::new(0),
            disk_low: AtomicBool::new(false),
            ledger_full: AtomicBool::new(false),
            pressure_started: Notify::new(),
        }
    }

    /// Applies new limits at once.
    pub(crate) fn set_limits(&self, options: &Options) {
        self.free_min.store(options.disk_free_bytes_min, Ordering::Relaxed);
        self.ledger_max.store(options.ledger_bytes_max, Ordering::Relaxed);
        self.set_disk_free(self.free.load(Ordering::Relaxed));
        self.set_ledger_used(self.used());
    }

    fn free_min(&self) -> u64 {
        self.free_min.load(Ordering::Relaxed)
    }

    pub(crate) fn ledger_max(&self) -> u64 {
        self.ledger_max.load(Ordering::Relaxed)
    }

    /// Queries the file system. On an error the previous figures stay.
    pub(crate) fn measure(&self) {
        match free_bytes(&self.folder) {
            Ok(free) => self.set_disk_free(free),
            Err(error) => tracing::debug!(%error, "the free disk space cannot be read"),
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge may be off by a byte in 2^52")]
        {
            metrics::gauge!(DISK_FREE_BYTES).set(self.free.load(Ordering::Relaxed) as f64);
            metrics::gauge!(USED_BYTES).set(self.used() as f64);
        }
        metrics::gauge!(SHORT_OF_SPACE).set(if self.shortage().is_some() { 1.0 } else { 0.0 });
    }

    /// Adds stored bytes. They count twice, since they are written to the WAL and later to the file.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes.saturating_mul(2), Ordering::Relaxed);
    }

    /// Whether space is getting short: free space is below twice the minimum, or the ledger is above 95% of its
    /// maximum. Bytes written since the last check of the disk are subtracted.
    pub(crate) fn is_tight(&self) -> bool {
        let free = self.free.load(Ordering::Relaxed).saturating_sub(self.written.load(Ordering::Relaxed));
        let max = self.ledger_max();
        free < self.free_min().saturating_mul(2) || (max > 0 && self.used() > max - max / 20)
    }

    fn set_disk_free(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        let was = self.disk_low.load(Ordering::Relaxed);
        let low = is_low(was, free, self.free_min());
        self.disk_low.store(low, Ordering::Relaxed);
        let min = self.free_min();
        if low && !was {
            tracing::error!(
                free,
                min,
                "the disk is nearly full: events are refused until space is free again; \
                deliveries and retention continue. Free disk space, or lower `data.disk_free_bytes_min`"
            );
            self.pressure_started.notify_one();
        }
        if was && !low {
            tracing::info!(free, min, "disk space is available again: events are accepted");
        }
    }

    /// Updates the bytes in use of the ledger's file.
    pub(crate) fn set_ledger_used(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let max = self.ledger_max();
        if max > 0 && used > pressure_starts_at(max) {
            self.pressure_started.notify_one();
        }
        let was = self.ledger_full.load(Ordering::Relaxed);
        let full = max > 0 && is_full(was, used, max);
        self.ledger_full.store(full, Ordering::Relaxed);
        if full && !was {
            tracing::error!(
                used,
                max,
                "the ledger has reached its maximum size: events are refused until older ones can be deleted. \
                Raise `data.ledger_bytes_max`, lower `data.retention_min_s`, or resolve due and held deliveries"
            );
        }
        if was && !full {
            tracing::info!(used, max, "the ledger is below its limit again: events are accepted");
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Target size in bytes for early deletion, or `None` if the ledger is small enough.
    pub(crate) fn pressure(&self) -> Option<u64> {
        let max = self.ledger_max();
        (max > 0 && self.used() > pressure_starts_at(max)).then(|| pressure_ends_at(max))
    }

    pub(crate) fn shortage(&self) -> Option<Shortage> {
        if self.disk_low.load(Ordering::Relaxed) {
            return Some(Shortage::Disk { free: self.free.load(Ordering::Relaxed), min: self.free_min() });
        }
        let full = self.ledger_full.load(Ordering::Relaxed);
        full.then(|| Shortage::Ledger { used: self.used(), max: self.ledger_max() })
    }
}

/// Low below the minimum, and then until an eighth more is free.
fn is_low(was: bool, free: u64, min: u64) -> bool {
    free < min || (was && free < min.saturating_add(min / 8))
}

/// Full at the maximum, and then until a twentieth of it is free.
fn is_full(was: bool, used: u64, max: u64) -> bool {
    used >= max || (was && used > max - max / 20)
}

/// Nine tenths of the maximum: early deletion starts.
fn pressure_starts_at(max: u64) -> u64 {
    max - max / 10
}

/// Eight tenths of the maximum: early deletion stops.
fn pressure_ends_at(max: u64) -> u64 {
    max - max / 5
}

fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free_min: u64, ledger_max: u64) -> Space {
        Space::new(&Options { disk_free_bytes_min: free_min, ledger_bytes_max: ledger_max, ..Options::new("/") })
    }

    #[test]
    fn low_disk_has_hysteresis() {
        let space = space(800, 0);
        for (free, short) in [(900, false), (800, false), (799, true), (899, true), (900, false), (899, false)] {
            space.set_disk_free(free);
            let expected = short.then_some(Shortage::Disk { free, min: 800 });
            assert_eq!(space.shortage(), expected, "{free} bytes free");
        }
        space.set_ledger_used(u64::MAX);
        assert_eq!(space.shortage(), None, "0 is no bound");
    }

    #[test]
    fn full_ledger_has_hysteresis() {
        let space = space(0, 1_000);
        for (used, short, down_to) in [
            (900, false, None),
            (901, false, Some(800)),
            (1_000, true, Some(800)),
            (951, true, Some(800)),
            (950, false, Some(800)),
        ] {
            space.set_ledger_used(used);
            let expected = short.then_some(Shortage::Ledger { used, max: 1_000 });
            assert_eq!((space.shortage(), space.pressure()), (expected, down_to), "{used} bytes used");
        }
    }

    #[test]
    fn space_is_tight_before_short() {
        let space = space(800, 1_000);
        assert!(!space.is_tight());
        space.set_disk_free(1_600);
        assert!(!space.is_tight());
        space.add_written(1);
        assert!(space.is_tight(), "what was written since the look is taken off, for the WAL and for the file");
        space.set_disk_free(1_599);
        assert!(space.is_tight() && space.shortage().is_none());
        space.set_disk_free(1_600);
        space.set_ledger_used(951);
        assert!(space.is_tight() && space.shortage().is_none());
        space.set_ledger_used(950);
        assert!(!space.is_tight());
    }

    #[test]
    fn new_limits_apply_at_once() {
        let space = space(0, 1_000);
        space.set_disk_free(500);
        space.set_ledger_used(1_000);
        let bound = |disk_free_bytes_min, ledger_bytes_max| {
            space.set_limits(&Options { disk_free_bytes_min, ledger_bytes_max, ..Options::new("/") });
            (space.shortage(), space.pressure())
        };
        assert_eq!(bound(0, 2_000), (None, None), "there is room again");
        assert_eq!(bound(0, 900), (Some(Shortage::Ledger { used: 1_000, max: 900 }), Some(720)));
        assert_eq!(bound(0, 0), (None, None), "0 is no bound, not even where it was full");
        assert_eq!(bound(501, 0), (Some(Shortage::Disk { free: 500, min: 501 }), None));
    }

    #[test]
    fn free_bytes_are_measured() {
        assert!(free_bytes(&std::env::temp_dir()).is_ok_and(|free| free > 0));
        let space = space(u64::MAX, 0);
        space.measure();
        assert!(matches!(space.shortage(), Some(Shortage::Disk { .. })));
    }
}
