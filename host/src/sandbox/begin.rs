//! Where a call begins: on the thread that asks for it, or on the guests' own.
//!
//! Guests have threads of their own, so that none holds one that takes events in. Handing a call over and its verdict back
//! costs about half of what a short call takes, though, and most calls are over within their first slice. So a call of a
//! filter whose last calls were all short begins where it is asked for, in a turn like any other; what is not over after its
//! first slice goes on on the guests' threads. A filter of which nothing is known begins there. Where no turn is free, the call
//! waits for one where it is: its task does, and no thread.
//!
//! A slice is ended by fuel and by time, but one step of a guest may be over before either is looked at and still take
//! milliseconds. A filter that does such a thing on a caller's thread is not let back for some calls, and each time for twice
//! as many, so that no filter holds up those threads for more than a small part of its calls.
//!
//! What counts is what a guest does and not what the machine does to it: fuel, and on a caller's thread the processor's time. On
//! a busy machine a thread is pushed aside in the middle of a slice, which then ends by time; that says nothing of the filter.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

/// Short calls in a row until a filter's next one begins on its caller's thread.
const ROW_MIN: u32 = 8;
/// The same after many that were not short. So many short ones in a row make up for all of them.
const ROW_MAX: u32 = 4_096;
/// A first slice that takes more of the processor's time is not short: ten times what a slice of fuel takes. Give or take
/// [`LOOKED_MAX`].
const SHORT: Duration = Duration::from_millis(1);
/// How long a look at what a thread has had of the processor is good for.
const LOOKED_MAX: Duration = Duration::from_micros(500);

/// How one filter's last calls went. Calls that end at the same time may count as one: nothing depends on the exact number.
#[derive(Debug)]
pub(super) struct Streak {
    /// Short calls since the last that was not.
    row: AtomicU32,
    needed: AtomicU32,
}

impl Streak {
    pub(super) fn new() -> Self {
        Self { row: AtomicU32::new(0), needed: AtomicU32::new(ROW_MIN) }
    }

    /// Whether the next call begins on its caller's thread.
    pub(super) fn is_short(&self) -> bool {
        self.row.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed)
    }

    /// Counts a call that ended.
    pub(super) fn count(&self, went: Went, began: Began) {
        match (went, began) {
            // Counted as soon as it was known.
            (_, Began::HeldUp) | (Went::Unclear, _) => {}
            (Went::Long, Began::Here) => self.held_up(),
            // What begins elsewhere holds nobody up.
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

    /// A call that was not short began on its caller's thread.
    fn held_up(&self) {
        self.row.store(0, Ordering::Relaxed);
        let needed = self.needed.load(Ordering::Relaxed);
        self.needed.store(needed.saturating_mul(2).min(ROW_MAX), Ordering::Relaxed);
    }
}

/// Where a call began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    /// On the guests' threads.
    Elsewhere,
    /// On its caller's thread.
    Here,
    /// There, and its first slice was not short, or ended in a panic.
    HeldUp,
}

/// What a call that ended says of its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// Over within one slice.
    Short,
    /// It used more than the fuel of one.
    Long,
    /// Its slices ended by time, of the guest's or of others' making.
    Unclear,
}

impl Went {
    /// A call that used so much fuel, where a slice is of `fuel_slice`.
    pub(super) fn of(fuel: u64, fuel_slice: u64, slices: u64) -> Self {
        match slices {
            _ if fuel > fuel_slice => Self::Long,
            0 | 1 => Self::Short,
            _ => Self::Unclear,
        }
    }
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(super) enum Lost {
    /// The host's own code failed in it, with these words.
    Panicked(String),
    /// The guests' threads have ended.
    Stopping,
}

/// What lets a call begin on its caller's thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    /// How its filter's last calls went.
    pub(super) streak: &'a Streak,
    /// Set by the call once a slice of it has ended without its end: until then, what it waits for is its turn.
    pub(super) sliced: &'a AtomicBool,
}

/// Runs a call to its end: its first slice on this thread where its filter's calls are short by `here`, else all of it on those
/// of `guests`. A first slice that was not short is counted at once: nobody may be there when the call ends.
///
/// Where what is returned is dropped, the call ends after its slice.
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
                // One that began before it was not short after all: those that wait behind it are not let in here.
                return Poll::Ready((Ok(Poll::Pending), None));
            }
            let slice = Slice::begin();
            // As on the guests' threads, where the runtime does this. A call that panicked is not polled again.
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
                // It has not had its turn yet. Were it handed over for that, the guests' threads would have the turns that
                // those who come next find taken, and so on for as long as there are calls.
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
            // Whoever it waits for is told by its next poll whom to wake instead of this task.
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

/// A slice on a caller's thread, and what that had of the processor before.
///
/// To ask the system for that takes as long as a twentieth of a short call, so it is asked now and then: a slice that was
/// over in no time needs no second look, and one that was not is looked at with what the thread did in the moment before.
struct Slice {
    began_at: Instant,
    /// What the thread had of the processor at most [`LOOKED_MAX`] before the slice.
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

/// What this thread has had of the processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
}

/// A spawned future that ends when nobody waits for it any more.
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

    /// It takes exactly so many short calls more until the next one begins on its caller's thread.
    fn has_to_show(streak: &Streak, calls: u32) {
        count(streak, calls - 1);
        assert!(!streak.is_short());
        count(streak, 1);
        assert!(streak.is_short());
    }

    /// A call by that streak, of which a slice has ended as soon as it is pending.
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
            // Elsewhere it may be as long as it likes.
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

    /// The threads that two polls of a call happen on.
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
            // Pending for a turn, then after a slice.
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
        // Whoever asked is gone before the call has ended.
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
