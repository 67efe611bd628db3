//! Parses a filter chain from a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use setgate_base::crypto::MasterKey;
use setgate_domain::filter::{Binding, REUSE_EVENTS_MIN, Reuse, missing_grants};
use setgate_domain::id::{FilterName, SubscriptionId, TenantId};
use setgate_domain::secret::{REDACTED, Sealed, SecretInput, binding_context};
use setgate_ledger::TenantView;
use setgate_sandbox::Sandbox;

use super::{BindingInput, CHAIN_MAX, CONFIG_BYTES_MAX, SECRETS_MAX};
use crate::control::Error;

/// Checks chains, and encrypts the secrets of their bindings.
#[derive(Clone)]
pub(in crate::control) struct Chains {
    pub(in crate::control) master: Arc<MasterKey>,
    pub(in crate::control) sandbox: Sandbox,
}

impl Chains {
    /// The chain of a request, merged with the secrets of the stored chain.
    pub(super) fn take(
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
