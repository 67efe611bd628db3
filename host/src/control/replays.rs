//! Replays: past events made into new runs for one subscription. The data plane carries them out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::subscriptions::PATTERNS_MAX;
use super::warnings::Warning;
use super::{Control, Error, Page, PageQuery};
use crate::crypto;
use crate::domain::id::{ReplayId, SourceName, SubscriptionId, TenantId};
use crate::domain::replay::{Replay, ReplayRecord};
use crate::domain::subject::SUBJECT_CHARS_MAX;
use crate::domain::subscription::Pattern;
use crate::domain::time::Timestamp;

/// Deliveries a second, where the request does not say.
pub const PER_SECOND_DEFAULT: u32 = 10;

/// What is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayInput {
    /// The subscription that gets the events, as far as it wants them as it is then.
    pub subscription: SubscriptionId,
    /// Events accepted at or after.
    pub since: Timestamp,
    /// Events accepted before; now where absent or later. What comes after the request is no past event.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Of them, those with a type that matches one of these patterns; absent or empty: all.
    #[serde(default)]
    pub events: Vec<Pattern>,
    /// Of them, those of this source.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// Of them, those about exactly this subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Deliveries that it makes in a second; [`PER_SECOND_DEFAULT`] where absent, `history.replay_per_second_max` at the
    /// most.
    #[serde(default)]
    pub per_second: Option<u32>,
}

/// A replay that has begun.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReplayBegun {
    /// The replay.
    #[serde(flatten)]
    pub record: ReplayRecord,
    /// What of it cannot have the effect that it asks for; absent: nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl Control {
    /// Begins a replay.
    ///
    /// [`Error::Conflict`] where as many of the tenant's run as may.
    pub async fn create_replay(&self, tenant: &TenantId, input: ReplayInput) -> Result<ReplayBegun, Error> {
        let view = self.tenant(tenant)?;
        if !view.subscriptions.contains_key(&input.subscription) {
            return Err(Error::invalid("subscription", format!("there is no subscription `{}`", input.subscription)));
        }
        if input.events.len() > PATTERNS_MAX {
            return Err(Error::invalid("events", format!("at most {PATTERNS_MAX} patterns; none is everything")));
        }
        if input.subject.as_ref().is_some_and(|subject| subject.chars().count() > SUBJECT_CHARS_MAX) {
            return Err(Error::invalid("subject", format!("a subject has at most {SUBJECT_CHARS_MAX} characters")));
        }
        let rate_max = self.history().replay_per_second_max;
        let per_second = input.per_second.unwrap_or(PER_SECOND_DEFAULT.min(rate_max));
        if !(1..=rate_max).contains(&per_second) {
            return Err(Error::invalid("per_second", format!("1 to {rate_max} (`history.replay_per_second_max`)")));
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
        let warnings = self.pattern_warnings(tenant, &replay.events, replay.source.as_slice());
        let running_max = self.history().replays_per_tenant_max;
        let begun = self.ledger.begin_replay(replay, running_max, self.actor.claim.clone()).await?;
        begun.map(|record| ReplayBegun { record, warnings }).ok_or_else(|| {
            let (key, what) = ("history.replays_per_tenant_max", "replays of this tenant run");
            Error::Conflict(format!("{running_max} {what}, as many as may (`{key}`): wait for one, or cancel it"))
        })
    }

    /// A tenant's replays, newest first: those that run, and the last that ended.
    pub async fn list_replays(&self, tenant: &TenantId, page: PageQuery) -> Result<Page<ReplayRecord>, Error> {
        self.tenant(tenant)?;
        // One more says whether there are more.
        let mut items = self.ledger.replays(tenant, page.place()?, page.limit() + 1).await?;
        let more = items.len() > page.limit();
        items.truncate(page.limit());
        let next = items.last().filter(|_| more).map(|last| last.replay.id.to_string());
        Ok(Page { items, next })
    }

    /// A replay and how far it has come.
    pub async fn show_replay(&self, tenant: &TenantId, id: ReplayId) -> Result<ReplayRecord, Error> {
        self.tenant(tenant)?;
        self.ledger.replay(tenant, id).await?.ok_or_else(|| not_found(id))
    }

    /// Ends a replay; what it has made stays, and one that has ended stays as it is.
    pub async fn cancel_replay(&self, tenant: &TenantId, id: ReplayId) -> Result<ReplayRecord, Error> {
        self.tenant(tenant)?;
        let cancelled = self.ledger.cancel_replay(tenant, id, "by request".into(), self.clock.now()).await?;
        cancelled.ok_or_else(|| not_found(id))
    }
}

fn not_found(id: ReplayId) -> Error {
    Error::NotFound(format!("replay `{id}`"))
}
