//! Loop D: replays. Creates new runs of past events for one subscription, through its current chain, at the requested
//! rate. The new deliveries and the replay's position are written in one transaction, so after a crash or a restart the
//! replay resumes without creating anything twice.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use setgate_base::clock::Clock;
use setgate_base::telemetry::metric;
use setgate_domain::audit::AuditAction;
use setgate_domain::event::EventRecord;
use setgate_domain::id::{ReplayId, TenantId};
use setgate_domain::replay::{Replay, ReplayPosition, ReplayRecord};
use setgate_domain::subscription::Subscription;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Registry, ReplayStep, Replays, Usage};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::due_queue::DueQueue;
use super::matching::{Matcher, ON_THE_SPOT_NS_MAX, Types, wants};
use super::plan::{PinnedPlans, Wanted};
use super::quotas::Quotas;

/// Limit for the events read in one step.
const EVENTS_PER_STEP: usize = 500;
/// Events read beyond the number of deliveries that a step may create, while most events match.
const EVENTS_BEYOND: usize = 20;
/// Estimated matching time in nanoseconds after which a step ends, because all tenants share this loop.
const STEP_WORK_NS_MAX: u64 = 10_000_000;
/// Length of one step at the replay's rate, in milliseconds. It determines the size of a burst.
const STEP_MS: i64 = 100;
/// The part of a tenant's `backlog_deliveries_max` that replays may fill. The rest is reserved for new events, which
/// would otherwise be refused with 429.
const BACKLOG_PERCENT_MAX: u64 = 80;
/// Delay before a full backlog is checked again, in milliseconds.
const BACKLOG_WAIT_MS: i64 = 500;
/// Delay before a retry after a ledger error, in milliseconds.
const RETRY_MS: i64 = 1_000;
/// Longest sleep of the loop while a replay is running, in milliseconds. It bounds the delay until a forward clock
/// change is noticed.
const SLEEP_MS_MAX: i64 = 1_000;

/// A running replay.
struct Running {
    record: ReplayRecord,
    pace: Pace,
    /// The time of the next step.
    next: Timestamp,
    /// True if the last step found fewer matching events than it could have used. The next step then reads more events.
    is_sparse: bool,
}

enum Stepped {
    /// The replay continues at this time.
    Next(Timestamp),
    /// The replay has ended or was changed concurrently.
    Ended,
}

/// Runs replays.
pub(crate) struct Replayer {
    pub(super) registry: Registry,
    pub(super) replays: Replays,
    pub(super) usage: Usage,
    pub(super) quotas: Quotas,
    pub(super) matcher: Matcher,
    pub(super) pinned: Arc<PinnedPlans>,
    pub(super) clock: Clock,
    pub(super) due: DueQueue,
}

