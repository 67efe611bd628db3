//! Subscriptions: the receiver of events, their selection, the filter chain and the signature.

mod endpoint;
mod named;
mod shapes;
mod signing;
mod test_event;
mod verification;

use std::collections::BTreeMap;

use setgate_base::crypto;
use setgate_domain::filter::{Binding, REUSE_EVENTS_MIN, Reuse, missing_grants};
use setgate_domain::id::{FilterName, SourceName, SubscriptionId, TenantId};
use setgate_domain::pacing::Pacing;
use setgate_domain::secret::{REDACTED, Sealed, SecretInput, binding_context};
use setgate_domain::subscription::{
    Cause, METADATA_ENTRIES_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX, Pattern, Pause, Signing,
    Subscription,
};
use setgate_ledger::TenantView;

use super::checks::{check_length, check_quota, expect_any, expect_version, retried};
use super::{Control, Error, Page, PageQuery, Precondition};

pub use endpoint::{HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX};
pub use shapes::{
    BindingInput, BindingView, EndpointInput, EndpointView, Ignored, RotateInput, SigningInput, SigningKeyView,
    SigningView, SubscriptionInput, SubscriptionOnce, SubscriptionView, TlsInput, TlsView,
};
pub use signing::KEYS_MAX;

pub use test_event::TestSent;

use shapes::show;
use signing::Made;

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

