//! Subscriptions: the receiver of events, their selection, the filter chain and the signature.

mod chain;
mod documents;
mod endpoint;
mod named;
mod polling;
mod shapes;
mod signed_set;
mod signing;
mod test_event;
mod verification;

use std::collections::BTreeMap;

use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::id::{SourceName, SubscriptionId, SubscriptionName, SubscriptionRef, TenantId};
use setgate_domain::pacing::Pacing;
use setgate_domain::subscription::{
    METADATA_ENTRIES_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX, Pattern, Pause, PauseCause, Signing,
    Subscription,
};
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Registry, TenantView};

use super::checks::{TRIES, check_length, check_quota, expect_any, find_tenant, quota_of};
use super::{ABSENT, Error, Page, PageQuery};

pub(super) use chain::Chains;
pub(super) use documents::Documents;
pub(super) use endpoint::Endpoints;
pub use endpoint::{HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX};
pub use polling::{POLL_TOKENS_MAX, PollTokens};
pub use shapes::{
    BindingInput, BindingView, EndpointInput, EndpointView, Ignored, PollInput, PollTokenView, PollView, RotateInput,
    RotatePollTokenInput, SigningInput, SigningKeyView, SigningView, SubscriptionInput, SubscriptionOnce,
    SubscriptionView, TlsInput, TlsView,
};
pub use signing::{KEYS_MAX, SigningKeys};
pub use test_event::{TestEvents, TestSent};
pub use verification::Verifications;

use documents::not_found;
use shapes::RevealedKey;
use shapes::show;

/// Limit for the filters in one chain.
pub const CHAIN_MAX: usize = 16;
/// Limit for the event patterns of one subscription.
pub const PATTERNS_MAX: usize = 64;
/// Limit for the config of one binding in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Limit for the secrets of one binding.
pub const SECRETS_MAX: usize = 32;
/// Longest overlap of two signing keys in hours: 90 days.
pub const OVERLAP_HOURS_MAX: u32 = 90 * 24;

/// The subscriptions of all tenants.
#[derive(Clone)]
pub struct Subscriptions {
    pub(super) registry: Registry,
    pub(super) documents: Documents,
    pub(super) endpoints: Endpoints,
    pub(super) chains: Chains,
    pub(super) signing_keys: SigningKeys,
    pub(super) verifications: Verifications,
    pub(super) clock: Clock,
    pub(super) default_quota: Live<Quota>,
}

impl Subscriptions {
    /// The id of the subscription that a path refers to.
    pub fn id_of(&self, tenant: &TenantId, named: &SubscriptionRef) -> Result<SubscriptionId, Error> {
        match named {
            SubscriptionRef::Id(id) => Ok(*id),
            SubscriptionRef::Name(name) => named::find(find_tenant(&self.registry, tenant)?.as_ref(), name)
                .ok_or_else(|| Error::NotFound(format!("subscription `{name}`"))),
        }
    }

