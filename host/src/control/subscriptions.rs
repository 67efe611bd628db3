//! Subscriptions: who gets which events, through which filters, signed how.

mod endpoint;
mod shapes;
mod test_event;
mod verification;

use std::collections::BTreeMap;

use super::{Control, Error, Expected, Page, PageQuery, any_or, over_expected, retried, room, short};
use crate::crypto;
use crate::domain::filter::{Binding, REUSE_EVENTS_MIN, Reuse, missing_grants};
use crate::domain::id::{FilterName, SigningKeyId, SourceName, SubscriptionId, TenantId};
use crate::domain::pacing::Pacing;
use crate::domain::secret::{Secret, binding_context, signing_context};
use crate::domain::subscription::{
    Cause, METADATA_ENTRIES_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX, Pattern, Pause, Signing, SigningKey,
    SigningScheme, Subscription,
};
use crate::ledger::TenantView;
use crate::signing;

pub use endpoint::{HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX};
pub use shapes::{
    BindingInput, BindingView, EndpointInput, EndpointView, RotateInput, SigningInput, SigningKeyView, SigningView,
    SubscriptionInput, SubscriptionOnce, SubscriptionView, TlsInput, TlsView,
};

pub use test_event::TestSent;

use shapes::show;

/// Filters in one chain at the most.
pub const CHAIN_MAX: usize = 16;
/// Event patterns of one subscription at the most.
pub const PATTERNS_MAX: usize = 64;
/// Bytes of one binding's config at the most.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Secrets of one binding at the most.
pub const SECRETS_MAX: usize = 32;
/// Keys of one key ring at the most.
pub const KEYS_MAX: usize = 8;
/// Hours that a rotated key goes on signing beside the new one, where the request does not say.
const OVERLAP_HOURS: u32 = 24;
/// Hours of such an overlap at the most: 90 days.
pub const OVERLAP_HOURS_MAX: u32 = 90 * 24;

impl Control {
    /// Makes a subscription.
    pub async fn create_subscription(
        &self,
        tenant: &TenantId,
        input: SubscriptionInput,
    ) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        room(view.subscriptions.len(), self.quota_of(&view).subscriptions_max, "subscriptions_max")?;
        short("description", &input.description)?;
        let now = self.clock.now();
        let id = SubscriptionId::new(now, crypto::random_u128());
        let (key, shown) = self.make_signing_key(
            tenant,
            id,
            input.signing.scheme,
            input.signing.secret.as_ref(),
            input.signing.ed25519,
        )?;
        let (endpoint, headers) = self.take_endpoint(tenant, id, input.endpoint, None)?;
        let mut subscription = Subscription {
            id,
            tenant: tenant.clone(),
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
        let intent = (Expected::Absent, self.deed("subscription.create"));
        let version = self.ledger.put_subscription(subscription.clone(), intent).await?;
        Ok(SubscriptionOnce { version, view: show(&subscription), signing_secret: shown })
    }

    /// Replaces a subscription whole; its keys stay unless the scheme changes. What is already on its way keeps the
    /// chain that it was created with.
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
        short("description", &input.description)?;
        let context = signing_context(tenant, &id);
        let known = |secret: &Secret| {
            let opened = before.signing.keys.iter().map(|key| self.signer.open_key(&context, key.id, &key.secret));
            opened.flatten().any(|key| {
                crypto::constant_time_eq(
                    &crypto::sha256(key.expose().as_bytes()),
                    &crypto::sha256(secret.expose().as_bytes()),
                )
            })
        };
        let given = input.signing.secret.as_ref();
        let new_key = input.signing.scheme != before.signing.scheme || given.is_some_and(|secret| !known(secret));
        let symmetric = before.signing.keys.first().is_some_and(|key| key.public.is_none());
        if !new_key && input.signing.ed25519 && symmetric {
            let why = "the keys here are symmetric, and replacing keeps them: make an ed25519 key by `rotate-key`";
            return Err(Error::invalid("signing/ed25519", why));
        }
        let (signing, shown) = if new_key {
            let (key, shown) = self.make_signing_key(
                tenant,
                id,
                input.signing.scheme,
                input.signing.secret.as_ref(),
                input.signing.ed25519,
            )?;
            (Signing { scheme: input.signing.scheme, keys: vec![key] }, shown)
        } else {
            (before.signing.clone(), None)
        };
        let (endpoint, headers) = self.take_endpoint(tenant, id, input.endpoint, Some(before))?;
        let now = self.clock.now();
        let mut after = Subscription {
            id,
            tenant: tenant.clone(),
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
        let intent = (over_expected(expected, Some(stored)), self.deed("subscription.replace"));
        let version = self.ledger.put_subscription(after.clone(), intent).await?;
        Ok(SubscriptionOnce { version, view: show(&after), signing_secret: shown })
    }

    /// Adds a signing key in front of the ring; those so far go on beside it for the overlap.
    pub async fn rotate_signing_key(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        input: RotateInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        retried(expected, || self.rotate_once(tenant, id, &input, expected)).await
    }