impl Replayer {
    /// Runs loop D until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changed = self.replays.changed();
        let mut running: Vec<Running> = Vec::new();
        let mut known = false;
        loop {
            if !known {
                match self.replays.running().await {
                    Ok(records) => {
                        running = take_over(running, records);
                        known = true;
                    }
                    Err(error) => error!(%error, "replays cannot be read; retrying"),
                }
            }
            for replay in &mut running {
                if stop.is_cancelled() {
                    return;
                }
                let now = self.clock.now();
                // If the next step is further away than any regular wait, the clock was set back, and the step runs now.
                if replay.next > now && replay.next.since(now) <= SLEEP_MS_MAX.max(RETRY_MS) {
                    continue;
                }
                match self.step(replay, now).await {
                    Ok(Stepped::Next(at)) => replay.next = at,
                    Ok(Stepped::Ended) => known = false,
                    Err(error) => {
                        if let setgate_ledger::Error::UnknownPlan(plan) = &error {
                            // Retention swept the plan after it was pinned.
                            self.pinned.forget(plan);
                        }
                        error!(replay = %replay.record.replay.id, %error, "replay failed; retrying from its last position");
                        replay.next = now.plus_millis(RETRY_MS);
                        known = false;
                    }
                }
            }
            let now = self.clock.now();
            let next = running.iter().map(|replay| replay.next.since(now).clamp(0, SLEEP_MS_MAX)).min();
            let wait = match next {
                Some(wait_ms) => Duration::from_millis(wait_ms.unsigned_abs()),
                None if known => Duration::MAX,
                None => Duration::from_millis(RETRY_MS.unsigned_abs()),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed() => known = false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn step(&self, running: &mut Running, now: Timestamp) -> Result<Stepped, setgate_ledger::Error> {
        let record = &running.record;
        let replay = &record.replay;
        let snapshot = self.registry.snapshot();
        // The replay was removed together with its tenant.
        let Some(view) = snapshot.tenant(&replay.tenant) else { return Ok(Stepped::Ended) };
        let Some(entry) = view.subscriptions.get(&replay.subscription) else {
            let reason = "its subscription was removed".to_owned();
            let audit = AuditAction::host("replay.cancel").note(&reason);
            self.replays.cancel(&replay.tenant, replay.id, reason, audit, now).await?;
            return Ok(Stepped::Ended);
        };
        let subscription = &entry.value;
        let room = self.room_for_replays(&replay.tenant);
        if room == 0 {
            return Ok(Stepped::Next(now.plus_millis(BACKLOG_WAIT_MS)));
        }
        let most = running.pace.at_once().min(usize::try_from(room).unwrap_or(usize::MAX));
        let wanted = if running.is_sparse { EVENTS_PER_STEP } else { most.saturating_add(EVENTS_BEYOND) };
        let limit = wanted.min(EVENTS_PER_STEP);
        let events = self.replays.events(record, record.position, limit).await?;
        let mut step = ReplayStep {
            id: replay.id,
            from: record.position,
            to: record.position,
            deliveries: Vec::new(),
            passed_over: 0,
            done: events.len() < limit,
        };
        let (mut wanted, mut work_ns) = (Vec::new(), 0);
        for event in &events {
            if wanted.len() >= most {
                step.done = false;
                break;
            }
            // Other tasks run between two matches, and the matching time of a step is bounded.
            tokio::task::yield_now().await;
            if work_ns > STEP_WORK_NS_MAX {
                step.done = false;
                break;
            }
            step.to = ReplayPosition { at: event.accepted_at, event: event.seq };
            let types = Types::of(&event.types);
            let ns = types.work_ns((replay.events.len() + subscription.events.len()) as u64);
            work_ns += ns;
            let is_wanted = if ns <= ON_THE_SPOT_NS_MAX {
                is_wanted(replay, subscription, event, &types)
            } else {
                let (asked, entry, event) = (replay.clone(), entry.clone(), event.clone());
                let matched = self.matcher.run(&replay.tenant, ns, false, move || {
                    is_wanted(&asked, &entry.value, &event, &Types::of(&event.types))
                });
                matched.await.map_err(|_| setgate_ledger::Error::Closed)?
            };
            if is_wanted {
                wanted.push(Wanted { view, subscription, event: event.into() });
            } else {
                step.passed_over += 1;
            }
        }
        step.deliveries = self.pinned.deliveries(wanted, now).await?;
        let (to, done, passed_over) = (step.to, step.done, step.passed_over);
        let Some(advanced) = self.replays.advance(step).await? else { return Ok(Stepped::Ended) };
        counter!(metric::REPLAYED, "tenant" => replay.tenant.to_string()).increment(advanced.made);
        self.due.push(advanced.due).await;
        if done {
            let made = record.made + advanced.made;
            info!(tenant = %replay.tenant, replay = %replay.id, made, "replay finished");
            return Ok(Stepped::Ended);
        }
        let count = usize::try_from(advanced.made).unwrap_or(usize::MAX);
        running.is_sparse = count < most;
        running.record.position = to;
        running.record.made += advanced.made;
        running.record.passed_over += passed_over;
        Ok(Stepped::Next(running.pace.next(count, now)))
    }

    /// The number of deliveries that replays may add to the tenant's backlog at present.
    fn room_for_replays(&self, tenant: &TenantId) -> u64 {
        let quota = self.quotas.of(tenant);
        if self.usage.shortage_of(tenant).is_some()
            || (quota.stored_bytes_max > 0 && self.usage.stored(tenant) >= quota.stored_bytes_max)
        {
            return 0;
        }
        let quota = quota.backlog_deliveries_max;
        // A very small quota still allows one delivery.
        let share = (quota.saturating_mul(BACKLOG_PERCENT_MAX) / 100).max(1);
        share.saturating_sub(self.usage.backlog(tenant))
    }
}

/// The replays that are running now. Those that ran before keep the time of their next step.
fn take_over(before: Vec<Running>, records: Vec<ReplayRecord>) -> Vec<Running> {
    let went_on = |id: ReplayId| before.iter().find(|known| known.record.replay.id == id);
    let begins = Timestamp::from_millis(i64::MIN);
    records
        .into_iter()
        .map(|record| {
            let next = went_on(record.replay.id).map_or(begins, |known| known.next);
            Running { pace: Pace { per_second: record.replay.per_second }, record, next, is_sparse: false }
        })
        .collect()
}

/// Whether a replay creates a delivery for an event: both the replay's own selection and the subscription must match
/// it.
fn is_wanted(replay: &Replay, subscription: &Subscription, event: &EventRecord, types: &Types<'_>) -> bool {
    (replay.events.is_empty() || types.any(&replay.events))
        && replay.source.as_ref().is_none_or(|source| *source == event.source)
        && replay.subject.as_ref().is_none_or(|subject| event.subject.as_ref() == Some(subject))
        && wants(subscription, &event.source, types)
}

/// The rate of a replay. After each step it waits for as long as the step's deliveries take at the rate, so any period
/// contains at most the rate plus one step. Unused capacity does not accumulate.
struct Pace {
    per_second: u32,
}

impl Pace {
    /// Limit for the deliveries of one step.
    fn at_once(&self) -> usize {
        let worth = i64::from(self.per_second) * STEP_MS / 1_000;
        usize::try_from(worth.max(1)).unwrap_or(1)
    }

    /// The time of the step after a step with `count` deliveries.
    fn next(&self, count: usize, now: Timestamp) -> Timestamp {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let per_second = i64::from(self.per_second.max(1));
        let wait_ms = count.saturating_mul(1_000).saturating_add(per_second - 1) / per_second;
        now.plus_millis(wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps at every allowed time for ten seconds: pairs of time and number of deliveries.
    fn made(per_second: u32) -> Vec<(i64, usize)> {
        let pace = Pace { per_second };
        let mut now = Timestamp::from_millis(0);
        let mut made = Vec::new();
        while now.as_millis() < 10_000 {
            let count = pace.at_once();
            made.push((now.as_millis(), count));
            now = pace.next(count, now);
        }
        made
    }

    #[test]
    fn no_time_has_more_than_the_rate_and_one_step() {
        for per_second in [1, 2, 3, 7, 9, 10, 11, 64, 999, 1_000, 10_000] {
            let (made, step) = (made(per_second), Pace { per_second }.at_once());
            for (begin, _) in &made {
                let second = made.iter().filter(|(at, _)| (*begin..*begin + 1_000).contains(at));
                let count: usize = second.map(|(_, count)| count).sum();
                assert!(count <= per_second as usize + step, "{count} in a second of {per_second}");
            }
            let all: usize = made.iter().map(|(_, count)| count).sum();
            let asked = 10 * per_second as usize;
            assert!((asked * 9 / 10..=asked + step).contains(&all), "{all} in ten seconds of {per_second}");
        }
    }

    #[test]
    fn what_makes_nothing_goes_on_at_once() {
        let now = Timestamp::from_millis(7);
        assert_eq!(Pace { per_second: 10 }.next(0, now), now);
    }
}
