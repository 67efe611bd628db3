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
/// Ticks without a guest after which the thread stands still. Waking it costs as much as a tenth of a short call, so it
/// should not be every other call that does.
const QUIET_TICKS: u32 = 8;

/// The thread that counts; it stands still while no guest has run for a while, and ends when this is dropped.
pub(super) struct Ticks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Guests that run.
    running: AtomicUsize,
    /// Whether the thread waits to be woken, or is about to.
    stands: AtomicBool,
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
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            stands: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let seen = shared.clone();
        let count = move || {
            let mut quiet = 0;
            while !seen.ended.load(Ordering::Acquire) {
                quiet = if seen.running.load(Ordering::Acquire) == 0 { quiet + 1 } else { 0 };
                if quiet < QUIET_TICKS {
                    std::thread::sleep(TICK);
                    engine.increment_epoch();
                    continue;
                }
                seen.stands.store(true, Ordering::SeqCst);
                // Whoever comes from now on sees that it stands, and wakes it; whoever came before is seen here.
                if seen.running.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                }
                seen.stands.store(false, Ordering::SeqCst);
                quiet = 0;
            }
        };
        let thread = std::thread::Builder::new().name("setgate-ticks".into()).spawn(count)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// To be held while a guest runs.
    pub(super) fn begin(&self) -> Ticking {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.stands.load(Ordering::SeqCst)
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
