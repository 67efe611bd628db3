//! Rollouts: tries a version of a filter in a backtest over stored events, in a shadow run, or as a canary for a share
//! of the subjects, before it is promoted to the active version.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_domain::audit::Actor;
use setgate_domain::backtest::{BacktestReport, BacktestRequest, EVENTS_DEFAULT, EVENTS_MAX};
use setgate_domain::filter::Filter;
use setgate_domain::id::{Digest, FilterName, SourceName, SubscriptionId, TenantId};
use setgate_domain::rollout::{
    CALLS_MIN_DEFAULT, EndReason, EndedRollout, FAULTS_PERCENT_MAX_DEFAULT, Percent, Rollout, RolloutMode,
    RolloutReport,
};
use setgate_ledger::{Registry, TenantView};

use super::Error;
use super::checks::find_tenant;
use super::filters::{self, check_needs, not_found, resume, set_active};
use super::read_only::{ReadOnly, check_name};
use crate::pipeline::{Backtester, RolloutResults};

/// Limit for a tenant's concurrent rollouts. Each canary doubles the number of possible plans of a subscription.
pub const ROLLOUTS_MAX: usize = 4;

/// A rollout request: either the rollout's own members, or a filter's rollout document as returned by GET.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutInput {
    /// The candidate version. Required unless `rollout` is given.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// `shadow` or `canary`. Required unless `rollout` is given.
    #[serde(default)]
    pub mode: Option<ModeInput>,
    /// For a canary: percentage of subjects that run the candidate.
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// For a canary: percentage of the candidate's calls that may fault. 5 if absent.
    #[schemars(range(min = 0, max = 100))]
    pub faults_percent_max: Option<f64>,
    /// For a canary: number of calls before `faults_percent_max` applies. 20 if absent.
    pub calls_min: Option<u64>,
    /// The rollout as returned by GET, instead of the members above.
    #[serde(default)]
    pub rollout: Option<ShownRollout>,
    /// The name in the path. Optional.
    #[serde(default)]
    pub filter: Option<FilterName>,
    /// Read-only; ignored.
    #[serde(default)]
    pub active: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub report: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub last_rollout: ReadOnly,
}

/// A rollout as returned by GET.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShownRollout {
    /// The candidate version.
    pub digest: Digest,
    /// `shadow` or `canary`.
    pub mode: ModeInput,
    /// See [`RolloutInput::percent`].
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// See [`RolloutInput::faults_percent_max`].
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub faults_percent_max: Option<f64>,
    /// See [`RolloutInput::calls_min`].
    #[serde(default)]
    pub calls_min: Option<u64>,
    /// Read-only; ignored.
    #[serde(default)]
    pub started_at: ReadOnly,
}

/// Rollout modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `Mode`")]
pub enum ModeInput {
    Shadow,
    Canary,
}

/// A filter's rollout as returned by the API.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RolloutView {
    /// The version of the filter's document, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// The filter.
    pub filter: FilterName,
    /// The active version of the filter.
    pub active: Option<Digest>,
    /// The current rollout.
    pub rollout: Option<Rollout>,
    /// The results of the current rollout so far.
    pub report: Option<RolloutReport>,
    /// The result of the previous rollout.
    pub last_rollout: Option<EndedRollout>,
}

/// A backtest request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BacktestInput {
    /// The candidate version.
    pub digest: Digest,
    /// Number of events per subscription, newest first. 100 if absent, at most 1,000.
    #[schemars(range(min = 1, max = EVENTS_MAX))]
    pub events: Option<usize>,
    /// Only this subscription. If absent, each subscription that binds the filter.
    pub subscription: Option<SubscriptionId>,
    /// Only events of this source.
    pub source: Option<SourceName>,
}

impl RolloutInput {
    /// The requested rollout, from either of the two forms.
    fn asked(&self) -> Result<ShownRollout, Error> {
        let flat = [self.percent.is_some(), self.faults_percent_max.is_some(), self.calls_min.is_some()];
        match (self.rollout, self.digest, self.mode) {
            (Some(shown), None, None) if !flat.contains(&true) => Ok(shown),
            (Some(_), ..) => {
                Err(Error::invalid("rollout", "give `rollout` as it is shown, or `digest` and `mode`: not both"))
            }
            (None, Some(digest), Some(mode)) => Ok(ShownRollout {
                digest,
                mode,
                percent: self.percent,
                faults_percent_max: self.faults_percent_max,
                calls_min: self.calls_min,
                started_at: ReadOnly,
            }),
            (None, None, _) => Err(Error::invalid("digest", "a rollout needs its candidate")),
            (None, _, None) => Err(Error::invalid("mode", "a rollout is a `shadow` or a `canary`")),
        }
    }
}