impl Control {
    /// Creates a subscription.
    pub async fn create_subscription(
        &self,
        tenant: &TenantId,
        input: SubscriptionInput,
    ) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        check_quota(view.subscriptions.len(), self.quota_of(&view).subscriptions_max, "subscriptions_max")?;
        check_length("description", &input.description)?;
        let now = self.clock.now();
        let id = SubscriptionId::new(now, crypto::random_u128());
        let (key, made) = self.make_signing_key(tenant, id, &input.signing.wanted()?)?;
        let (endpoint, headers) = self.take_endpoint(tenant, id, input.endpoint, None)?;
        let mut subscription = Subscription {
            id,
            tenant: tenant.clone(),
            name: named::name_of(input.name, None),
            chain: self.take_chain(tenant, id, input.chain, &[], &view)?,
            endpoint,
            headers,
            events: take_patterns(input.events)?,
            sources: take_sources(input.sources, &view)?,
            description: input.description,
            format: input.format,
            signing: Signing { scheme: input.signing.scheme, keys: vec![key] },
            retry: input.retry,
            pacing: take_pacing(input.pacing)?,
            paused: None,
            metadata: take_metadata(input.metadata)?,
            verified_at: None,
            created_at: now,
            updated_at: now,
        };
        self.pause_unverified(&view, &mut subscription, None, now);
        let intent = (Precondition::Absent, self.audit("subscription.create"));
        let version = self.ledger.registry.put_subscription(subscription.clone(), intent).await?;
        Ok(made.beside(self, version, &subscription, now))
    }

    /// Replaces a subscription completely. Its keys are retained unless the scheme changes. Pending deliveries keep
    /// their pinned chain.
    pub async fn replace_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        input: SubscriptionInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        retried(expected, || self.replace_once(tenant, id, input.clone(), expected)).await
    }

    async fn replace_once(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        input: SubscriptionInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        let before = &stored.value;
        named::check_id(input.id, id)?;
        check_length("description", &input.description)?;
        let (signing, made) = self.replace_signing(tenant, id, &input.signing, &before.signing)?;
        let (endpoint, headers) = self.take_endpoint(tenant, id, input.endpoint, Some(before))?;
        let now = self.clock.now();
        let mut after = Subscription {
            id,
            tenant: tenant.clone(),
            name: named::name_of(input.name, Some(before)),
            chain: self.take_chain(tenant, id, input.chain, &before.chain, &view)?,
            endpoint,
            headers,
            events: take_patterns(input.events)?,
            sources: take_sources(input.sources, &view)?,
            description: input.description,
            format: input.format,
            signing,
            retry: input.retry,
            pacing: take_pacing(input.pacing)?,
            paused: before.paused.clone(),
            metadata: take_metadata(input.metadata)?,
            verified_at: None,
            created_at: before.created_at,
            updated_at: now,
        };
        self.pause_unverified(&view, &mut after, Some(before), now);
        let intent = (expect_version(expected, Some(stored)), self.audit("subscription.replace"));
        let version = self.ledger.registry.put_subscription(after.clone(), intent).await?;
        Ok(made.beside(self, version, &after, now))
    }

    /// Pauses a subscription with a reason, or resumes it if `pause` is `None`. Deliveries remain queued while it is
    /// paused.
    pub async fn pause_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        pause: Option<String>,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        check_length("reason", &pause)?;
        retried(expected, || self.pause_once(tenant, id, pause.clone(), expected)).await
    }

    async fn pause_once(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        pause: Option<String>,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        if pause.is_none() {
            self.check_verified(&view, &stored.value)?;
        }
        let mut subscription = stored.value.clone();
        let now = self.clock.now();
        subscription.paused = pause.map(|reason| Pause { cause: Cause::Request, reason, since: now });
        subscription.updated_at = now;
        let audit = match &subscription.paused {
            Some(pause) => self.audit("subscription.pause").note(&pause.reason),
            None => self.audit("subscription.resume"),
        };
        let version = self
            .ledger
            .registry
            .put_subscription(subscription.clone(), (expect_version(expected, Some(stored)), audit))
            .await?;
        Ok(Made::default().beside(self, version, &subscription, now))
    }

    /// A tenant's subscriptions, oldest first.
    pub fn list_subscriptions(&self, tenant: &TenantId, page: PageQuery) -> Result<Page<SubscriptionView>, Error> {
        let view = self.tenant(tenant)?;
        let now = self.clock.now();
        page.of(view.subscriptions.iter().map(|(id, stored)| (*id, stored)), |stored| show(&stored.value, now))
    }

    /// Returns one subscription.
    pub fn show_subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        Ok(Made::default().beside(self, stored.version, &stored.value, self.clock.now()))
    }

    /// Removes a subscription. Its pending deliveries become dead letters with that reason.
    pub async fn remove_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !self.tenant(tenant)?.subscriptions.contains_key(&id) {
            return Err(not_found(id));
        }
        self.ledger
            .registry
            .remove_subscription(tenant, id, (expect_any(expected), self.audit("subscription.remove")))
            .await?;
        Ok(())
    }

    fn take_chain(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: Vec<BindingInput>,
        before: &[Binding],
        view: &TenantView,
    ) -> Result<Vec<Binding>, Error> {
        if given.len() > CHAIN_MAX {
            return Err(Error::invalid("chain", format!("a chain has at most {CHAIN_MAX} filters")));
        }
        let context = binding_context(tenant, &id);
        let mut chain = Vec::with_capacity(given.len());
        let mut seen: BTreeMap<FilterName, usize> = BTreeMap::new();
        for binding in given {
            let earlier = seen.entry(binding.filter.clone()).or_default();
            let nth = *earlier;
            *earlier += 1;
            let filter = view.filters.get(&binding.filter).map(|stored| &stored.value);
            let active = filter.and_then(|filter| Some((filter, filter.version(&filter.active?)?)));
            let (filter, version) = active.ok_or_else(|| {
                let why = format!("there is no active filter `{}`: upload it first", binding.filter);
                Error::invalid("chain/filter", why)
            })?;
            let grants = binding.grants.unwrap_or_default();
            if let Some(missing) = missing_grants(&version.needs, &grants) {
                return Err(Error::invalid("chain/grants", format!("the filter `{}` {missing}", binding.filter)));
            }
            // The candidate of a rollout also runs for this binding.
            let candidate = filter.rollout.as_ref().and_then(|rollout| filter.version(&rollout.digest));
            if let Some(missing) = candidate.and_then(|candidate| missing_grants(&candidate.needs, &grants)) {
                let why = format!("the version on trial of the filter `{}` {missing}", binding.filter);
                return Err(Error::invalid("chain/grants", why));
            }
            if !binding.config.get().trim_start().starts_with('{') || binding.config.get().len() > CONFIG_BYTES_MAX {
                let why = format!("give a JSON object of at most {CONFIG_BYTES_MAX} bytes");
                return Err(Error::invalid("chain/config", why));
            }
            let stored = before.iter().filter(|old| old.filter == binding.filter).nth(nth).map(|old| &old.secrets);
            let secrets = self.take_secrets(&context, binding.secrets, stored)?;
            chain.push(Binding {
                filter: binding.filter,
                config: binding.config,
                secrets,
                grants,
                on_fault: binding.on_fault,
                reuse: binding.reuse.map(|reuse| self.take_reuse(reuse)).transpose()?,
            });
        }
        Ok(chain)
    }

    /// Secrets of a binding: see [`BindingInput::secrets`].
    fn take_secrets(
        &self,
        context: &str,
        given: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
        stored: Option<&BTreeMap<String, Sealed>>,
    ) -> Result<BTreeMap<String, Sealed>, Error> {
        let Some(given) = given.unwrap_or_else(|| Some(BTreeMap::new())) else { return Ok(BTreeMap::new()) };
        let mut secrets = stored.cloned().unwrap_or_default();
        for (name, secret) in given {
            match secret {
                None => drop(secrets.remove(&name)),
                Some(SecretInput::New(secret)) => drop(secrets.insert(name, self.master.seal(context, &secret))),
                Some(SecretInput::Stored) if secrets.contains_key(&name) => {}
                Some(SecretInput::Stored) => {
                    let why = format!("no value of `{name}` is stored, so `{REDACTED}` keeps nothing: give one");
                    return Err(Error::invalid("chain/secrets", why));
                }
            }
        }
        if secrets.len() > SECRETS_MAX {
            return Err(Error::invalid("chain/secrets", format!("at most {SECRETS_MAX}")));
        }
        Ok(secrets)
    }

    fn take_reuse(&self, given: Reuse) -> Result<Reuse, Error> {
        let most = self.sandbox.reuse_events_max();
        let why = if most < REUSE_EVENTS_MIN {
            format!("this host keeps no instances (`sandbox.reuse_events_max` is {most}): leave `reuse` out")
        } else if given.events_max < REUSE_EVENTS_MIN {
            format!("give {REUSE_EVENTS_MIN} or more; without `reuse` each event has a fresh instance")
        } else if given.events_max > most {
            format!("at most {most}, which is this host's `sandbox.reuse_events_max`")
        } else {
            return Ok(given);
        };
        Err(Error::invalid("chain/reuse/events_max", why))
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

fn not_found(id: SubscriptionId) -> Error {
    Error::NotFound(format!("subscription `{id}`"))
}