    /// Creates a subscription.
    pub async fn create(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        input: SubscriptionInput,
    ) -> Result<SubscriptionOnce, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let quota = quota_of(&self.default_quota, &view);
        check_quota(view.subscriptions.len(), quota.subscriptions_max, "subscriptions_max")?;
        check_length("description", &input.description)?;
        let now = self.clock.now();
        let id = SubscriptionId::new(now, crypto::random_u128());
        let (signing, mut made) = self.signing_keys.create(tenant, id, signing::of(&input).as_deref())?;
        let (subscription, poll_token) = self.take(&view, (id, input), signing, None, now)?;
        made.poll_token = poll_token;
        self.documents.create(subscription, made, actor.action("subscription.create")).await
    }

    /// Replaces a subscription completely. Its keys are retained unless the scheme changes. Pending deliveries keep
    /// their pinned chain.
    pub async fn replace(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        input: SubscriptionInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        self.documents
            .change(tenant, id, expected, |view, subscription, now| {
                named::check_id(input.id, id)?;
                check_length("description", &input.description)?;
                let (signing, mut made) = self.signing_keys.replace(
                    tenant,
                    id,
                    signing::of(&input).as_deref(),
                    subscription.signing.as_ref(),
                )?;
                let (taken, poll_token) = self.take(view, (id, input.clone()), signing, Some(&*subscription), now)?;
                (*subscription, made.poll_token) = (taken, poll_token);
                Ok((actor.action("subscription.replace"), made))
            })
            .await
    }

    /// Creates or replaces the subscription with this name. The returned flag is true if it was created.
    pub async fn put(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &SubscriptionName,
        mut input: SubscriptionInput,
        expected: Option<u64>,
    ) -> Result<(bool, SubscriptionOnce), Error> {
        if let Some(given) = &input.name
            && given.as_ref() != Some(name)
        {
            let why = format!("the path names the subscription `{name}`: leave `name` out, or rename it by its id");
            return Err(Error::invalid("name", why));
        }
        input.name = Some(Some(name.clone()));
        for _ in 0..TRIES {
            let found = named::find(find_tenant(&self.registry, tenant)?.as_ref(), name);
            let put = match found {
                Some(id) => self.replace(actor, tenant, id, input.clone(), expected).await,
                // The client expects a version, but the subscription does not exist.
                None if expected.is_some_and(|version| version != ABSENT) => {
                    return Err(Error::Version { actual: None });
                }
                None => self.create(actor, tenant, input.clone()).await,
            };
            match put {
                // Another request created or removed the subscription in the meantime: try again.
                Err(Error::NameTaken(_)) if found.is_none() => {}
                Err(Error::NotFound(_)) if found.is_some() && expected.is_none() => {}
                put => return put.map(|put| (found.is_none(), put)),
            }
        }
        Err(Error::Conflict("this is being changed by others all the time: send it again".into()))
    }

    /// The subscription of a request, and the token that was generated for its receiver. `before` is the stored one that
    /// it replaces.
    fn take(
        &self,
        view: &TenantView,
        (id, input): (SubscriptionId, SubscriptionInput),
        signing: Option<Signing>,
        before: Option<&Subscription>,
        now: Timestamp,
    ) -> Result<(Subscription, Option<String>), Error> {
        let tenant = &view.tenant.value.id;
        let (poll, poll_token) = polling::take(&input, before, now)?;
        let (endpoint, headers) = match input.endpoint {
            Some(given) => {
                let (endpoint, headers) = self.endpoints.take(tenant, id, given, before)?;
                (Some(endpoint), headers)
            }
            None => (None, BTreeMap::new()),
        };
        let chain_before = before.map(|before| before.chain.as_slice()).unwrap_or_default();
        let mut subscription = Subscription {
            id,
            tenant: tenant.clone(),
            name: named::name_of(input.name, before),
            chain: self.chains.take(tenant, id, input.chain, chain_before, view)?,
            endpoint,
            poll,
            headers,
            events: take_patterns(input.events)?,
            sources: take_sources(input.sources, view)?,
            description: input.description,
            format: input.format,
            signed_set: signed_set::take(input.format, input.signed_set, view, now)?,
            signing,
            retry: input.retry,
            pacing: take_pacing(input.pacing)?,
            paused: before.and_then(|before| before.paused.clone()),
            metadata: take_metadata(input.metadata)?,
            verified_at: None,
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
        };
        self.verifications.pause_unverified(view, &mut subscription, before, now);
        Ok((subscription, poll_token))
    }

    /// Pauses a subscription with a reason, or resumes it if `pause` is `None`. Deliveries remain queued while it is
    /// paused.
    pub async fn pause(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        pause: Option<String>,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        check_length("reason", &pause)?;
        self.documents
            .change(tenant, id, expected, |view, subscription, now| {
                let audit = match &pause {
                    Some(reason) => actor.action("subscription.pause").note(reason),
                    None => {
                        self.verifications.check_verified(view, subscription)?;
                        actor.action("subscription.resume")
                    }
                };
                subscription.paused =
                    pause.clone().map(|reason| Pause { cause: PauseCause::Request, reason, since: now });
                Ok((audit, RevealedKey::default()))
            })
            .await
    }

    /// A tenant's subscriptions, oldest first.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<SubscriptionView>, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let now = self.clock.now();
        page.of(view.subscriptions.iter().map(|(id, stored)| (*id, stored)), |stored| show(&stored.value, now))
    }

    /// Returns one subscription.
    pub fn show(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionOnce, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        Ok(self.documents.show(stored.version, &stored.value, RevealedKey::default(), self.clock.now()))
    }

    /// Removes a subscription. Its pending deliveries become dead letters with that reason.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !find_tenant(&self.registry, tenant)?.subscriptions.contains_key(&id) {
            return Err(not_found(id));
        }
        let intent = (expect_any(expected), actor.action("subscription.remove"));
        self.registry.remove_subscription(tenant, id, intent).await?;
        Ok(())
    }
}

fn take_patterns(given: Vec<Pattern>) -> Result<Vec<Pattern>, Error> {
    if given.is_empty() || given.len() > PATTERNS_MAX {
        return Err(Error::invalid("events", format!("give 1 to {PATTERNS_MAX} patterns; [\"*\"] is everything")));
    }
    Ok(given)
}

fn take_pacing(given: Pacing) -> Result<Pacing, Error> {
    match given.check() {
        Ok(()) => Ok(given),
        Err((field, why)) => Err(Error::invalid(field, why)),
    }
}

fn take_metadata(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    if given.len() > METADATA_ENTRIES_MAX {
        return Err(Error::invalid("metadata", format!("at most {METADATA_ENTRIES_MAX} entries")));
    }
    for (key, value) in &given {
        if !(1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count()) {
            return Err(Error::invalid("metadata", format!("a key has 1 to {METADATA_KEY_CHARS_MAX} characters")));
        }
        if value.chars().count() > METADATA_VALUE_CHARS_MAX {
            let why = format!("the value of `{key}` has more than {METADATA_VALUE_CHARS_MAX} characters");
            return Err(Error::invalid("metadata", why));
        }
    }
    Ok(given)
}

fn take_sources(given: Vec<SourceName>, view: &TenantView) -> Result<Vec<SourceName>, Error> {
    if let Some(unknown) = given.iter().find(|name| !view.sources.contains_key(name) && !name.is_setgate()) {
        return Err(Error::invalid("sources", format!("there is no source `{unknown}`")));
    }
    Ok(given)
}
