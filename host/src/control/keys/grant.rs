//! What a key was found to allow, held for longer than it takes to look it up: over a stream, or while a body arrives.

use std::time::Duration;

use crate::control::Control;
use crate::control::keys::Principal;
use crate::domain::id::{KeyId, TenantId};
use crate::domain::tenant::{Incarnation, Scope};

/// How often a grant is looked at besides every change of the registry, so that no notification that was missed and no
/// change of the clock keeps it.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// The least time between two looks.
const CHECK_PAUSE: Duration = Duration::from_millis(1);

/// A key may do this with this tenant, as it was made.
#[derive(Debug, Clone)]
pub struct Grant {
    key: KeyId,
    scope: Scope,
    tenant: TenantId,
    /// None: there was no tenant of that name.
    incarnation: Option<Incarnation>,
}

impl Grant {
    /// Whose things it is about.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

/// Why a grant does not hold any more.
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

impl Control {
    /// What a principal may do with a tenant now, if it may.
    pub fn grant(&self, principal: &Principal, scope: Scope, tenant: &TenantId) -> Option<Grant> {
        let incarnation = self.ledger.snapshot().tenant(tenant).map(|view| view.incarnation());
        let grant = || Grant { key: principal.key, scope, tenant: tenant.clone(), incarnation };
        principal.may(scope, Some(tenant)).then(grant)
    }

    /// Whether a grant still holds. Cheap: nothing is read from disk.
    ///
    /// # Errors
    /// With the reason if it does not.
    pub fn still_holds(&self, grant: &Grant) -> Result<(), Revoked> {
        let snapshot = self.ledger.snapshot();
        let incarnation = snapshot.tenant(&grant.tenant).map(|view| view.incarnation());
        if incarnation != grant.incarnation {
            return Err(Revoked::Tenant);
        }
        let key = &snapshot.keys.get(&grant.key).ok_or(Revoked::KeyRemoved)?.value;
        if key.ended(self.clock.now()).is_some() {
            return Err(Revoked::KeyEnded);
        }
        if Principal::of(key).may(grant.scope, Some(&grant.tenant)) { Ok(()) } else { Err(Revoked::Scope) }
    }

    /// Waits until a grant does not hold any more: woken by each change of the registry, by the end of the key, and by a
    /// clock of its own.
    pub async fn revoked(&self, grant: &Grant) -> Revoked {
        let mut changed = self.ledger.changed();
        loop {
            changed.mark_unchanged();
            if let Err(why) = self.still_holds(grant) {
                return why;
            }
            let snapshot = self.ledger.snapshot();
            let ends_at = snapshot.keys.get(&grant.key).and_then(|key| key.value.expires_at);
            drop(snapshot);
            let left = ends_at.map(|at| u64::try_from(at.since(self.clock.now())).unwrap_or(0));
            let pause = left.map_or(CHECK_EVERY, Duration::from_millis).clamp(CHECK_PAUSE, CHECK_EVERY);
            tokio::select! {
                // The ledger that notifies is held by `self`.
                _ = changed.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
