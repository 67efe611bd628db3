//! The second clock that ends a guest's turn.
//!
//! Fuel ends a turn after so many instructions, and an instruction that works on many bytes pays for each of them. But a
//! text that goes from one component of a filter to another is copied and checked by the engine in one step that costs no
//! fuel: a guest that does nothing else would keep its thread for minutes, past every deadline. So turns also end by time:
//! a thread counts the engine's epoch up every [`TICK`], and a guest that sees it change, at its next loop or call, lets
//! others go on.
//!
//! A turn's end changes nothing that a guest can see, so this clock does not make runs differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// Time between two counts.
const TICK: Duration = Duration::from_millis(1);
/// Counts after which a turn ends: it has at least one tick's time.
pub(super) const TICKS_PER_TURN: u64 = 2;

/// The thread that counts; it stands still while no guest runs, and ends when this is dropped.
pub(super) struct Ticks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Guests that run.
    running: AtomicUsize,
    ended: AtomicBool,
}

/// As long as this lives, there are ticks.
pub(super) struct Ticking(Arc<Shared>);

impl Ticks {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no more threads.
    pub(super) fn new(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { running: AtomicUsize::new(0), ended: AtomicBool::new(false) });
        let seen = shared.clone();
        let count = move || {
            while !seen.ended.load(Ordering::Acquire) {
                if seen.running.load(Ordering::Acquire) == 0 {
                    // Whoever comes first wakes this thread; having come between the look and here counts as well.
                    std::thread::park();
                } else {
                    std::thread::sleep(TICK);
                    engine.increment_epoch();
                }
            }
        };
        let thread = std::thread::Builder::new().name("setgate-ticks".into()).spawn(count)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// To be held while a guest runs.
    pub(super) fn begin(&self) -> Ticking {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Ticking(self.shared.clone())
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // a tick at the longest
        }
    }
}
