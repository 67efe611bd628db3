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
const ROW_MIN: u32 = 8;
/// Upper bound of that number after repeated long calls. A run of this many short calls resets it to [`ROW_MIN`].
const ROW_MAX: u32 = 4_096;
/// A first slice that takes more CPU time than this is not short. Ten times the usual time of a slice of fuel. The
/// measurement is accurate to [`LOOKED_MAX`].
const SHORT: Duration = Duration::from_millis(1);
/// How long a reading of a thread's CPU time is reused.
const LOOKED_MAX: Duration = Duration::from_micros(500);

/// History of one filter's recent calls. Concurrent updates may be lost: nothing depends on exact counts.
#[derive(Debug)]
pub(super) struct Streak {
    /// Short calls since the last long one.
    row: AtomicU32,
    needed: AtomicU32,
}

impl Streak {
    pub(super) fn new() -> Self {
        Self { row: AtomicU32::new(0), needed: AtomicU32::new(ROW_MIN) }
    }

    /// Whether the next call starts inline.
    pub(super) fn is_short(&self) -> bool {
        self.row.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed)
    }

    /// Records a call that ended.
    pub(super) fn count(&self, went: Went, began: Began) {
        match (went, began) {
            // Calls that were held up were already recorded when it happened.
            (_, Began::HeldUp) | (Went::Unclear, _) => {}
            (Went::Long, Began::Here) => self.held_up(),
            // A long call on the guest threads delays no caller.
            (Went::Long, Began::Elsewhere) => self.row.store(0, Ordering::Relaxed),
            (Went::Short, _) => {
                let row = self.row.load(Ordering::Relaxed).saturating_add(1).min(ROW_MAX);
                self.row.store(row, Ordering::Relaxed);
                if row == ROW_MAX {
                    self.needed.store(ROW_MIN, Ordering::Relaxed);
                }
            }
        }
    }

    /// Records a call that started inline and was not short.
    fn held_up(&self) {
        self.row.store(0, Ordering::Relaxed);
        let needed = self.needed.load(Ordering::Relaxed);
        self.needed.store(needed.saturating_mul(2).min(ROW_MAX), Ordering::Relaxed);
    }
}

/// Where a call started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    /// On the guest threads.
    Elsewhere,
    /// Inline, on its caller's thread.
    Here,
    /// Inline, and its first slice was not short or panicked.
    HeldUp,
}

/// Classification of a call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It ended within one slice.
    Short,
    /// It used more fuel than one slice has.
    Long,
    /// Its slices ended by time, due to either the guest or the load of the machine.
    Unclear,
}

impl Went {
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
pub(super) enum Lost {
    /// Host code panicked, with this message.
    Panicked(String),
    /// The guest runtime was shut down.
    Stopping,
}

/// Allows a call to start inline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    /// History of the filter's recent calls.
    pub(super) streak: &'a Streak,
    /// Set by the call once its first slice has ended. Before that, a pending call is waiting for its first turn.
    pub(super) sliced: &'a AtomicBool,
}

