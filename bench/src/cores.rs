//! Threads pinned to one core, and timing of calls on one core or on all.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cpu_time::ProcessTime;

/// Calls between two reads of the clock.
const BATCH: u64 = 8;

/// Number of calls, elapsed time and CPU time. The CPU time is less than that of all cores if other processes run as
/// well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
}

impl Timed {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds per call, elapsed.
    pub(crate) fn us(&self) -> f64 {
        1e6 / self.per_second()
    }

    /// CPU microseconds per call.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.calls as f64
    }
}

/// Runs `work` on a thread pinned to one core, together with all threads and processes that it starts. Other threads
/// are not affected, so nothing needs to be restored.
pub(crate) fn on_one<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    on_all(|| {
        let cores = core_affinity::get_core_ids().context("the cores of this machine")?;
        let core = cores.last().context("this machine has a core")?;
        anyhow::ensure!(core_affinity::set_for_current(*core), "cannot stay on one core");
        work()
    })
}

/// Runs `work` on a separate thread that belongs to no async runtime.
pub(crate) fn on_all<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        working.join().unwrap_or_else(|_| bail!("a thread of the bench panicked"))
    })
}

/// Repeats a call on this thread for the given time.
pub(crate) fn repeat<T>(lasts: Duration, mut call: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Timed> {
    let (began_at, cpu) = (Instant::now(), ProcessTime::now());
    let mut calls = 0;
    loop {
        for _ in 0..BATCH {
            black_box(call()?);
        }
        calls += BATCH;
        let elapsed = began_at.elapsed();
        if elapsed >= lasts {
            return Ok(Timed { calls, elapsed, cpu: cpu.elapsed() });
        }
    }
}

/// Repeats a call on several threads at once.
pub(crate) fn repeat_on(
    threads: usize,
    lasts: Duration,
    call: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Timed> {
    if threads <= 1 {
        return repeat(lasts, call);
    }
    let cpu = ProcessTime::now();
    let all = thread::scope(|scope| {
        let repeating: Vec<_> = (0..threads).map(|_| scope.spawn(|| repeat(lasts, &call))).collect();
        let mut all = Timed { calls: 0, elapsed: Duration::ZERO, cpu: Duration::ZERO };
        for thread in repeating {
            let timed = thread.join().unwrap_or_else(|_| bail!("a thread of the bench panicked"))?;
            (all.calls, all.elapsed) = (all.calls + timed.calls, all.elapsed.max(timed.elapsed));
            all.cpu = cpu.elapsed();
        }
        anyhow::Ok(all)
    })?;
    Ok(all)
}
