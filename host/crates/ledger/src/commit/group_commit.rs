//! Group-commit delay: how long a busy writer waits for more requests to share its next commit.

use std::time::{Duration, Instant};

/// Size of a commit, in requests, from which the writer counts as busy and delays the next one:
/// [`Options::commit_delay_us_max`](crate::Options).
pub const BUSY_COMMIT_REQUESTS: usize = 8;

/// A further slice is waited for if the last one added at least 1/6 to the requests that were queued before it.
const GROWTH_DIVISOR: usize = 6;

/// Decides how long the writer waits before it starts a batch.
///
/// A commit costs one fsync, plus each page it changes, however many requests share it. Under load, the first request
/// of the next batch arrives while callers that just got their replies are still preparing their next request, so a
/// writer that starts at once commits only a few at a time. A short wait collects them all. An idle writer never delays
/// a request.
///
/// The writer waits for half of the duration of its last commit, and for as long again while each such slice adds a
/// sixth more requests: on a fast disk, a commit ends before many have arrived. If all callers are already queued, a
/// slice adds none and the wait ends.
pub(crate) struct CommitDelay {
    max: Duration,
    last: Option<LastCommit>,
}

/// The previous commit.
struct LastCommit {
    requests: usize,
    took: Duration,
    ended_at: Instant,
}

/// The wait before one batch, in slices.
pub(crate) struct DelaySlices {
    slice: Duration,
    left: Duration,
    /// Requests in the queue before the last slice.
    before: usize,
}

impl CommitDelay {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, last: None }
    }

    pub(crate) fn committed(&mut self, requests: usize, took: Duration, ended_at: Instant) {
        self.last = Some(LastCommit { requests, took, ended_at });
    }

    /// The wait before a batch that starts at `now`. `None` if it should start at once.
    pub(crate) fn begin(&self, now: Instant) -> Option<DelaySlices> {
        let LastCommit { requests, took, ended_at } = self.last.as_ref()?;
        // A request that arrives later than that is not from a caller that waited for the last commit.
        let is_busy = *requests >= BUSY_COMMIT_REQUESTS && now.saturating_duration_since(*ended_at) < *took;
        is_busy.then_some(DelaySlices { slice: *took / 2, left: self.max, before: 0 })
    }
}

impl DelaySlices {
    /// Duration of the next slice, given the number of queued requests. `None` if the batch should start.
    pub(crate) fn next(&mut self, waiting: usize) -> Option<Duration> {
        let grew = waiting.saturating_sub(self.before) >= self.before.div_ceil(GROWTH_DIVISOR);
        let wait = self.slice.min(self.left);
        self.before = waiting;
        self.left -= wait;
        (grew && !wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first slice of a batch that starts at `now`.
    fn first(commit_delay: &CommitDelay, now: Instant) -> Option<Duration> {
        commit_delay.begin(now)?.next(1)
    }

    #[test]
    fn only_a_busy_writer_delays() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut commit_delay = CommitDelay::new(ms(1));
        assert_eq!(first(&commit_delay, now), None);
        commit_delay.committed(BUSY_COMMIT_REQUESTS - 1, ms(8), now);
        assert_eq!(first(&commit_delay, now), None, "few share a commit anyway");
        commit_delay.committed(BUSY_COMMIT_REQUESTS, ms(8), now);
        assert_eq!(first(&commit_delay, now + ms(7)), Some(ms(1)));
        assert_eq!(first(&commit_delay, now + ms(8)), None, "all is quiet since");
        commit_delay.committed(BUSY_COMMIT_REQUESTS, ms(1), now);
        assert_eq!(first(&commit_delay, now), Some(ms(1) / 2), "half of what it saves");
        let mut never = CommitDelay::new(Duration::ZERO);
        never.committed(BUSY_COMMIT_REQUESTS, ms(8), now);
        assert_eq!(first(&never, now), None);
    }

    #[test]
    fn delay_extends_while_requests_arrive_up_to_maximum() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut commit_delay = CommitDelay::new(ms(5));
        commit_delay.committed(BUSY_COMMIT_REQUESTS, ms(4), now);
        let waits = |waiting: &[usize]| {
            let mut slices = commit_delay.begin(now).unwrap();
            waiting.iter().map_while(|waiting| slices.next(*waiting)).collect::<Vec<_>>()
        };
        assert_eq!(waits(&[1, 18, 21, 40]), [ms(2), ms(2), ms(1)], "a sixth more each time");
        assert_eq!(waits(&[1, 18, 20]), [ms(2), ms(2)], "few are left to come");
        assert_eq!(waits(&[1, 1]), [ms(2)], "nobody came");
    }
}