/// Runs a call to its end. If `here` is given and its history is short, the first slice runs on this thread, otherwise
/// the whole call runs on `guests`. A first slice that was not short is recorded immediately, because the caller may be
/// cancelled before the call ends.
///
/// If the returned future is dropped, the call ends after its current slice.
///
/// # Errors
/// See [`Lost`].
pub(super) async fn run<T: Send + 'static>(
    guests: &Handle,
    here: Option<Here<'_>>,
    mut call: Pin<Box<impl Future<Output = T> + Send + 'static>>,
) -> Result<(T, Began), Lost> {
    let mut began = Began::Elsewhere;
    if let Some(Here { streak, sliced }) = here.filter(|here| here.streak.is_short()) {
        let first = std::future::poll_fn(|cx| {
            if !streak.is_short() {
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
            began = Began::Here;
        }
        if polled.is_err() || was_long == Some(true) {
            streak.held_up();
            began = Began::HeldUp;
        }
        match polled {
            Ok(Poll::Ready(ended)) => return Ok((ended, began)),
            // The next poll registers the waker of the spawned task instead of this task's.
            Ok(Poll::Pending) => {}
            Err(panic) => return Err(Lost::Panicked(words(&*panic))),
        }
    }
    match AbortOnDrop(guests.spawn(call)).await.map_err(JoinError::try_into_panic) {
        Ok(ended) => Ok((ended, began)),
        Err(Ok(panic)) => Err(Lost::Panicked(words(&*panic))),
        Err(Err(_)) => Err(Lost::Stopping),
    }
}

/// Measures the CPU time of a slice on a caller's thread.
///
/// Reading a thread's CPU time takes about a twentieth of a short call, so readings are reused for [`LOOKED_MAX`]. A
/// slice with a short wall-clock time needs no second reading. For a longer one, the work of the thread just before the
/// slice is included in the measurement.
struct Slice {
    began_at: Instant,
    /// CPU time of the thread, read at most [`LOOKED_MAX`] before the slice.
    had: Duration,
}

impl Slice {
    fn begin() -> Self {
        thread_local! {
            static LOOKED: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
        }
        let began_at = Instant::now();
        let recent = LOOKED.get().filter(|(at, _)| began_at.saturating_duration_since(*at) < LOOKED_MAX);
        let (_, had) = recent.unwrap_or_else(|| {
            let looked = (began_at, thread_time());
            LOOKED.set(Some(looked));
            looked
        });
        Self { began_at, had }
    }

    fn was_long(&self) -> bool {
        self.began_at.elapsed() > SHORT && thread_time().saturating_sub(self.had) > SHORT + LOOKED_MAX
    }
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
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

    fn count(streak: &Streak, calls: u32) {
        (0..calls).for_each(|_| streak.count(Went::Short, Began::Elsewhere));
    }

    fn short() -> Streak {
        let streak = Streak::new();
        count(&streak, ROW_MIN);
        streak
    }

    /// Asserts that exactly `calls` more short calls are needed until the next one starts inline.
    fn has_to_show(streak: &Streak, calls: u32) {
        count(streak, calls - 1);
        assert!(!streak.is_short());
        count(streak, 1);
        assert!(streak.is_short());
    }

    /// Starts calls inline by this history. A pending call counts as having finished a slice.
    fn of(streak: &Streak) -> Option<Here<'_>> {
        static SLICED: AtomicBool = AtomicBool::new(true);
        Some(Here { streak, sliced: &SLICED })
    }

    fn guests() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn fuel_says_how_a_call_went_and_time_does_not() {
        assert_eq!(Went::of(100, 100, 1), Went::Short);
        assert_eq!(Went::of(101, 100, 1), Went::Long, "in one step that cost it");
        assert_eq!(Went::of(101, 100, 2), Went::Long);
        assert_eq!(Went::of(100, 100, 2), Went::Unclear);
    }

    #[test]
    fn a_filter_has_to_show_that_it_is_short() {
        has_to_show(&Streak::new(), ROW_MIN);
    }

    #[test]
    fn what_is_not_short_is_let_back_later_each_time() {
        let streak = Streak::new();
        for needed in [16, 32, 64] {
            count(&streak, needed / 2);
            assert!(streak.is_short());
            streak.count(Went::Unclear, Began::Here);
            assert!(streak.is_short(), "others took the processor");
            streak.count(Went::Long, Began::Here);
            assert!(!streak.is_short());
            // Long calls on the guest threads do not raise the threshold.
            streak.count(Went::Long, Began::Elsewhere);
            has_to_show(&streak, needed);
        }
    }

    #[test]
    fn a_long_row_makes_up_for_all() {
        let streak = Streak::new();
        for _ in 0..20 {
            count(&streak, ROW_MAX);
            streak.count(Went::Long, Began::Here);
        }
        assert_eq!(streak.needed.load(Ordering::Relaxed), ROW_MIN * 2, "each row of that length did");
        streak.needed.store(ROW_MAX, Ordering::Relaxed);
        streak.count(Went::Long, Began::Here);
        assert_eq!(streak.needed.load(Ordering::Relaxed), ROW_MAX, "and never more than that");
        has_to_show(&streak, ROW_MAX);
    }

    /// A call of two polls that records the thread of each.
    async fn polled_on() -> Vec<thread::ThreadId> {
        let mut threads = vec![thread::current().id()];
        tokio::task::yield_now().await;
        threads.push(thread::current().id());
        threads
    }

    #[tokio::test]
    async fn the_first_slice_is_computed_here_and_the_next_one_elsewhere() {
        let guests = guests();
        let here = thread::current().id();
        let streak = short();
        let (threads, began) = run(guests.handle(), of(&streak), Box::pin(polled_on())).await.unwrap();
        assert!(threads[0] == here && threads[1] != here && began == Began::Here);
        for here_or_not in [None, of(&Streak::new())] {
            let (threads, began) = run(guests.handle(), here_or_not, Box::pin(polled_on())).await.unwrap();
            assert!(threads[0] != here && threads[1] != here && began == Began::Elsewhere);
        }
        let (at_once, _) = run(guests.handle(), of(&streak), Box::pin(async { thread::current().id() })).await.unwrap();
        assert_eq!(at_once, here);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn what_waits_for_its_first_turn_waits_here() {
        let guests = guests();
        let (streak, sliced) = (short(), Arc::new(AtomicBool::new(false)));
        let told = sliced.clone();
        let call = Box::pin(async move {
            // Pending once for a turn, then once after a slice.
            let mut threads = polled_on().await;
            told.store(true, Ordering::Relaxed);
            threads.extend(polled_on().await);
            threads
        });
        let (threads, began) =
            run(guests.handle(), Some(Here { streak: &streak, sliced: &sliced }), call).await.unwrap();
        let here = thread::current().id();
        assert_eq!(threads.iter().map(|thread| *thread == here).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(began, Began::Here);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn what_waits_while_another_turns_out_to_be_long_goes_elsewhere() {
        let guests = guests();
        let (streak, sliced) = (short(), AtomicBool::new(false));
        let mut waiting = Box::pin(run(
            guests.handle(),
            Some(Here { streak: &streak, sliced: &sliced }),
            Box::pin(async {
                tokio::task::yield_now().await;
                thread::current().id()
            }),
        ));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        streak.held_up();
        let (thread, began) = waiting.await.unwrap();
        assert!(thread != thread::current().id() && began == Began::Elsewhere);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn a_first_slice_that_takes_long_counts_at_once() {
        let guests = guests();
        let streak = short();
        let spinning = async {
            let began_at = thread_time();
            while thread_time().saturating_sub(began_at) <= SHORT + LOOKED_MAX {}
            std::future::pending::<()>().await;
        };
        // The caller is cancelled before the call ends.
        let mut gone = Box::pin(run(guests.handle(), of(&streak), Box::pin(spinning)));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
        drop(gone);
        assert!(!streak.is_short());
        has_to_show(&streak, ROW_MIN * 2);
        guests.shutdown_background();
    }

    #[tokio::test]
    async fn a_panic_is_told_wherever_it_happens() {
        let guests = guests();
        let streak = short();
        for here in [of(&streak), None] {
            let lost = run(guests.handle(), here, Box::pin(async { panic!("{}", ["broken"].join("")) })).await;
            assert!(matches!(&lost, Err::<((), _), _>(Lost::Panicked(words)) if words == "broken"), "{lost:?}");
        }
        assert!(!streak.is_short(), "it held its caller's thread up for who knows how long");
        let handle = guests.handle().clone();
        guests.shutdown_background();
        assert!(matches!(run(&handle, None, Box::pin(async {})).await, Err(Lost::Stopping)));
    }
}
