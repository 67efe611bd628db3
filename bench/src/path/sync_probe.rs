//! Measures the duration of disk syncs during a run: writes and syncs a page periodically, beside the host.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

/// Interval of syncs.
const EVERY: Duration = Duration::from_millis(20);
const PAGE_BYTES: usize = 4096;

/// Syncs until it is stopped.
pub(super) struct SyncProbe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<f64>>>,
}

impl SyncProbe {
    /// Uses the file system of temporary files, which contains the host's ledger.
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut file = tempfile::tempfile().context("a file to sync")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut took_ms = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&[7; PAGE_BYTES])?;
                let begin = Instant::now();
                file.sync_data()?;
                took_ms.push(begin.elapsed().as_secs_f64() * 1e3);
                std::thread::sleep(EVERY);
            }
            Ok(took_ms)
        });
        Ok(Self { stop, thread })
    }

    /// Stops, and returns the p99 in milliseconds.
    pub(super) fn p99_ms(self) -> anyhow::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took_ms = self.thread.join().map_err(|_| anyhow!("the thread that syncs panicked"))??;
        took_ms.sort_by(f64::total_cmp);
        let last = took_ms.len().checked_sub(1).context("no sync was made")?;
        Ok(took_ms[last * 99 / 100])
    }
}
