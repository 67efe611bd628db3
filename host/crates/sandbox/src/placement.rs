//! Decides on which thread a call starts: inline on the caller's thread, or on the guest threads.
//!
//! Guests have their own threads, so that none of them blocks a thread that accepts events. But handing a call over and
//! its verdict back takes about half as long as a short call, and most calls finish within their first slice. So if the
//! recent calls of a filter were all short, its next call starts inline, in a turn like any other. A call that does not
//! finish in its first slice continues on the guest threads. Filters without a history start there. If no turn is free,
//! the call waits as a task and blocks no thread.
//!
//! Slices end by fuel and by time, but a single step of a guest may finish before either is checked and still take
//! milliseconds. A filter that does this inline has to run a number of short calls on the guest threads before it may
//! start inline again. The number doubles each time, so no filter delays the callers' threads in more than a small
//! share of its calls.
//!
//! The measure is the work of the guest, not the load of the machine: fuel, and CPU time if the call runs inline. On a
//! busy machine the kernel may preempt a thread in the middle of a slice, which then ends by time. Such a slice is no
//! evidence about the filter.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

/// Short calls in a row before a filter's next call starts inline.
const SHORT_CALLS_MIN: u32 = 8;
/// Upper bound of that number after repeated long calls. A run of this many short calls resets it to
/// [`SHORT_CALLS_MIN`].
const SHORT_CALLS_MAX: u32 = 4_096;
/// A first slice that takes more CPU time than this is not short. Ten times the usual time of a slice of fuel. The
/// measurement is accurate to [`READING_AGE_MAX`].
const SHORT: Duration = Duration::from_millis(1);
/// How long a reading of a thread's CPU time is reused.
const READING_AGE_MAX: Duration = Duration::from_micros(500);

/// History of one filter's recent calls. Concurrent updates may be lost: nothing depends on exact counts.
#[derive(Debug)]
pub(super) struct ShortCallHistory {
    /// Short calls since the last long one.
    streak: AtomicU32,
    needed: AtomicU32,
}

impl ShortCallHistory {
    pub(super) fn new() -> Self {
        Self { streak: AtomicU32::new(0), needed: AtomicU32::new(SHORT_CALLS_MIN) }
    }

    /// Whether the next call starts inline.
    pub(super) fn is_short(&self) -> bool {
        self.streak.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed)
    }

    /// Records a call that ended.
    pub(super) fn count(&self, length: CallLength, started_on: StartedOn) {
        match (length, started_on) {
            // Calls that were held up were already recorded when it happened.
            (_, StartedOn::CallerThreadLong) | (CallLength::Unclear, _) => {}
            (CallLength::Long, StartedOn::CallerThread) => self.record_long_inline(),
            // A long call on the guest threads delays no caller.
            (CallLength::Long, StartedOn::GuestThread) => self.streak.store(0, Ordering::Relaxed),
            (CallLength::Short, _) => {
                let streak = self.streak.load(Ordering::Relaxed).saturating_add(1).min(SHORT_CALLS_MAX);
                self.streak.store(streak, Ordering::Relaxed);
                if streak == SHORT_CALLS_MAX {
                    self.needed.store(SHORT_CALLS_MIN, Ordering::Relaxed);
                }
            }
        }
    }

    /// Records a call that started inline and was not short.
    fn record_long_inline(&self) {
        self.streak.store(0, Ordering::Relaxed);
        let needed = self.needed.load(Ordering::Relaxed);
        self.needed.store(needed.saturating_mul(2).min(SHORT_CALLS_MAX), Ordering::Relaxed);
    }
}

/// Where a call started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartedOn {
    /// On the guest threads.
    GuestThread,
    /// Inline, on its caller's thread.
    CallerThread,
    /// Inline, and its first slice was not short or panicked.
    CallerThreadLong,
}

/// Classification of a call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallLength {
    /// It ended within one slice.
    Short,
    /// It used more fuel than one slice has.
    Long,
    /// Its slices ended by time, due to either the guest or the load of the machine.
    Unclear,
}

