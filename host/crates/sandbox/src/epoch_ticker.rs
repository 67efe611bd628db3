//! Increments the engine's epoch, so that a guest's turn also ends by time.
//!
//! Fuel ends a turn after a number of instructions, and an instruction that works on many bytes pays for each of them.
//! But a string that one component of a filter passes to another is copied and validated by the engine in one step that
//! costs no fuel. A guest that does nothing else would occupy its thread for minutes, past every deadline. So turns
//! also end by time: a thread increments the engine's epoch every [`TICK`], and a guest that sees the deadline pass, at
//! its next loop or call, yields.
//!
//! The end of a turn is not observable to a guest, so this clock does not affect determinism.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// Interval between two epoch increments.
const TICK: Duration = Duration::from_millis(1);
/// Epoch increments until a turn ends. With 2, a turn lasts at least one full tick.
pub(super) const TICKS_PER_SLICE: u64 = 2;
/// Ticks without a running guest after which the thread parks. Waking it costs about a tenth of a short call, so it
/// should not be necessary for every other call.
const QUIET_TICKS: u32 = 8;

/// Handle of the ticker thread. The thread parks while no guest is running and exits when this handle is dropped.
pub(super) struct EpochTicker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Number of running guests.
    running: AtomicUsize,
    /// Whether the thread is parked or about to park.
    parked: AtomicBool,
    ended: AtomicBool,
}

/// Keeps the ticker running until dropped.
pub(super) struct RunningGuest(Arc<Shared>);

impl EpochTicker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot create another thread.
    pub(super) fn new(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let ticker = shared.clone();
        let count = move || {
            let mut quiet = 0;
            while !ticker.ended.load(Ordering::Acquire) {
                quiet = if ticker.running.load(Ordering::Acquire) == 0 { quiet + 1 } else { 0 };
                if quiet < QUIET_TICKS {
                    std::thread::sleep(TICK);
                    engine.increment_epoch();
                    continue;
                }
                ticker.parked.store(true, Ordering::SeqCst);
                // A guest that begins after the store above sees `parked` and unparks this thread; a guest that began
                // before it is counted in `running`. So no wake-up is lost.
                if ticker.running.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                }
                ticker.parked.store(false, Ordering::SeqCst);
                quiet = 0;
            }
        };
        let thread = std::thread::Builder::new().name("setgate-ticks".into()).spawn(count)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Call before running a guest, and hold the result while the guest runs.
    pub(super) fn register_guest(&self) -> RunningGuest {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        RunningGuest(self.shared.clone())
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // takes one tick at most
        }
    }
}
