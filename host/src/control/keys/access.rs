//! Authentication by API key, and authorization that outlives a single check: for a stream, or while a request body
//! arrives. It is rechecked until it ends.

use std::time::Duration;

use metrics::counter;
use setgate_base::authenticate::{AuthError, authenticate};
use setgate_base::clock::Clock;
use setgate_base::telemetry::metric;
use setgate_domain::id::{KeyId, TenantId};
use setgate_domain::tenant::{Incarnation, Scope};
use setgate_ledger::Registry;

use super::Principal;

/// Interval at which a grant is rechecked in addition to each change of the registry, in case a notification is missed
/// or the clock changes.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Shortest time between two checks.
const CHECK_PAUSE: Duration = Duration::from_millis(1);

/// Permission of a key for one scope of one tenant.
#[derive(Debug, Clone)]
pub struct Grant {
    key: KeyId,
    scope: Scope,
    tenant: TenantId,
    /// `None` if the tenant did not exist when the grant was made.
    incarnation: Option<Incarnation>,
}

impl Grant {
    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

/// Why a grant has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each has its words")]
pub enum Revoked {
    #[error("the key was removed")]
    KeyRemoved,
    #[error("the key has expired, or ended after it was rotated")]
    KeyEnded,
    #[error("the key may not do this any more")]
    Scope,
    #[error("the tenant was removed")]
    Tenant,
}

/// Checks API keys. Reads only memory.
#[derive(Clone)]
pub struct Access {
    pub(in crate::control) registry: Registry,
    pub(in crate::control) clock: Clock,
}

impl Access {
    /// Authenticates the holder of a bearer token, and counts refusals.
    pub fn authenticate(&self, given: Option<&str>) -> Result<Principal, AuthError> {
        let snapshot = self.registry.snapshot();
        let stored = |id: &KeyId| snapshot.keys.get(id).map(|key| &key.value);
        let key = authenticate(given, stored, self.clock.now()).inspect_err(|denied| {
            counter!(metric::KEYS_DENIED, "reason" => denied.reason()).increment(1);
        })?;
        Ok(Principal::of(key))
    }

    /// Grants a principal a scope of a tenant, if the principal has it now.
    pub fn grant(&self, principal: &Principal, scope: Scope, tenant: &TenantId) -> Option<Grant> {
        let incarnation = self.registry.snapshot().tenant(tenant).map(|view| view.incarnation());
        let grant = || Grant { key: principal.key, scope, tenant: tenant.clone(), incarnation };
        principal.may(scope, Some(tenant)).then(grant)
    }

    /// Checks whether a grant is still valid.
    ///
    /// # Errors
    /// The reason if it is no longer valid.
    pub fn still_holds(&self, grant: &Grant) -> Result<(), Revoked> {
        let snapshot = self.registry.snapshot();
        let incarnation = snapshot.tenant(&grant.tenant).map(|view| view.incarnation());
        if incarnation != grant.incarnation {
            return Err(Revoked::Tenant);
        }
        let key = &snapshot.keys.get(&grant.key).ok_or(Revoked::KeyRemoved)?.value;
        if key.expired_at(self.clock.now()).is_some() {
            return Err(Revoked::KeyEnded);
        }
        if Principal::of(key).may(grant.scope, Some(&grant.tenant)) { Ok(()) } else { Err(Revoked::Scope) }
    }

    /// Waits until a grant ends. It is rechecked after each change of the registry, when the key expires, and every
    /// five seconds.
    pub async fn revoked(&self, grant: &Grant) -> Revoked {
        let mut changed = self.registry.changed();
        loop {
            changed.mark_unchanged();
            if let Err(why) = self.still_holds(grant) {
                return why;
            }
            let snapshot = self.registry.snapshot();
            let ends_at = snapshot.keys.get(&grant.key).and_then(|key| key.value.expires_at);
            drop(snapshot);
            let left = ends_at.map(|at| u64::try_from(at.since(self.clock.now())).unwrap_or(0));
            let pause = left.map_or(CHECK_EVERY, Duration::from_millis).clamp(CHECK_PAUSE, CHECK_EVERY);
            tokio::select! {
                // The sender is part of the ledger that `self` holds, so `changed` cannot fail.
                _ = changed.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