    async fn rotate_once(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        input: &RotateInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        let mut subscription = stored.value.clone();
        let now = self.clock.now();
        let hours = input.overlap_hours.unwrap_or(OVERLAP_HOURS);
        if hours > OVERLAP_HOURS_MAX {
            return Err(Error::invalid("overlap_hours", format!("at most {OVERLAP_HOURS_MAX}")));
        }
        let ends = now.plus_millis(i64::from(hours) * 3_600_000);
        let ed25519 =
            input.ed25519.unwrap_or_else(|| subscription.signing.keys.first().is_some_and(|key| key.public.is_some()));
        let scheme = subscription.signing.scheme;
        let (key, shown) = self.make_signing_key(tenant, id, scheme, input.secret.as_ref(), ed25519)?;
        let made = key.id;
        let keys = &mut subscription.signing.keys;
        for old in keys.iter_mut() {
            old.expires_at = Some(old.expires_at.map_or(ends, |at| at.min(ends)));
        }
        keys.insert(0, key);
        keys.retain(|key| key.expires_at.is_none_or(|at| at > now));
        keys.truncate(KEYS_MAX);
        subscription.updated_at = now;
        let intent =
            (over_expected(expected, Some(stored)), self.deed("subscription.rotate_key").note(made.to_string()));
        let version = self.ledger.put_subscription(subscription.clone(), intent).await?;
        Ok(SubscriptionOnce { version, view: show(&subscription), signing_secret: shown })
    }

    /// Stops or starts sending. Nothing is lost and nothing is skipped: what is pending waits.
    pub async fn pause_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        pause: Option<String>,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        short("reason", &pause)?;
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
        short("reason", &pause)?;
        if pause.is_none() {
            self.check_verified(&view, &stored.value)?;
        }
        let mut subscription = stored.value.clone();
        let now = self.clock.now();
        subscription.paused = pause.map(|reason| Pause { cause: Cause::Request, reason, since: now });
        subscription.updated_at = now;
        let deed = match &subscription.paused {
            Some(pause) => self.deed("subscription.pause").note(&pause.reason),
            None => self.deed("subscription.resume"),
        };
        let version =
            self.ledger.put_subscription(subscription.clone(), (over_expected(expected, Some(stored)), deed)).await?;
        Ok(SubscriptionOnce { version, view: show(&subscription), signing_secret: None })
    }

    /// A tenant's subscriptions, oldest first.
    pub fn list_subscriptions(&self, tenant: &TenantId, page: PageQuery) -> Result<Page<SubscriptionView>, Error> {
        let view = self.tenant(tenant)?;
        page.of(view.subscriptions.iter().map(|(id, stored)| (*id, stored)), |stored| show(&stored.value))
    }

    /// One subscription.
    pub fn show_subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        Ok(SubscriptionOnce { version: stored.version, view: show(&stored.value), signing_secret: None })
    }

    /// Removes a subscription. What was pending becomes dead letters, with the reason.
    pub async fn remove_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !self.tenant(tenant)?.subscriptions.contains_key(&id) {
            return Err(not_found(id));
        }
        self.ledger.remove_subscription(tenant, id, (any_or(expected), self.deed("subscription.remove"))).await?;
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
            // A version on trial runs for this binding as well.
            let candidate = filter.rollout.as_ref().and_then(|rollout| filter.version(&rollout.digest));
            if let Some(missing) = candidate.and_then(|candidate| missing_grants(&candidate.needs, &grants)) {
                let why = format!("the version on trial of the filter `{}` {missing}", binding.filter);
                return Err(Error::invalid("chain/grants", why));
            }
            if !binding.config.get().trim_start().starts_with('{') || binding.config.get().len() > CONFIG_BYTES_MAX {
                let why = format!("give a JSON object of at most {CONFIG_BYTES_MAX} bytes");
                return Err(Error::invalid("chain/config", why));
            }
            let secrets = match binding.secrets {
                Some(given) if given.len() > SECRETS_MAX => {
                    return Err(Error::invalid("chain/secrets", format!("at most {SECRETS_MAX}")));
                }
                Some(given) => {
                    given.iter().map(|(name, secret)| (name.clone(), self.master.seal(&context, secret))).collect()
                }
                None => before
                    .iter()
                    .filter(|old| old.filter == binding.filter)
                    .nth(nth)
                    .map(|old| old.secrets.clone())
                    .unwrap_or_default(),
            };
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

    /// A key for the ring; its text is given back only where it was made here.
    fn make_signing_key(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        scheme: SigningScheme,
        given: Option<&Secret>,
        ed25519: bool,
    ) -> Result<(SigningKey, Option<String>), Error> {
        let made = match given {
            Some(secret) => {
                let public = signing::public_of(scheme, secret).map_err(|e| Error::invalid("signing/secret", e))?;
                signing::NewKey { secret: secret.clone(), public }
            }
            None => {
                let kind = if ed25519 { signing::Kind::Ed25519 } else { signing::Kind::Symmetric };
                signing::generate(scheme, kind).map_err(|e| Error::invalid("signing/ed25519", e))?
            }
        };
        let now = self.clock.now();
        let key_id = SigningKeyId::new(now, crypto::random_u128());
        let key = SigningKey {
            id: key_id,
            secret: self.signer.seal_key(&signing_context(tenant, &id), key_id, &made.secret),
            public: made.public,
            created_at: now,
            expires_at: None,
        };
        let shown = given.is_none().then(|| made.secret.expose().to_owned());
        Ok((key, shown))
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
