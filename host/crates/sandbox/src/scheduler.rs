//! Schedules guests on the CPU.
//!
//! A guest yields after each slice of fuel by returning from its poll. [`Scheduler::run_in_slices`] polls it only while
//! it holds a place of a [`FairSemaphore`], so that the order is not decided by the runtime's queue, but by the CPU
//! time in nanoseconds that each tenant has used (start-time fair queueing). There are as many turns as cores, and more
//! threads than turns. A slice that takes much longer than usual (one instruction that fills 30 MB cannot be
//! interrupted) is overdue, and meanwhile its turn is lent to another call, on a spare thread or, for the first slice
//! of a short call, on its caller's thread. The operating system then shares the core between them.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use setgate_base::fair::{Acquire, AcquireError, AcquireOutcome, FairLimits, FairSemaphore, Permit};
use setgate_domain::id::TenantId;
use tokio::sync::Notify;

/// A slice that takes longer is overdue. Several times the usual duration.
const OVERDUE: Duration = Duration::from_millis(1);
/// Estimated cost of a turn, until its slice ends and the actual cost is known.
const SLICE: Duration = Duration::from_micros(100);

/// The scheduler of one host.
pub(super) struct Scheduler {
    gate: FairSemaphore,
    /// Number of turns, without lent ones.
    concurrent_slices_max: usize,
    running: Mutex<Running>,
    /// Notified when a call has to wait.
    contended: Notify,
}

/// The slices that are running. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Running {
    slices: Vec<Option<Slice>>,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    began_at: Instant,
    overdue: bool,
}

/// Statistics of a call's turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SliceStats {
    pub(super) slices: u64,
    /// Total time spent waiting for turns.
    pub(super) waited: Duration,
    /// The most turns given to other calls during one wait.
    pub(super) behind: u64,
}

impl Scheduler {
    /// A scheduler for `concurrent_slices_max` concurrent guests on `threads` threads.
    pub(super) fn new(concurrent_slices_max: usize, threads: usize) -> Arc<Self> {
        let concurrent_slices_max = concurrent_slices_max.clamp(1, threads.max(1));
        let limits = FairLimits {
            permits: concurrent_slices_max,
            per_tenant_max: concurrent_slices_max,
            reserve_for_idle_tenants: false,
            queued_per_tenant_max: usize::MAX,
            estimated_cost: nanoseconds(SLICE),
        };
        // Each spare thread may run one lent turn.
        let running = Running { slices: Vec::with_capacity(threads) };
        Arc::new(Self {
            gate: FairSemaphore::new(limits),
            concurrent_slices_max,
            running: Mutex::new(running),
            contended: Notify::new(),
        })
    }

