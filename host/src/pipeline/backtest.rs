//! Backtests: runs stored events through the active version of a filter and through a candidate, and compares the
//! results. Nothing is stored and nothing is sent.
//!
//! Calls run one at a time, in the tenant's own slots and with its own fuel. Each tenant can run one backtest at a
//! time, and each backtest has a deadline.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use setgate_domain::backtest::{BacktestCalls, BacktestReport, BacktestRequest, CHANGES_MAX, Distribution};
use setgate_domain::chain::{ChainEnd, ChainResult};
use setgate_domain::event::{Event, EventRecord};
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, FilterName, SubscriptionId, TenantId};
use setgate_domain::rollout::{VersionDifference, VersionVerdict};
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{EventQuery, Events, HISTORY_LIMIT_MAX, History, Registry};
use tokio::time::{Instant, timeout_at};

use super::apply::compare;
use super::chain::ChainRunner;
use super::matching::Matcher;
use super::plan::Planner;
use super::shadow::said;

/// Time limit of a backtest, which then returns its results so far, in milliseconds.
const BACKTEST_MS_MAX: u64 = 20_000;

/// Tenants with a running backtest.
#[derive(Default)]
struct Running(Arc<Mutex<HashSet<TenantId>>>);

/// The tenant's only backtest slot, released on drop.
struct Turn(Arc<Mutex<HashSet<TenantId>>>, TenantId);

