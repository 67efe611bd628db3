//! Limits each tenant's fuel per second.
//!
//! Each tenant has a token bucket that refills at its quota's `fuel_per_second` and holds at most one second's fuel.
//! Calls are charged for the fuel they used, slice by slice, so the level may become negative. No call of the tenant
//! starts until the level is positive again. The wait happens before the call gets an instance and before its time
//! limits apply: an exhausted budget delays a call but never makes it fault.
//!
//! The calls of a tenant start one after the other: the first in the queue waits for fuel and then for a slot, and the
//! others wait for the first. So a tenant's debt is bounded by its calls in slots, not by the length of its queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use setgate_base::fair::AcquireError;
use setgate_domain::id::TenantId;
use tokio_util::sync::CancellationToken;

/// Number of buckets above which unused full ones are dropped.
const IDLE_BUCKETS_MAX: usize = 64;
/// Longest sleep before the level is checked again, since the quota may have been raised meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The buckets of all tenants.
pub(super) struct FuelBudgets {
    buckets: Mutex<HashMap<TenantId, Arc<FuelBucket>>>,
    closed: CancellationToken,
}

/// The bucket of one tenant.
pub(super) struct FuelBucket {
    level: Mutex<Level>,
    /// The tenant's FIFO queue.
    queue: Arc<tokio::sync::Mutex<()>>,
}

/// The level of a bucket. Pure: the time is an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    /// Negative if the tenant is in debt.
    fuel: i64,
    per_second: i64,
    filled_at: Instant,
}

