//! Rate limits: for requests that a user can cause Setgate to send to a receiver, and for keys to generate.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use setgate_base::clock::Clock;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

use super::Error;

/// Test events and verifications of one subscription per minute; further ones are answered 429.
const TESTS_PER_MINUTE_MAX: u32 = 10;
/// Issuer keys that a tenant may create or import per minute; further requests are answered 429. Generating an RSA key
/// costs 20 to 60 ms of a core.
const KEYS_PER_MINUTE_MAX: u32 = 10;
/// Length of a window in milliseconds.
const WINDOW_MS: i64 = 60_000;
/// Number of windows above which expired ones are evicted.
const WINDOWS_KEPT: usize = 1_000;

/// Limits the test events and the verifications of each subscription. They share one limit, because both send a request
/// to the receiver at the caller's demand.
#[derive(Clone)]
pub(super) struct ReceiverRequests {
    windows: Arc<PerMinute<SubscriptionId>>,
    clock: Clock,
}

impl ReceiverRequests {
    pub(super) fn new(clock: Clock) -> Self {
        Self { windows: Arc::default(), clock }
    }

    /// Counts one more request.
    ///
    /// # Errors
    /// [`Error::TooOften`] if the limit is reached.
    pub(super) fn take(&self, id: SubscriptionId) -> Result<(), Error> {
        let max = TESTS_PER_MINUTE_MAX;
        if self.windows.take(id, max, self.clock.now()) { Ok(()) } else { Err(Error::TooOften { max }) }
    }
}

/// Limits the issuer keys that each tenant creates or imports.
#[derive(Clone)]
pub(super) struct KeyCreations {
    windows: Arc<PerMinute<TenantId>>,
    clock: Clock,
}

impl KeyCreations {
    pub(super) fn new(clock: Clock) -> Self {
        Self { windows: Arc::default(), clock }
    }

    /// Counts one more key.
    ///
    /// # Errors
    /// [`Error::TooOften`] if the limit is reached.
    pub(super) fn take(&self, tenant: &TenantId) -> Result<(), Error> {
        let max = KEYS_PER_MINUTE_MAX;
        if self.windows.take(tenant.clone(), max, self.clock.now()) { Ok(()) } else { Err(Error::TooOften { max }) }
    }
}

/// Fixed-window counters by key. A window begins with its first operation and lasts one minute. Kept in memory, so a
/// restart resets them.
#[derive(Debug)]
struct PerMinute<K> {
    windows: Mutex<HashMap<K, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Timestamp,
    count: u32,
}

impl<K> Default for PerMinute<K> {
    fn default() -> Self {
        Self { windows: Mutex::default() }
    }
}

impl<K: Eq + Hash> PerMinute<K> {
    /// Counts one more operation. False if the window already has `max` operations.
    fn take(&self, key: K, max: u32, now: Timestamp) -> bool {
        // A counter cannot be left half updated, so a poisoned lock is safe to use.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        // A window that begins in the future means that the clock was set back. It ends too, since it could otherwise
        // last arbitrarily long.
        let is_over = |window: &Window| !(0..WINDOW_MS).contains(&now.since(window.since));
        if windows.len() >= WINDOWS_KEPT {
            windows.retain(|_, window| !is_over(window));
        }
        let window = windows.entry(key).or_insert(Window { since: now, count: 0 });
        if is_over(window) {
            *window = Window { since: now, count: 0 };
        }
        if window.count >= max {
            return false;
        }
        window.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_minute_for_each_by_itself() {
        let rate = PerMinute::default();
        let at = |ms: i64| Timestamp::from_millis(1_000_000 + ms);
        assert!(rate.take("a", 2, at(0)) && rate.take("a", 2, at(59_999)) && !rate.take("a", 2, at(59_999)));
        assert!(rate.take("b", 2, at(59_999)));
        assert!(rate.take("a", 2, at(60_000)));
        assert!(rate.take("a", 2, at(-1)) && rate.take("a", 2, at(0)) && !rate.take("a", 2, at(0)), "set back");
        assert!(!rate.take("c", 0, at(0)));
    }

    #[test]
    fn keys_of_a_tenant_are_limited_per_minute() {
        let creations = KeyCreations::new(Clock::manual(Timestamp::from_millis(1_000_000)));
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        for _ in 0..KEYS_PER_MINUTE_MAX {
            creations.take(&acme).unwrap();
        }
        assert!(matches!(creations.take(&acme), Err(Error::TooOften { max: KEYS_PER_MINUTE_MAX })));
        creations.take(&globex).unwrap();
    }

    #[test]
    fn what_is_over_is_let_go_of() {
        let rate = PerMinute::default();
        for key in 0..3 * WINDOWS_KEPT as i64 {
            assert!(rate.take(key, 1, Timestamp::from_millis(key * 1_000)));
        }
        assert!(rate.windows.lock().unwrap().len() <= WINDOWS_KEPT);
    }
}
