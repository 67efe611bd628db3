//! Byte rate limit for each tenant: a token bucket with the capacity of [`BURST_S`] seconds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use setgate_domain::id::TenantId;
use setgate_domain::time::Timestamp;

/// Capacity of a bucket, in seconds of its rate.
const BURST_S: u64 = 4;
/// Number of buckets above which full ones are evicted.
const BUCKETS_MAX: usize = 1_000;

/// The buckets of all tenants. Kept in memory, so they are full after a restart.
#[derive(Debug, Default)]
pub struct ByteRateLimiter(Mutex<HashMap<TenantId, Bucket>>);

/// The tokens left at a time. Negative after a body that was larger than the rest.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: i64,
    at: Timestamp,
}

impl Bucket {
    fn refilled(self, per_second: i64, now: Timestamp) -> Self {
        // If the clock was set back, the bucket does not change.
        let ms = now.since(self.at).clamp(0, i64::from(u32::MAX));
        let gained = i64::try_from(i128::from(per_second) * i128::from(ms) / 1_000).unwrap_or(i64::MAX);
        let most = per_second.saturating_mul(BURST_S.cast_signed());
        Self { tokens: self.tokens.saturating_add(gained).min(most), at: now }
    }
}

impl ByteRateLimiter {
    /// Takes tokens for a body. False if the bucket is empty. A body may take more than the remaining tokens, so that
    /// no body is too large for its tenant's rate. A rate of 0 means unlimited.
    pub fn try_take(&self, tenant: &TenantId, bytes: usize, per_second: u64, now: Timestamp) -> bool {
        if per_second == 0 {
            return true;
        }
        let per_second = i64::try_from(per_second).unwrap_or(i64::MAX);
        let full = Bucket { tokens: per_second.saturating_mul(BURST_S.cast_signed()), at: now };
        // A counter cannot be left half updated, so a poisoned lock is safe to use.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(tenant) {
            *bucket = bucket.refilled(per_second, now);
            if bucket.tokens <= 0 {
                return false;
            }
            bucket.tokens = bucket.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
            return true;
        }
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.refilled(per_second, now).tokens < full.tokens);
        }
        let tokens = full.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        buckets.insert(tenant.clone(), Bucket { tokens, at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn limits_rate_per_tenant_after_burst() {
        let rate = ByteRateLimiter::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let burst = (0..9).filter(|_| rate.try_take(&a, 500, 1_000, at(0))).count();
        assert_eq!(burst, 8, "a burst of four seconds");
        assert!(rate.try_take(&b, 500, 1_000, at(0)), "another tenant has its own bucket");
        assert!(
            !rate.try_take(&a, 1, 1_000, at(0)) && rate.try_take(&a, 1_500, 1_000, at(1)),
            "some tokens are left, so it is accepted"
        );
        assert!(!rate.try_take(&a, 1, 1_000, at(1_400)), "and is charged");
        assert!(rate.try_take(&a, 1, 1_000, at(1_600)));
        assert!(!rate.try_take(&a, 1, 1_000, at(-9_000)) || rate.try_take(&a, 1, 1_000, at(1_600)), "set back");
        assert!((0..99).all(|_| rate.try_take(&a, 1 << 30, 0, at(1_600))), "0 is no bound");
    }

    #[test]
    fn full_buckets_are_evicted() {
        let rate = ByteRateLimiter::default();
        for number in 0..3 * BUCKETS_MAX as i64 {
            assert!(rate.try_take(&format!("t{number}").parse().unwrap(), 1, 1_000, at(number * 1_000)));
        }
        assert!(rate.0.lock().unwrap().len() <= BUCKETS_MAX);
    }
}