/// The first place in a tenant's queue, until dropped.
pub(super) struct QueueHead(#[expect(dead_code, reason = "held, not read")] tokio::sync::OwnedMutexGuard<()>);

/// The charges of one call.
pub(super) struct Charges {
    bucket: Arc<FuelBucket>,
    charged: u64,
}

impl FuelBudgets {
    pub(super) fn new() -> Self {
        Self { buckets: Mutex::default(), closed: CancellationToken::new() }
    }

    /// The tenant's bucket. `fuel_per_second` is its current quota.
    pub(super) fn of(&self, tenant: &TenantId, fuel_per_second: u64) -> Arc<FuelBucket> {
        let now = Instant::now();
        let per_second = i64::try_from(fuel_per_second.max(1)).unwrap_or(i64::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(tenant) {
            bucket.lock().set_rate(per_second, now);
            return bucket.clone();
        }
        if buckets.len() >= IDLE_BUCKETS_MAX {
            // A full bucket is equivalent to a new one.
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.lock().is_full(now));
        }
        let level = Mutex::new(Level::full(per_second, now));
        let bucket = Arc::new(FuelBucket { level, queue: Arc::default() });
        buckets.insert(tenant.clone(), bucket.clone());
        bucket
    }

    /// Waits until a call may start, if [`FuelBucket::try_queue_head`] returned `None`. Drop the result once the call
    /// has its slot.
    ///
    /// # Errors
    /// [`AcquireError::Closed`] after [`Self::close`].
    pub(super) async fn wait(&self, bucket: &FuelBucket) -> Result<QueueHead, AcquireError> {
        let waiting = async {
            let first = bucket.queue.clone().lock_owned().await;
            while let Some(wait) = bucket.wait(Instant::now()) {
                tokio::time::sleep(wait.min(SLEEP_MAX)).await;
            }
            QueueHead(first)
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(AcquireError::Closed),
            first = waiting => Ok(first),
        }
    }

    /// Ends all current and future waits.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }
}

impl FuelBucket {
    /// Fast path: the first place, if the bucket is not exhausted and the queue is empty. This cannot overtake waiting
    /// calls: the lock is fair and passed directly to the next waiter.
    pub(super) fn try_queue_head(&self) -> Option<QueueHead> {
        let first = self.queue.clone().try_lock_owned().ok()?;
        (!self.is_exhausted()).then_some(QueueHead(first))
    }

    /// Whether the budget is exhausted.
    pub(super) fn is_exhausted(&self) -> bool {
        self.wait(Instant::now()).is_some()
    }

    /// Time until the budget is positive again. `None` if it is positive now.
    pub(super) fn fuel_wait(&self) -> Option<Duration> {
        self.wait(Instant::now())
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        self.lock().wait(now)
    }

    fn lock(&self) -> MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charges {
    pub(super) fn new(bucket: Arc<FuelBucket>) -> Self {
        Self { bucket, charged: 0 }
    }

    /// Charges fuel that was used.
    pub(super) fn charge(&mut self, fuel: u64) {
        self.charged = self.charged.saturating_add(fuel);
        self.bucket.lock().spend(signed(fuel));
    }

    /// Corrects the charges to the total fuel of the call.
    pub(super) fn settle(self, fuel: u64) {
        self.bucket.lock().spend(signed(fuel).saturating_sub(signed(self.charged)));
    }
}

impl Level {
    fn full(per_second: i64, now: Instant) -> Self {
        Self { fuel: per_second, per_second, filled_at: now }
    }

    /// Changes the quota. A larger one refills faster from now on; a smaller one discards the excess fuel.
    fn set_rate(&mut self, per_second: i64, now: Instant) {
        if self.per_second != per_second {
            self.fill(now);
            self.per_second = per_second;
            self.fuel = self.fuel.min(per_second);
        }
    }

    fn spend(&mut self, fuel: i64) {
        self.fuel = self.fuel.saturating_sub(fuel);
    }

    /// Time until a call may start. `None` if it may start now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        // Wait until the level is 1, so that a call can start after the wait.
        let missing = 1_i64.saturating_sub(self.fuel);
        if missing <= 0 {
            return None;
        }
        let nanos = i128::from(missing) * 1_000_000_000 / i128::from(self.per_second) + 1;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.fuel >= self.per_second
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_nanos();
        let gained = i128::from(self.per_second).saturating_mul(i128::try_from(elapsed).unwrap_or(i128::MAX));
        let gained = i64::try_from(gained / 1_000_000_000).unwrap_or(i64::MAX);
        self.fuel = self.fuel.saturating_add(gained);
        if self.fuel >= self.per_second {
            (self.fuel, self.filled_at) = (self.per_second, now);
        } else {
            // Advance only by the time that yielded whole units, so that fractions accumulate.
            let taken = i128::from(gained) * 1_000_000_000 / i128::from(self.per_second);
            self.filled_at += Duration::from_nanos(u64::try_from(taken).unwrap_or(0));
        }
    }
}

fn signed(fuel: u64) -> i64 {
    i64::try_from(fuel).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_second_of_fuel_is_available_and_debt_delays() {
        let begin = Instant::now();
        let mut level = Level::full(1_000, begin);
        level.spend(1_000);
        assert_eq!(level.wait(begin), Some(Duration::from_nanos(1_000_001)), "one unit");
        level.spend(2_000);
        let wait = level.wait(begin).unwrap();
        assert!(wait > 2 * SECOND && wait < 3 * SECOND, "{wait:?}");
        assert_eq!(level.wait(begin + wait), None);
        assert!(level.wait(begin + SECOND).is_none(), "time does not run backwards");
    }

    #[test]
    fn bucket_holds_at_most_one_second() {
        let begin = Instant::now();
        let mut level = Level::full(1_000, begin);
        level.spend(500);
        assert!(level.is_full(begin + 3600 * SECOND));
        level.spend(1_000);
        assert!(level.wait(begin + 3600 * SECOND).is_some());
    }

    #[test]
    fn refill_does_not_depend_on_step_size() {
        let begin = Instant::now();
        let mut level = Level::full(3, begin);
        level.spend(6);
        for millis in (0..=1_000).step_by(7) {
            level.wait(begin + Duration::from_millis(millis));
        }
        level.fill(begin + SECOND);
        assert_eq!(level.fuel, 0, "three units were refilled");
    }

    #[test]
    fn quota_change_adjusts_refill_and_capacity() {
        let begin = Instant::now();
        let mut level = Level::full(1_000, begin);
        level.spend(11_000);
        level.set_rate(10_000, begin);
        assert_eq!(level.wait(begin + SECOND + Duration::from_millis(1)), None);
        level.set_rate(10, begin + 10 * SECOND);
        assert_eq!(level.fuel, 10);
    }

    #[test]
    fn call_is_charged_its_actual_fuel() {
        let budgets = FuelBudgets::new();
        let bucket = budgets.of(&"acme".parse().unwrap(), 1_000_000);
        let before = bucket.lock().fuel;
        let mut charges = Charges::new(bucket.clone());
        charges.charge(400);
        charges.charge(400);
        charges.settle(500);
        assert_eq!(bucket.lock().fuel, before - 500);
        Charges::new(bucket.clone()).charge(300);
        assert_eq!(bucket.lock().fuel, before - 800, "even if the call is dropped");
    }

    #[tokio::test]
    async fn waiters_are_fifo_and_can_cancel() {
        let budgets = FuelBudgets::new();
        let tenant: TenantId = "acme".parse().unwrap();
        let bucket = budgets.of(&tenant, 1);
        assert!(budgets.wait(&bucket).await.is_ok());
        Charges::new(bucket.clone()).charge(1_000_000);
        assert!(bucket.is_exhausted());
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(budgets.wait(&bucket))).collect();
        for wait in &mut waits {
            assert!(futures_util::poll!(wait).is_pending());
        }
        drop(waits.remove(0));
        bucket.lock().fuel = 10;
        let mut second = waits.pop().unwrap();
        assert!(futures_util::poll!(&mut second).is_pending(), "another call is first in the queue");
        let first = waits.pop().unwrap().await.unwrap();
        assert!(futures_util::poll!(&mut second).is_pending(), "until it has its slot");
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn close_ends_all_waits() {
        let budgets = FuelBudgets::new();
        let bucket = budgets.of(&"acme".parse().unwrap(), 1);
        Charges::new(bucket.clone()).charge(1_000_000);
        let mut waits = Box::pin(budgets.wait(&bucket));
        assert!(futures_util::poll!(&mut waits).is_pending());
        budgets.close();
        assert_eq!(waits.await.err(), Some(AcquireError::Closed));
    }

    #[test]
    fn full_buckets_are_evicted_and_debts_retained() {
        let budgets = FuelBudgets::new();
        let owing = budgets.of(&"owing".parse().unwrap(), 1);
        Charges::new(owing).charge(1_000_000);
        for n in 0..1_000 {
            budgets.of(&format!("t-{n}").parse().unwrap(), 1_000);
        }
        assert!(budgets.buckets.lock().unwrap().len() <= IDLE_BUCKETS_MAX + 1);
        assert!(budgets.of(&"owing".parse().unwrap(), 1).is_exhausted());
    }
}