    /// Runs `call` for `tenant` and takes a turn for each poll. The caller pins the call, because it is large to move.
    /// `sliced` is called after each poll that did not end the call.
    ///
    /// A pending call is expected to be at the end of its slice, so it is queued for the next turn immediately. If it
    /// waits for something else, it keeps its place in the queue while it waits.
    ///
    /// # Errors
    /// [`AcquireError::Closed`] if the host is stopping. The call is not polled again.
    pub(super) async fn run_in_slices<T>(
        &self,
        tenant: &TenantId,
        mut call: Pin<&mut impl Future<Output = T>>,
        mut sliced: impl FnMut(),
    ) -> (Result<T, AcquireError>, SliceStats) {
        let mut turn_state = TurnState::Idle;
        let mut stats = SliceStats::default();
        let mut waiting_since: Option<Instant> = None;
        let ended = std::future::poll_fn(|cx| {
            let place = match std::mem::replace(&mut turn_state, TurnState::Idle) {
                TurnState::Granted(place) => place,
                TurnState::Idle => match self.gate.request(tenant, false) {
                    Ok(AcquireOutcome::Granted(place)) => place,
                    Ok(AcquireOutcome::Queued(wait)) => {
                        turn_state = TurnState::Queued(wait);
                        match self.poll_wait(&mut turn_state, cx) {
                            Poll::Ready(Ok(place)) => place,
                            Poll::Ready(Err(refused)) => return Poll::Ready(Err(refused)),
                            Poll::Pending => {
                                waiting_since = Some(Instant::now());
                                return Poll::Pending;
                            }
                        }
                    }
                    Err(refused) => return Poll::Ready(Err(refused)),
                },
                waits @ TurnState::Queued(_) => {
                    turn_state = waits;
                    match self.poll_wait(&mut turn_state, cx) {
                        Poll::Ready(Ok(place)) => place,
                        Poll::Ready(Err(refused)) => return Poll::Ready(Err(refused)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            let began_at = Instant::now();
            if let Some(since) = waiting_since.take() {
                stats.waited += began_at.saturating_duration_since(since);
            }
            stats.slices += 1;
            stats.behind = stats.behind.max(place.grants_while_queued());
            let slice = SliceGuard { turns: self, slot: self.lock().begin(began_at) };
            let polled = call.as_mut().poll(cx);
            drop(slice);
            let now = Instant::now();
            let cost = nanoseconds(now.saturating_duration_since(began_at));
            match polled {
                Poll::Ready(ended) => {
                    place.release(cost);
                    Poll::Ready(Ok(ended))
                }
                Poll::Pending => {
                    sliced();
                    turn_state = TurnState::Queued(place.release_and_queue(cost));
                    match self.poll_wait(&mut turn_state, cx) {
                        Poll::Ready(Ok(place)) => turn_state = TurnState::Granted(place),
                        Poll::Ready(Err(refused)) => return Poll::Ready(Err(refused)),
                        Poll::Pending => waiting_since = Some(now),
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        (ended, stats)
    }

    /// Lends out overdue turns while any call waits. Runs as a task on the guest threads.
    pub(super) async fn lend_overdue(self: Arc<Self>) {
        loop {
            self.contended.notified().await;
            while self.gate.has_waiters() {
                tokio::time::sleep(OVERDUE).await;
                let mut running = self.lock();
                let overdue = running.find_overdue(Instant::now());
                self.gate.set_permits(self.concurrent_slices_max + overdue);
            }
        }
    }

    /// Ends all current and future waits.
    pub(super) fn close(&self) {
        self.gate.close();
    }

    /// Polls the wait in `next`, and resets `next` if the wait is over.
    fn poll_wait(
        &self,
        turn_state: &mut TurnState,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<Permit, AcquireError>> {
        let TurnState::Queued(wait) = turn_state else { return Poll::Ready(Err(AcquireError::Closed)) };
        let polled = pin!(wait).poll(cx);
        match polled {
            Poll::Ready(_) => *turn_state = TurnState::Idle,
            Poll::Pending => self.contended.notify_one(),
        }
        polled
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of a call between two slices.
enum TurnState {
    Idle,
    Queued(Acquire),
    Granted(Permit),
}

/// A running slice. A drop guard, so that the slice also ends if the guest's poll panics.
struct SliceGuard<'a> {
    turns: &'a Scheduler,
    slot: usize,
}

impl Drop for SliceGuard<'_> {
    fn drop(&mut self) {
        let mut running = self.turns.lock();
        if running.end(self.slot) {
            // The lent turn has to be returned: the next place that is released is not given to another call.
            self.turns.gate.set_permits(self.turns.concurrent_slices_max + running.overdue());
        }
    }
}

impl Running {
    /// Records a slice and returns its index.
    fn begin(&mut self, began_at: Instant) -> usize {
        let slice = Some(Slice { began_at, overdue: false });
        match self.slices.iter().position(Option::is_none) {
            Some(free) => {
                self.slices[free] = slice;
                free
            }
            None => {
                self.slices.push(slice);
                self.slices.len() - 1
            }
        }
    }

    /// Ends a slice. Returns whether it was overdue.
    fn end(&mut self, slot: usize) -> bool {
        self.slices.get_mut(slot).and_then(Option::take).is_some_and(|slice| slice.overdue)
    }

    /// Marks overdue slices and returns their number.
    fn find_overdue(&mut self, now: Instant) -> usize {
        for slice in self.slices.iter_mut().flatten() {
            slice.overdue |= now.saturating_duration_since(slice.began_at) >= OVERDUE;
        }
        self.overdue()
    }

    fn overdue(&self) -> usize {
        self.slices.iter().flatten().filter(|slice| slice.overdue).count()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_slice_is_overdue_until_it_ends() {
        let mut running = Running::default();
        let now = Instant::now();
        let (long, short) = (running.begin(now), running.begin(now + OVERDUE));
        assert_eq!(running.find_overdue(now + OVERDUE), 1);
        assert!(!running.end(short));
        assert_eq!(running.begin(now + OVERDUE), short, "its index is reused");
        assert_eq!(running.overdue(), 1);
        assert!(running.end(long));
        assert_eq!(running.overdue(), 0);
    }

    /// A call of `slices` polls that logs its name at each.
    fn call<'a>(name: char, slices: usize, log: &'a Mutex<String>) -> impl Future<Output = ()> + 'a {
        let mut left = slices;
        std::future::poll_fn(move |cx| {
            log.lock().unwrap().push(name);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[tokio::test]
    async fn short_call_waits_one_slice_per_tenant() {
        let turns = Scheduler::new(1, 1);
        let log = Mutex::new(String::new());
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<TenantId>().unwrap());
        let mut loops = [&a, &a, &a, &b, &b, &b]
            .into_iter()
            .map(|tenant| {
                let name = tenant.as_str().chars().next().unwrap();
                let (turns, log) = (&turns, &log);
                Box::pin(async move { turns.run_in_slices(tenant, pin!(call(name, 100, log)), || {}).await })
            })
            .collect::<Vec<_>>();
        for _ in 0..10 {
            for call in &mut loops {
                assert!(futures_util::poll!(call).is_pending());
            }
        }
        let before = log.lock().unwrap().len();
        let mut calling = pin!(call('c', 1, &log));
        let mut short = pin!(turns.run_in_slices(&c, calling.as_mut(), || {}));
        let mut rounds = 0;
        while futures_util::poll!(short.as_mut()).is_pending() {
            rounds += 1;
            assert!(rounds < 10, "{}", log.lock().unwrap());
            for call in &mut loops {
                let _ = futures_util::poll!(call);
                // Like a runtime: a task that was woken is polled next.
                if futures_util::poll!(short.as_mut()).is_ready() {
                    let others = log.lock().unwrap()[before..].matches(['a', 'b']).count();
                    assert!(others <= 4, "{}", log.lock().unwrap());
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn dropped_call_releases_its_turn() {
        let turns = Scheduler::new(1, 1);
        let log = Mutex::new(String::new());
        let [a, b] = ["a", "b"].map(|name| name.parse::<TenantId>().unwrap());
        let mut endless = pin!(call('a', 100, &log));
        let mut left = Box::pin(turns.run_in_slices(&a, endless.as_mut(), || {}));
        assert!(futures_util::poll!(left.as_mut()).is_pending(), "it also gets the next turn");
        let mut calling = pin!(call('b', 1, &log));
        let mut waits = pin!(turns.run_in_slices(&b, calling.as_mut(), || {}));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(left);
        let (ended, stats) = waits.await;
        assert!(ended.is_ok());
        assert_eq!(stats.slices, 1);
    }

    #[tokio::test]
    async fn overdue_turn_is_lent_to_another_call() {
        let turns = Scheduler::new(1, 2);
        let [a, b] = ["a", "b"].map(|name| name.parse::<TenantId>().unwrap());
        let Ok(AcquireOutcome::Granted(_held)) = turns.gate.request(&a, false) else { panic!("a free turn") };
        let slot = turns.lock().begin(Instant::now());
        let lending = tokio::spawn(turns.clone().lend_overdue());
        let (ended, _) = turns.run_in_slices(&b, pin!(std::future::ready(())), || {}).await;
        assert!(ended.is_ok());
        drop(SliceGuard { turns: &turns, slot });
        assert!(
            matches!(turns.gate.request(&b, false), Ok(AcquireOutcome::Queued(_))),
            "a lent turn has to be returned"
        );
        lending.abort();
    }
}