impl CallLength {
    /// Classifies a call by the fuel that it used. `fuel_slice` is the fuel of one slice.
    pub(super) fn of(fuel: u64, fuel_slice: u64, slices: u64) -> Self {
        match slices {
            _ if fuel > fuel_slice => Self::Long,
            0 | 1 => Self::Short,
            _ => Self::Unclear,
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// Host code panicked, with this message.
    Panicked(String),
    /// The guest runtime was shut down.
    Stopping,
}

/// Allows a call to start inline.
#[derive(Debug, Clone, Copy)]
pub(super) struct InlineSlot<'a> {
    /// History of the filter's recent calls.
    pub(super) history: &'a ShortCallHistory,
    /// Set by the call once its first slice has ended. Before that, a pending call is waiting for its first turn.
    pub(super) sliced: &'a AtomicBool,
}

/// Runs a call to its end. If `inline` is given and its history is short, the first slice runs on this thread,
/// otherwise the whole call runs on `guests`. A first slice that was not short is recorded immediately, because the
/// caller may be cancelled before the call ends.
///
/// If the returned future is dropped, the call ends after its current slice.
///
/// # Errors
/// See [`CallError`].
pub(super) async fn run<T: Send + 'static>(
    guests: &Handle,
    inline: Option<InlineSlot<'_>>,
    mut call: Pin<Box<impl Future<Output = T> + Send + 'static>>,
) -> Result<(T, StartedOn), CallError> {
    let mut started_on = StartedOn::GuestThread;
    if let Some(InlineSlot { history, sliced }) = inline.filter(|inline| inline.history.is_short()) {
        let first = std::future::poll_fn(|cx| {
            if !history.is_short() {
                // Meanwhile another call of this filter was not short: run this one on the guest threads too.
                return Poll::Ready((Ok(Poll::Pending), None));
            }
            let slice = Slice::begin();
            // Catches panics like the runtime does on the guest threads. A call that panicked is not polled again.
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
                // The call still waits for its first turn. If it were handed over now, it would take its turn on the
                // guest threads, the next inline call would find that turn taken and be handed over as well, and so on
                // under sustained load.
                Ok(Poll::Pending) if !sliced.load(Ordering::Relaxed) => Poll::Pending,
                polled => Poll::Ready((polled, Some(slice.was_long()))),
            }
        });
        let (polled, was_long) = first.await;
        if was_long.is_some() {
            started_on = StartedOn::CallerThread;
        }
        if polled.is_err() || was_long == Some(true) {
            history.record_long_inline();
            started_on = StartedOn::CallerThreadLong;
        }
        match polled {
            Ok(Poll::Ready(ended)) => return Ok((ended, started_on)),
            // The next poll registers the waker of the spawned task instead of this task's.
            Ok(Poll::Pending) => {}
            Err(panic) => return Err(CallError::Panicked(panic_message(&*panic))),
        }
    }
    match AbortOnDrop(guests.spawn(call)).await.map_err(JoinError::try_into_panic) {
        Ok(ended) => Ok((ended, started_on)),
        Err(Ok(panic)) => Err(CallError::Panicked(panic_message(&*panic))),
        Err(Err(_)) => Err(CallError::Stopping),
    }
}

/// Measures the CPU time of a slice on a caller's thread.
///
/// Reading a thread's CPU time takes about a twentieth of a short call, so readings are reused for [`READING_AGE_MAX`].
/// A slice with a short wall-clock time needs no second reading. For a longer one, the work of the thread just before
/// the slice is included in the measurement.
struct Slice {
    began_at: Instant,
    /// CPU time of the thread, read at most [`READING_AGE_MAX`] before the slice.
    cpu_time_before: Duration,
}

impl Slice {
    fn begin() -> Self {
        thread_local! {
            static LAST_READING: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
        }
        let began_at = Instant::now();
        let recent = LAST_READING.get().filter(|(at, _)| began_at.saturating_duration_since(*at) < READING_AGE_MAX);
        let (_, cpu_time_before) = recent.unwrap_or_else(|| {
            let reading = (began_at, thread_time());
            LAST_READING.set(Some(reading));
            reading
        });
        Self { began_at, cpu_time_before }
    }

    fn was_long(&self) -> bool {
        self.began_at.elapsed() > SHORT && thread_time().saturating_sub(self.cpu_time_before) > SHORT + READING_AGE_MAX
    }
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Aborts a spawned future when dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn count(history: &ShortCallHistory, calls: u32) {
        (0..calls).for_each(|_| history.count(CallLength::Short, StartedOn::GuestThread));
    }

    fn short() -> ShortCallHistory {
        let history = ShortCallHistory::new();
        count(&history, SHORT_CALLS_MIN);
        history
    }

    /// Asserts that exactly `calls` more short calls are needed until the next one starts inline.
    fn has_to_show(history: &ShortCallHistory, calls: u32) {
        count(history, calls - 1);
        assert!(!history.is_short());
        count(history, 1);
        assert!(history.is_short());
    }