impl Running {
    fn begin(&self, tenant: &TenantId) -> Option<Turn> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone());
        new.then(|| Turn(self.0.clone(), tenant.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

struct Part {
    /// The current chain, and the same chain with the candidate in place of the filter's active version.
    plans: [Plan; 2],
    /// Number of events still to run.
    left: usize,
}

/// Cost of the calls of one version.
#[derive(Default)]
struct Costs {
    fuel: Vec<u64>,
    time_us: Vec<u64>,
    faults: u64,
}

/// Runs backtests.
pub(crate) struct Backtester {
    registry: Registry,
    history: History,
    events: Events,
    planner: Planner,
    matcher: Matcher,
    chain: Arc<ChainRunner>,
    running: Running,
}

impl Backtester {
    pub(super) fn new(
        registry: Registry,
        history: History,
        events: Events,
        planner: Planner,
        matcher: Matcher,
        chain: Arc<ChainRunner>,
    ) -> Self {
        Self { registry, history, events, planner, matcher, chain, running: Running::default() }
    }

    /// Runs a backtest for at most `limit`. `None` if the tenant already has one running.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub(crate) async fn run(
        &self,
        ask: BacktestRequest,
        limit: Duration,
    ) -> Result<Option<BacktestReport>, setgate_ledger::Error> {
        let Some(_turn) = self.running.begin(&ask.tenant) else { return Ok(None) };
        let deadline = Instant::now() + limit.min(Duration::from_millis(BACKTEST_MS_MAX));
        let mut parts = self.parts_of(&ask);
        let active = self.active_of(&ask).unwrap_or(ask.candidate);
        let mut found = Found::new(&ask, parts.len(), active);
        let (mut cursor, mut complete) = (None, true);
        'pages: while parts.values().any(|part| part.left > 0) {
            let query = EventQuery { source: ask.source.clone(), ..EventQuery::default() };
            let page = self.history.events(&ask.tenant, query, cursor, HISTORY_LIMIT_MAX).await?;
            for record in page.items {
                if Instant::now() >= deadline {
                    complete = false;
                    break 'pages;
                }
                let wanting = self.left_wanting(&ask.tenant, &parts, &record).await?;
                if wanting.is_empty() {
                    continue;
                }
                // Retention removed the event after it was listed.
                let Some(event) = self.events.event(&ask.tenant, record.id).await? else { continue };
                for id in wanting {
                    let Some(part) = parts.get_mut(&id) else { continue };
                    match timeout_at(deadline, self.both(&part.plans, &event, id)).await {
                        Ok(both) => found.add(&ask.filter, &event, id, both),
                        Err(_) => {
                            complete = false;
                            break 'pages;
                        }
                    }
                    part.left -= 1;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(Some(found.report(complete)))
    }

    fn active_of(&self, ask: &BacktestRequest) -> Option<Digest> {
        self.registry.snapshot().tenant(&ask.tenant)?.filters.get(&ask.filter)?.value.active
    }

    /// The current chains. A running canary is ignored, because its candidate is not the active version.
    fn parts_of(&self, ask: &BacktestRequest) -> BTreeMap<SubscriptionId, Part> {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(&ask.tenant) else { return BTreeMap::new() };
        let part = |id: &SubscriptionId| {
            let subscription = &view.subscriptions.get(id)?.value;
            let before = self.planner.plan_of(subscription)?;
            let mut after = before.clone();
            for step in after.steps.iter_mut().filter(|step| step.binding.filter == ask.filter) {
                step.digest = ask.candidate;
            }
            Some((*id, Part { plans: [before, after], left: ask.events }))
        };
        ask.subscriptions.iter().filter_map(part).collect()
    }

    /// The subscriptions that match an event and still have events to run.
    async fn left_wanting(
        &self,
        tenant: &TenantId,
        parts: &BTreeMap<SubscriptionId, Part>,
        record: &EventRecord,
    ) -> Result<Vec<SubscriptionId>, setgate_ledger::Error> {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(Vec::new()) };
        let wanting = self.matcher.wanting(view, &record.source, &record.types, false).await;
        let wanting = wanting.map_err(|_| setgate_ledger::Error::Closed)?;
        let is_left = |id: &SubscriptionId| parts.get(id).is_some_and(|part| part.left > 0);
        Ok(wanting.into_iter().map(|subscription| subscription.id).filter(is_left).collect())
    }

    async fn both(&self, [before, after]: &[Plan; 2], event: &Event, subscription: SubscriptionId) -> [ChainResult; 2] {
        // Run 0 is the first delivery, so filters see the event as on its first delivery.
        let delivery = DeliveryId { event: event.id, subscription, run: 0 };
        [self.chain.run_alone(before, event, delivery).await, self.chain.run_alone(after, event, delivery).await]
    }
}

struct Found {
    report: BacktestReport,
    costs: [Costs; 2],
}

impl Found {
    fn new(ask: &BacktestRequest, subscriptions: usize, active: Digest) -> Self {
        let calls = |digest| {
            let none = Distribution::default();
            BacktestCalls { digest, calls: 0, faults: 0, fuel: none, time_us: none }
        };
        let report = BacktestReport {
            filter: ask.filter.clone(),
            complete: false,
            subscriptions,
            events: 0,
            unchanged: 0,
            changed: 0,
            changes: Vec::new(),
            active: calls(active),
            candidate: calls(ask.candidate),
        };
        Self { report, costs: Default::default() }
    }

    fn add(&mut self, filter: &FilterName, event: &Event, subscription: SubscriptionId, both: [ChainResult; 2]) {
        for (costs, chained) in self.costs.iter_mut().zip(&both) {
            for run in runs_of(filter, chained) {
                costs.fuel.push(run.fuel);
                costs.time_us.push(run.elapsed_us);
                costs.faults += u64::from(run.fault.is_some());
            }
        }
        self.report.events += 1;
        let claims = both.each_ref().map(|chained| match &chained.end {
            ChainEnd::Completed(claims) => Some(claims.as_deref().unwrap_or(&event.set.text)),
            _ => None,
        });
        if claims[0] == claims[1] && is_same(filter, &both) {
            self.report.unchanged += 1;
            return;
        }
        self.report.changed += 1;
        if self.report.changes.len() >= CHANGES_MAX {
            return;
        }
        let [active, candidate] = &both;
        self.report.changes.push(VersionDifference {
            event: event.id,
            subscription,
            active: last_said(filter, active),
            candidate: last_said(filter, candidate),
            claims: match claims {
                [Some(active), Some(candidate)] => compare(active, candidate),
                _ => Vec::new(),
            },
        });
    }

    fn report(mut self, complete: bool) -> BacktestReport {
        self.report.complete = complete;
        let [active, candidate] = self.costs;
        for (calls, costs) in [(&mut self.report.active, active), (&mut self.report.candidate, candidate)] {
            calls.calls = costs.fuel.len() as u64;
            calls.faults = costs.faults;
            calls.fuel = Distribution::of(costs.fuel);
            calls.time_us = Distribution::of(costs.time_us);
        }
        self.report
    }
}

fn runs_of<'a>(filter: &'a FilterName, chained: &'a ChainResult) -> impl Iterator<Item = &'a FilterRun> {
    chained.runs.iter().filter(move |run| run.filter == *filter)
}

/// True if both chains ended the same way with the same verdicts of the filter. Reasons may differ, because only the
/// tenant sees them.
fn is_same(filter: &FilterName, [active, candidate]: &[ChainResult; 2]) -> bool {
    let key = |run: &FilterRun| (run.verdict, run.fault.as_ref().map(Fault::kind));
    end(&active.end) == end(&candidate.end) && runs_of(filter, active).map(key).eq(runs_of(filter, candidate).map(key))
}

/// The filter's last decision, if it occurs more than once in the chain.
fn last_said(filter: &FilterName, chained: &ChainResult) -> VersionVerdict {
    let none = VersionVerdict { verdict: None, reason: None, fault: None, end: None };
    VersionVerdict { end: Some(end(&chained.end)), ..runs_of(filter, chained).last().map_or(none, said) }
}

fn end(end: &ChainEnd) -> &'static str {
    match end {
        ChainEnd::Completed(_) => "through",
        ChainEnd::Dropped(_) => "dropped",
        ChainEnd::Held(_) => "held",
        ChainEnd::Retry(_) => "again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_at_a_time() {
        let running = Running::default();
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let turn = running.begin(&acme).unwrap();
        assert!(running.begin(&acme).is_none());
        assert!(running.begin(&other).is_some());
        drop(turn);
        assert!(running.begin(&acme).is_some());
    }
}
