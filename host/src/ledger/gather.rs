//! How long a writer that is busy waits for more requests to share its next commit.

use std::time::{Duration, Instant};

/// Requests of a commit from which the writer is busy, and waits for more to come: [`Options::gather_us_max`](super::Options).
pub const GATHER_FROM: usize = 8;

/// How much more a slice has to bring, as a part of what waited before it, for another slice to be waited.
const GROWTH: usize = 6;

/// How long the writer waits for more before it begins a batch.
///
/// A commit costs a sync and each page that it changes, however many requests changed it. Under load the first request of the
/// next batch comes while those that were just answered are still on their way back, so that a writer in a hurry would commit
/// a few at a time. One that waits a little finds them all. Alone, a request is never waited with.
///
/// It waits half of what its last commit took, and as long again while each such slice brings a sixth more: where the disk
/// is fast, a commit is over before many have come. Those of whom all wait already bring none, and are not kept.
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

/// What is waited before one batch.
pub(super) struct Slices {
    slice: Duration,
    left: Duration,
    /// Requests that waited before the last slice.
    before: usize,
}

impl Gather {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, last: None }
    }

    pub(super) fn committed(&mut self, requests: usize, took: Duration, ended_at: Instant) {
        self.last = Some(Last { requests, took, ended_at });
    }

    /// What to wait before a batch that begins at `now`; none: nothing.
    pub(super) fn begin(&self, now: Instant) -> Option<Slices> {
        let Last { requests, took, ended_at } = self.last.as_ref()?;
        // Whoever comes later than that has not been waiting for its answer.
        let is_busy = *requests >= GATHER_FROM && now.saturating_duration_since(*ended_at) < *took;
        is_busy.then_some(Slices { slice: *took / 2, left: self.max, before: 0 })
    }
}

impl Slices {
    /// How long to wait next, with so many requests waiting; none: no longer.
    pub(super) fn next(&mut self, waiting: usize) -> Option<Duration> {
        let grew = waiting.saturating_sub(self.before) >= self.before.div_ceil(GROWTH);
        let wait = self.slice.min(self.left);
        self.before = waiting;
        self.left -= wait;
        (grew && !wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first slice of a batch that begins at `now`.
    fn first(gather: &Gather, now: Instant) -> Option<Duration> {
        gather.begin(now)?.next(1)
    }

    #[test]
    fn only_a_busy_writer_waits_for_more() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut gather = Gather::new(ms(1));
        assert_eq!(first(&gather, now), None);
        gather.committed(GATHER_FROM - 1, ms(8), now);
        assert_eq!(first(&gather, now), None, "few share a commit anyway");
        gather.committed(GATHER_FROM, ms(8), now);
        assert_eq!(first(&gather, now + ms(7)), Some(ms(1)));
        assert_eq!(first(&gather, now + ms(8)), None, "all is quiet since");
        gather.committed(GATHER_FROM, ms(1), now);
        assert_eq!(first(&gather, now), Some(ms(1) / 2), "half of what it saves");
        let mut never = Gather::new(Duration::ZERO);
        never.committed(GATHER_FROM, ms(8), now);
        assert_eq!(first(&never, now), None);
    }

    #[test]
    fn it_waits_on_while_more_come_and_never_longer_than_it_may() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut gather = Gather::new(ms(5));
        gather.committed(GATHER_FROM, ms(4), now);
        let waits = |waiting: &[usize]| {
            let mut slices = gather.begin(now).unwrap();
            waiting.iter().map_while(|waiting| slices.next(*waiting)).collect::<Vec<_>>()
        };
        assert_eq!(waits(&[1, 18, 21, 40]), [ms(2), ms(2), ms(1)], "a sixth more each time");
        assert_eq!(waits(&[1, 18, 20]), [ms(2), ms(2)], "few are left to come");
        assert_eq!(waits(&[1, 1]), [ms(2)], "nobody came");
    }
}
