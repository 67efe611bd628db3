//! How long a writer that is busy waits for more requests to share its next commit.

use std::time::{Duration, Instant};

/// Requests of a commit from which the writer is busy, and waits for more to come: [`Options::gather_us_max`](super::Options).
pub const GATHER_FROM: usize = 8;

/// How long the writer waits for more before it begins a batch.
///
/// A commit costs a sync and each page that it changes, however many requests changed it. Under load the first request of the
/// next batch comes while those that were just answered are still on their way back, so that a writer in a hurry would commit
/// a few at a time. One that waits a little finds them all. Alone, a request is never waited with.
pub(super) struct Gather {
    max: Duration,
    last: Option<Last>,
}

/// The last commit.
struct Last {
    requests: usize,
    took: Duration,
    ended_at: Instant,
}

impl Gather {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, last: None }
    }

    pub(super) fn committed(&mut self, requests: usize, took: Duration, ended_at: Instant) {
        self.last = Some(Last { requests, took, ended_at });
    }

    /// How long to wait for a batch that begins at `now`.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let Last { requests, took, ended_at } = self.last.as_ref()?;
        // Whoever comes later than that has not been waiting for its answer.
        let is_busy = *requests >= GATHER_FROM && now.saturating_duration_since(*ended_at) < *took;
        let wait = self.max.min(*took / 2);
        (is_busy && !wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_writer_waits_for_more() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut gather = Gather::new(ms(1));
        assert_eq!(gather.wait(now), None);
        gather.committed(GATHER_FROM - 1, ms(8), now);
        assert_eq!(gather.wait(now), None, "few share a commit anyway");
        gather.committed(GATHER_FROM, ms(8), now);
        assert_eq!(gather.wait(now + ms(7)), Some(ms(1)));
        assert_eq!(gather.wait(now + ms(8)), None, "all is quiet since");
        gather.committed(GATHER_FROM, ms(1), now);
        assert_eq!(gather.wait(now), Some(ms(1) / 2), "half of what it saves");
        let mut never = Gather::new(Duration::ZERO);
        never.committed(GATHER_FROM, ms(8), now);
        assert_eq!(never.wait(now), None);
    }
}