impl ShownRollout {
    fn mode(&self) -> Result<RolloutMode, Error> {
        let percent = |field, given: f64| Percent::try_from(given).map_err(|why| Error::invalid(field, why));
        match self.mode {
            ModeInput::Shadow => {
                if self.percent.is_some() || self.faults_percent_max.is_some() || self.calls_min.is_some() {
                    return Err(Error::invalid(
                        "mode",
                        "a shadow has no `percent`, `faults_percent_max` or `calls_min`: it decides nothing",
                    ));
                }
                Ok(RolloutMode::Shadow)
            }
            ModeInput::Canary => {
                let share = self.percent.ok_or_else(|| Error::invalid("percent", "a canary needs its share"))?;
                let faults = self.faults_percent_max.map(|given| percent("faults_percent_max", given)).transpose()?;
                Ok(RolloutMode::Canary {
                    percent: percent("percent", share)?,
                    faults_percent_max: faults.unwrap_or(FAULTS_PERCENT_MAX_DEFAULT),
                    calls_min: self.calls_min.unwrap_or(CALLS_MIN_DEFAULT),
                })
            }
        }
    }
}

/// The rollouts of all filters.
#[derive(Clone)]
pub struct Rollouts {
    pub(super) registry: Registry,
    pub(super) results: RolloutResults,
    pub(super) backtester: Arc<Backtester>,
    pub(super) clock: Clock,
}

impl Rollouts {
    /// Starts a rollout, or changes the current rollout of the same candidate. The returned flag is true if it was
    /// started.
    pub async fn put(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        input: RolloutInput,
        expected: Option<u64>,
    ) -> Result<(RolloutView, bool), Error> {
        check_name("filter", input.filter.as_ref(), name)?;
        let asked = input.asked()?;
        let (digest, mode) = (asked.digest, asked.mode()?);
        let changed = filters::change(&self.registry, tenant, name, expected, |view, filter| {
            let new = self.begin(view, filter, digest, mode)?;
            let action = if new { "rollout.begin" } else { "rollout.change" };
            Ok((actor.action(action).note(digest.to_string()), new))
        });
        let (filter, version, new) = changed.await?;
        Ok((self.view(tenant, &filter, version), new))
    }

    /// Sets the rollout of a filter. Returns true if it is a new one.
    fn begin(&self, view: &TenantView, filter: &mut Filter, digest: Digest, mode: RolloutMode) -> Result<bool, Error> {
        let name = &filter.name;
        check_candidate(filter, digest, view)?;
        if filter.active == Some(digest) {
            return Err(Error::Conflict(format!("the version {digest} is active already: there is nothing to try")));
        }
        if let Some(other) = filter.rollout.as_ref().filter(|rollout| rollout.digest != digest) {
            return Err(Error::Conflict(format!(
                "the filter `{name}` has a rollout of {} already: promote or end it first",
                other.digest
            )));
        }
        let others = view.filters.values().filter(|other| other.value.rollout.is_some() && other.value.name != *name);
        if others.count() >= ROLLOUTS_MAX {
            return Err(Error::Conflict(format!(
                "{ROLLOUTS_MAX} filters are rolled out already: end one of them first"
            )));
        }
        let goes_on = filter.rollout.as_ref().filter(|rollout| rollout.mode.as_str() == mode.as_str());
        let new = goes_on.is_none();
        let started_at = goes_on.map_or_else(|| self.clock.now(), |rollout| rollout.started_at);
        filter.withdraw(&digest, None);
        // A new trial of a suspended version implies that it may be called again.
        resume(filter, digest);
        filter.rollout = Some(Rollout { digest, mode, started_at });
        Ok(new)
    }

