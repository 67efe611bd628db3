//! The caller of a request, and its permissions.

use std::collections::BTreeSet;

use setgate_domain::id::{KeyId, TenantId};
use setgate_domain::tenant::{ApiKey, Scope};
use setgate_domain::time::Timestamp;

/// The authenticated caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The key that was presented.
    pub key: KeyId,
    /// The key's tenant. `None` for the operator.
    pub tenant: Option<TenantId>,
    /// The key's scopes.
    pub scopes: BTreeSet<Scope>,
    /// The key's expiry time.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// The owner of this key.
    pub(super) fn of(key: &ApiKey) -> Self {
        Self { key: key.id, tenant: key.tenant.clone(), scopes: key.scopes.clone(), expires_at: key.expires_at }
    }

    /// Whether the caller has a scope for `tenant`, or for the host if `tenant` is `None`. `operator` may read and
    /// change everything, `operator_read` may read everything.
    pub fn may(&self, scope: Scope, tenant: Option<&TenantId>) -> bool {
        let Some(own) = &self.tenant else {
            let reads =
                matches!(scope, Scope::Read | Scope::OperatorRead) && self.scopes.contains(&Scope::OperatorRead);
            return reads || self.scopes.contains(&Scope::Operator);
        };
        tenant == Some(own) && !scope.is_operator_only() && self.scopes.contains(&scope)
    }

    /// The scopes that this caller may grant to a new key. `write` includes `ingest` here, because a caller with
    /// `write` could open a source to everybody anyway.
    pub(super) fn gives(&self) -> BTreeSet<Scope> {
        if self.tenant.is_none() {
            return Scope::TENANTS.into();
        }
        let mut most = self.scopes.clone();
        if most.contains(&Scope::Write) {
            most.insert(Scope::Ingest);
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_what_its_scopes_say_and_nothing_of_others() {
        let acme: TenantId = "acme".parse().unwrap();
        let other: TenantId = "other".parse().unwrap();
        let of = |tenant: Option<&TenantId>, scopes: &[Scope]| Principal {
            key: KeyId::from_bytes([7; 16]),
            tenant: tenant.cloned(),
            scopes: scopes.iter().copied().collect(),
            expires_at: None,
        };
        let all = [Scope::Ingest, Scope::Read, Scope::Write, Scope::OperatorRead, Scope::Operator];
        // The scopes of `all` that the principal has for its own tenant, for another tenant and for the host.
        for (principal, own, others, host) in [
            (of(Some(&acme), &[Scope::Ingest]), "10000", "00000", "00000"),
            (of(Some(&acme), &[Scope::Read]), "01000", "00000", "00000"),
            (of(Some(&acme), &[Scope::Write]), "00100", "00000", "00000"),
            // Such a key is never created. If it existed, it must not escalate.
            (of(Some(&acme), &[Scope::Operator]), "00000", "00000", "00000"),
            (of(None, &[Scope::OperatorRead]), "01010", "01010", "01010"),
            (of(None, &[Scope::Operator]), "11111", "11111", "11111"),
        ] {
            for (tenant, expected) in [(Some(&acme), own), (Some(&other), others), (None, host)] {
                let may: String =
                    all.iter().map(|scope| if principal.may(*scope, tenant) { '1' } else { '0' }).collect();
                assert_eq!(may, expected, "{principal:?} with {tenant:?}");
            }
        }
    }
}
