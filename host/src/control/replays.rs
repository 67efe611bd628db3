//! Replays: sends past events to one subscription again, as new runs. The data plane executes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_dialects::SUBJECT_CHARS_MAX;
use setgate_domain::audit::Actor;
use setgate_domain::id::{ReplayId, SourceName, SubscriptionId, TenantId};
use setgate_domain::replay::{Replay, ReplayRecord};
use setgate_domain::subscription::Pattern;
use setgate_domain::time::Timestamp;
use setgate_ledger::Registry;

use super::checks::find_tenant;
use super::subscriptions::PATTERNS_MAX;
use super::warnings::{self, Warning};
use super::{Error, Page, PageQuery};

/// Upper bound of the rate, in deliveries per second, that a replay can request.
const PER_SECOND_MAX: u32 = 1_000;
/// Default rate in deliveries per second.
pub const PER_SECOND_DEFAULT: u32 = 10;

/// `[history]`: replays of stored events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Maximum number of concurrent replays of one tenant.
    pub replays_per_tenant_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { replays_per_tenant_max: 4 }
    }
}

/// A request to start a replay.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayInput {
    /// The target subscription. Only events that match its current patterns and sources are sent.
    pub subscription: SubscriptionId,
    /// Include events accepted at or after this time.
    pub since: Timestamp,
    /// Include events accepted before this time. The time of the request if absent or later.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Include only events with a type that matches one of these patterns. All events if absent or empty.
    #[serde(default)]
    pub events: Vec<Pattern>,
    /// Include only events of this source.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// Include only events with exactly this subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Deliveries per second. [`PER_SECOND_DEFAULT`] if absent, at most 1000.
    #[serde(default)]
    pub per_second: Option<u32>,
}

/// A replay that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReplayBegun {
    /// The replay record.
    #[serde(flatten)]
    pub record: ReplayRecord,
    /// Parts of the request that have no effect. Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// The replays of all tenants.
#[derive(Clone)]
pub struct Replays {
    pub(super) registry: Registry,
    pub(super) replays: setgate_ledger::Replays,
    pub(super) clock: Clock,
    pub(super) settings: Live<Settings>,
}

impl Replays {
    /// Starts a replay.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the tenant's limit for running replays is reached.
    pub async fn start(&self, actor: &Actor, tenant: &TenantId, input: ReplayInput) -> Result<ReplayBegun, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        if !view.subscriptions.contains_key(&input.subscription) {
            return Err(Error::invalid("subscription", format!("there is no subscription `{}`", input.subscription)));
        }
        if input.events.len() > PATTERNS_MAX {
            return Err(Error::invalid("events", format!("at most {PATTERNS_MAX} patterns; none is everything")));
        }
        if input.subject.as_ref().is_some_and(|subject| subject.chars().count() > SUBJECT_CHARS_MAX) {
            return Err(Error::invalid("subject", format!("a subject has at most {SUBJECT_CHARS_MAX} characters")));
        }
        let rate_max = PER_SECOND_MAX;
        let per_second = input.per_second.unwrap_or(PER_SECOND_DEFAULT.min(rate_max));
        if !(1..=rate_max).contains(&per_second) {
            return Err(Error::invalid("per_second", format!("1 to {rate_max}")));
        }
        let now = self.clock.now();
        let until = input.until.unwrap_or(now).min(now);
        if input.since >= until {
            return Err(Error::invalid("since", "it has to be before `until`, and in the past"));
        }
        let replay = Replay {
            id: ReplayId::new(now, crypto::random_u128()),
            tenant: tenant.clone(),
            subscription: input.subscription,
            since: input.since,
            until,
            events: input.events,
            source: input.source,
            subject: input.subject,
            per_second,
            created_at: now,
        };
        let warnings = warnings::of_events(&replay.events, tenant, replay.source.as_slice(), &self.registry);
        let audit = actor.action("replay.start").note(replay.subscription.to_string());
        let running_max = self.settings.now().replays_per_tenant_max;
        let begun = self.replays.begin(replay, running_max, audit).await?;
        begun.map(|record| ReplayBegun { record, warnings }).ok_or_else(|| {
            let (key, what) = ("history.replays_per_tenant_max", "replays of this tenant run");
            Error::Conflict(format!("{running_max} {what}, as many as may (`{key}`): wait for one, or cancel it"))
        })
    }

    /// A tenant's replays, newest first: the running ones and the most recently ended ones.
    pub async fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<ReplayRecord>, Error> {
        find_tenant(&self.registry, tenant)?;
        // One extra item shows whether there is a next page.
        let mut items = self.replays.list(tenant, page.place()?, page.limit() + 1).await?;
        let more = items.len() > page.limit();
        items.truncate(page.limit());
        let next = items.last().filter(|_| more).map(|last| last.replay.id.to_string());
        Ok(Page { items, next })
    }

    /// A replay with its progress.
    pub async fn show(&self, tenant: &TenantId, id: ReplayId) -> Result<ReplayRecord, Error> {
        find_tenant(&self.registry, tenant)?;
        self.replays.get(tenant, id).await?.ok_or_else(|| not_found(id))
    }

    /// Cancels a replay. Deliveries that it has created remain, and a replay that has ended is not changed.
    pub async fn cancel(&self, actor: &Actor, tenant: &TenantId, id: ReplayId) -> Result<ReplayRecord, Error> {
        find_tenant(&self.registry, tenant)?;
        let (reason, audit) = ("by request".to_owned(), actor.action("replay.cancel"));
        let cancelled = self.replays.cancel(tenant, id, reason, audit, self.clock.now()).await?;
        cancelled.ok_or_else(|| not_found(id))
    }
}

fn not_found(id: ReplayId) -> Error {
    Error::NotFound(format!("replay `{id}`"))
}