    /// The rollout of a filter and its results so far.
    pub fn show(&self, tenant: &TenantId, name: &FilterName) -> Result<RolloutView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let stored = view.filters.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.view(tenant, &stored.value, stored.version))
    }

    /// Makes the candidate the active version, which ends the rollout.
    pub async fn promote(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        expected: Option<u64>,
    ) -> Result<RolloutView, Error> {
        self.end_with(actor, tenant, name, EndReason::Promoted, expected).await
    }

    /// Ends a rollout without promotion. The active version remains, and deliveries held by the candidate's faults are
    /// run again with it.
    pub async fn end(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        expected: Option<u64>,
    ) -> Result<RolloutView, Error> {
        self.end_with(actor, tenant, name, EndReason::Ended, expected).await
    }

    async fn end_with(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        reason: EndReason,
        expected: Option<u64>,
    ) -> Result<RolloutView, Error> {
        let changed = filters::change(&self.registry, tenant, name, expected, |view, filter| {
            let counted = self.results.counted(tenant, name);
            let Some(candidate) = filter.end_rollout(self.clock.now(), reason, counted) else {
                return Err(Error::NotFound(format!("rollout of filter `{name}`")));
            };
            let action = if reason == EndReason::Promoted {
                set_active(filter, candidate, view)?;
                "rollout.promote"
            } else {
                "rollout.end"
            };
            Ok((actor.action(action).note(candidate.to_string()), ()))
        });
        let (filter, version, ()) = changed.await?;
        self.results.ended(tenant, name, reason);
        Ok(self.view(tenant, &filter, version))
    }

    /// Runs a version over stored events. Changes nothing and sends nothing.
    pub async fn backtest(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        input: BacktestInput,
        time_limit: Duration,
    ) -> Result<BacktestReport, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let filter = &view.filters.get(name).ok_or_else(|| not_found(name))?.value;
        check_candidate(filter, input.digest, &view)?;
        let events = input.events.unwrap_or(EVENTS_DEFAULT);
        if !(1..=EVENTS_MAX).contains(&events) {
            return Err(Error::invalid("events", format!("from 1 to {EVENTS_MAX}")));
        }
        let subscriptions = binding(&view, name, input.subscription)?;
        let (tenant, filter) = (tenant.clone(), name.clone());
        let ask =
            BacktestRequest { tenant, filter, candidate: input.digest, events, subscriptions, source: input.source };
        self.backtester.run(ask, time_limit).await?.ok_or(Error::BacktestRunning)
    }

    fn view(&self, tenant: &TenantId, filter: &Filter, version: u64) -> RolloutView {
        RolloutView {
            version,
            filter: filter.name.clone(),
            active: filter.active,
            rollout: filter.rollout.clone(),
            report: self.results.report(tenant, &filter.name),
            last_rollout: filter.last_rollout.clone(),
        }
    }
}

/// Checks that a rollout or backtest with this candidate is possible: the version exists, all bindings grant what it
/// needs, and there is an active version to compare with.
fn check_candidate(filter: &Filter, digest: Digest, view: &TenantView) -> Result<(), Error> {
    if filter.version(&digest).is_none() {
        return Err(Error::NotFound(format!(
            "version {digest} of filter `{}`: upload it with `?activate=false` first",
            filter.name
        )));
    }
    if filter.active.is_none() {
        let why = format!("the filter `{}` has no active version to compare with: activate one first", filter.name);
        return Err(Error::Conflict(why));
    }
    check_needs(filter, digest, view)
}

/// The subscriptions that bind a filter, or only the requested one.
fn binding(view: &TenantView, name: &FilterName, only: Option<SubscriptionId>) -> Result<Vec<SubscriptionId>, Error> {
    let binds = |id: &SubscriptionId| {
        view.subscriptions.get(id).is_some_and(|stored| stored.value.chain.iter().any(|step| step.filter == *name))
    };
    if let Some(id) = only {
        if !view.subscriptions.contains_key(&id) {
            return Err(Error::NotFound(format!("subscription `{id}`")));
        }
        if !binds(&id) {
            return Err(Error::invalid("subscription", format!("`{id}` does not bind the filter `{name}`")));
        }
        return Ok(vec![id]);
    }
    let found: Vec<_> = view.subscriptions.keys().filter(|id| binds(id)).copied().collect();
    if found.is_empty() {
        let why = format!("no subscription binds the filter `{name}`: there is no chain to run");
        return Err(Error::Conflict(why));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> Result<RolloutMode, String> {
        let digest = Digest([1; 32]);
        let text = format!("{{\"digest\":\"{digest}\",{text}}}");
        let input = serde_json::from_str::<RolloutInput>(&text).map_err(|e| e.to_string())?;
        input.asked().and_then(|asked| asked.mode()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_mode_is_asked_for_with_what_belongs_to_it() {
        assert_eq!(mode(r#""mode":"shadow""#), Ok(RolloutMode::Shadow));
        let Ok(RolloutMode::Canary { percent, faults_percent_max, calls_min }) =
            mode(r#""mode":"canary","percent":2.5"#)
        else {
            panic!("a canary")
        };
        assert_eq!((percent.hundredths(), faults_percent_max.hundredths(), calls_min), (250, 500, 20));
        for (text, part) in [
            (r#""mode":"shadow","percent":5"#, "a shadow has no `percent`"),
            (r#""mode":"canary""#, "needs its share"),
            (r#""mode":"canary","percent":101"#, "`percent`: 101 is not a percentage"),
            (r#""mode":"canary","percent":1,"faults_percent_max":0.001"#, "`faults_percent_max`"),
            (r#""mode":"blue""#, "unknown variant"),
            (r#""mode":"shadow","share":5"#, "unknown field"),
            (r#""percent":5"#, "`mode`"),
        ] {
            let said = mode(text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