    /// Starts calls inline by this history. A pending call counts as having finished a slice.
    fn of(history: &ShortCallHistory) -> Option<InlineSlot<'_>> {
        static SLICED: AtomicBool = AtomicBool::new(true);
        Some(InlineSlot { history, sliced: &SLICED })
    }

    fn guests() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn call_length_is_classified_by_fuel_not_time() {
        assert_eq!(CallLength::of(100, 100, 1), CallLength::Short);
        assert_eq!(CallLength::of(101, 100, 1), CallLength::Long, "in one step without fuel");
        assert_eq!(CallLength::of(101, 100, 2), CallLength::Long);
        assert_eq!(CallLength::of(100, 100, 2), CallLength::Unclear);
    }

    #[test]
    fn inline_start_requires_short_history() {
        has_to_show(&ShortCallHistory::new(), SHORT_CALLS_MIN);
    }

    #[test]
    fn required_short_calls_double_after_long_inline_calls() {
        let history = ShortCallHistory::new();
        for needed in [16, 32, 64] {
            count(&history, needed / 2);
            assert!(history.is_short());
            history.count(CallLength::Unclear, StartedOn::CallerThread);
            assert!(history.is_short(), "other threads used the CPU");
            history.count(CallLength::Long, StartedOn::CallerThread);
            assert!(!history.is_short());
            // Long calls on the guest threads do not raise the threshold.
            history.count(CallLength::Long, StartedOn::GuestThread);
            has_to_show(&history, needed);
        }
    }

    #[test]
    fn long_run_of_short_calls_resets_requirement() {
        let history = ShortCallHistory::new();
        for _ in 0..20 {
            count(&history, SHORT_CALLS_MAX);
            history.count(CallLength::Long, StartedOn::CallerThread);
        }
        assert_eq!(history.needed.load(Ordering::Relaxed), SHORT_CALLS_MIN * 2, "every streak of that length");
        history.needed.store(SHORT_CALLS_MAX, Ordering::Relaxed);
        history.count(CallLength::Long, StartedOn::CallerThread);
        assert_eq!(history.needed.load(Ordering::Relaxed), SHORT_CALLS_MAX, "it never exceeds the maximum");
        has_to_show(&history, SHORT_CALLS_MAX);
    }

    /// A call of two polls that records the thread of each.
    async fn polled_on() -> Vec<thread::ThreadId> {
        let mut threads = vec![thread::current().id()];
        tokio::task::yield_now().await;
        threads.push(thread::current().id());
        threads
    }

    #[tokio::test]
    async fn first_slice_runs_inline_and_rest_on_guest_threads() {
        let guests = guests();
        let inline = thread::current().id();
        let history = short();
        let (threads, started_on) = run(guests.handle(), of(&history), Box::pin(polled_on())).await.unwrap();
        assert!(threads[0] == inline && threads[1] != inline && started_on == StartedOn::CallerThread);
        for here_or_not in [None, of(&ShortCallHistory::new())] {
            let (threads, started_on) = run(guests.handle(), here_or_not, Box::pin(polled_on())).await.unwrap();
            assert!(threads[0] != inline && threads[1] != inline && started_on == StartedOn::GuestThread);
        }
        let (at_once, _) =
            run(guests.handle(), of(&history), Box::pin(async { thread::current().id() })).await.unwrap();
        assert_eq!(at_once, inline);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn inline_call_awaits_first_turn_on_caller() {
        let guests = guests();
        let (history, sliced) = (short(), Arc::new(AtomicBool::new(false)));
        let told = sliced.clone();
        let call = Box::pin(async move {
            // Pending once for a turn, then once after a slice.
            let mut threads = polled_on().await;
            told.store(true, Ordering::Relaxed);
            threads.extend(polled_on().await);
            threads
        });
        let (threads, started_on) =
            run(guests.handle(), Some(InlineSlot { history: &history, sliced: &sliced }), call).await.unwrap();
        let inline = thread::current().id();
        assert_eq!(threads.iter().map(|thread| *thread == inline).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(started_on, StartedOn::CallerThread);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn queued_inline_call_moves_after_a_long_call() {
        let guests = guests();
        let (history, sliced) = (short(), AtomicBool::new(false));
        let mut waiting = Box::pin(run(
            guests.handle(),
            Some(InlineSlot { history: &history, sliced: &sliced }),
            Box::pin(async {
                tokio::task::yield_now().await;
                thread::current().id()
            }),
        ));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        history.record_long_inline();
        let (thread, started_on) = waiting.await.unwrap();
        assert!(thread != thread::current().id() && started_on == StartedOn::GuestThread);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn long_first_slice_is_recorded_immediately() {
        let guests = guests();
        let history = short();
        let spinning = async {
            let began_at = thread_time();
            while thread_time().saturating_sub(began_at) <= SHORT + READING_AGE_MAX {}
            std::future::pending::<()>().await;
        };
        // The caller is cancelled before the call ends.
        let mut gone = Box::pin(run(guests.handle(), of(&history), Box::pin(spinning)));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
        drop(gone);
        assert!(!history.is_short());
        has_to_show(&history, SHORT_CALLS_MIN * 2);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn panic_is_reported_on_either_thread() {
        let guests = guests();
        let history = short();
        for inline in [of(&history), None] {
            let lost = run(guests.handle(), inline, Box::pin(async { panic!("{}", ["broken"].join("")) })).await;
            assert!(matches!(&lost, Err::<((), _), _>(CallError::Panicked(words)) if words == "broken"), "{lost:?}");
        }
        assert!(!history.is_short(), "it may have blocked its caller's thread for long");
        let handle = guests.handle().clone();
        guests.shutdown_background();
        assert!(matches!(run(&handle, None, Box::pin(async {})).await, Err(CallError::Stopping)));
    }
}
