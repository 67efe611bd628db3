//! Issuer keys: the keys with which a tenant signs the SETs that it issues, and the JWKS with their public halves.
//!
//! The states of a key follow from times ([`setgate_domain::issuer_key`]). Private keys are stored encrypted, and are
//! never returned.

mod making;
mod shapes;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::id::{IssuerKeyId, TenantId};
use setgate_domain::issuer_key::{self, ISSUER_KEYS_MAX, IssuerKey, KeyState, issuer_path};
use setgate_domain::secret::{Secret, issuer_key_context};
use setgate_ledger::{Precondition, Registry, TenantView, Versioned};

use super::checks::{check_version, expect_version, find_tenant, retried};
use super::public_url::Server;
use super::rate::KeyCreations;
use super::{Error, Page, PageQuery};

pub use shapes::{IssuerKeyView, NewIssuerKey, PrivateJwk};

/// The issuer keys of all tenants.
#[derive(Clone)]
pub struct IssuerKeys {
    pub(super) registry: Registry,
    pub(super) master: Arc<MasterKey>,
    pub(super) clock: Clock,
    pub(super) server: Live<Server>,
    pub(super) creations: KeyCreations,
    pub(super) maker: making::KeyMaker,
}

impl IssuerKeys {
    pub(super) fn new(registry: Registry, master: Arc<MasterKey>, clock: Clock, server: Live<Server>) -> Self {
        let creations = KeyCreations::new(clock.clone());
        Self { registry, master, clock, server, creations, maker: making::KeyMaker::default() }
    }

    /// Generates or imports a key. The first key of an algorithm signs at once; a later one is published before.
    pub async fn create(&self, actor: &Actor, tenant: &TenantId, new: NewIssuerKey) -> Result<IssuerKeyView, Error> {
        let public_url = self.server.now().public_url.as_ref().map(|url| url.as_str().to_owned());
        // Checked again with the commit, but a key takes long to generate.
        let view = find_tenant(&self.registry, tenant)?;
        if view.tenant.value.issuer.is_none() && public_url.is_none() {
            return Err(setgate_ledger::Error::NoPublicUrl(tenant.clone()).into());
        }
        if view.issuer_keys.len() >= ISSUER_KEYS_MAX {
            return Err(setgate_ledger::Error::TooManyIssuerKeys { max: ISSUER_KEYS_MAX }.into());
        }
        let wanted = new.wanted()?;
        let action = wanted.action();
        self.creations.take(tenant)?;
        let made = self.maker.make(wanted).await?;

        let kid: IssuerKeyId = made.kid().parse().map_err(|error| Error::invalid("jwk", error))?;
        let exists = || Error::Conflict(format!("the tenant has the key `{kid}` already"));
        let view = find_tenant(&self.registry, tenant)?;
        if view.issuer_keys.contains_key(&kid) {
            return Err(exists());
        }
        let private = Secret::new(BASE64_STANDARD.encode(made.to_pkcs8()));
        let now = self.clock.now();
        let key = IssuerKey {
            tenant: tenant.clone(),
            kid: kid.clone(),
            algorithm: made.algorithm(),
            public_jwk: made.public_jwk().to_owned(),
            private: self.master.seal(&issuer_key_context(tenant, &kid), &private),
            created_at: now,
            signs_from: issuer_key::signs_from(keys_of(&view), made.algorithm(), now),
        };
        let context = (Precondition::Absent, actor.action(action));
        match self.registry.add_issuer_key(key, public_url, context).await {
            Ok(_) => self.show(tenant, &kid),
            Err(setgate_ledger::Error::VersionMismatch { .. }) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a key sign from now on. The key that signed until now is retired. No change if it signs already.
    pub async fn activate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        kid: &IssuerKeyId,
        expected: Option<u64>,
    ) -> Result<IssuerKeyView, Error> {
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = find(&view, kid)?;
            check_version(expected, stored.version)?;
            let now = self.clock.now();
            if stored.value.state(keys_of(&view), now) != KeyState::Signing {
                let key = IssuerKey { signs_from: now, ..stored.value.clone() };
                let context = (expect_version(expected, Some(stored)), actor.action("issuer_key.activate"));
                self.registry.put_issuer_key(key, context).await?;
            }
            self.show(tenant, kid)
        })
        .await
    }

    /// Removes a key from the JWKS, and its private half from the host. Only a key that does not sign, and that no
    /// receiver can need any more.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        kid: &IssuerKeyId,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = find(&view, kid)?;
            check_version(expected, stored.version)?;
            let removable = stored.value.check_removable(keys_of(&view), self.clock.now());
            removable.map_err(|why| Error::Conflict(format!("the key `{kid}` cannot be removed: {why}")))?;
            let context = (expect_version(expected, Some(stored)), actor.action("issuer_key.remove"));
            self.registry.remove_issuer_key(tenant, kid, context).await?;
            Ok(())
        })
        .await
    }

    /// The tenant's keys, by id.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<IssuerKeyView>, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let now = self.clock.now();
        let keys = view.issuer_keys.iter().map(|(kid, key)| (kid.clone(), key));
        page.of(keys, |key| IssuerKeyView::of(&view, key, now))
    }

    /// Returns one key.
    pub fn show(&self, tenant: &TenantId, kid: &IssuerKeyId) -> Result<IssuerKeyView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        Ok(IssuerKeyView::of(&view, find(&view, kid)?, self.clock.now()))
    }

    /// The JWKS of a tenant's issuer: all its keys, in any state. `None` if there is no such tenant, if it has no key,
    /// or if its issuer has another number ([`issuer_path`]).
    pub fn jwks(&self, tenant: &TenantId, number: u32) -> Option<String> {
        let snapshot = self.registry.snapshot();
        let view = snapshot.tenant(tenant)?;
        let issuer = view.tenant.value.issuer.as_deref()?;
        if view.issuer_keys.is_empty() || !issuer.ends_with(&issuer_path(tenant, number)) {
            return None;
        }
        Some(issuer_key::jwks(keys_of(view).map(|key| key.public_jwk.as_str())))
    }
}

fn find<'v>(view: &'v TenantView, kid: &IssuerKeyId) -> Result<&'v Arc<Versioned<IssuerKey>>, Error> {
    view.issuer_keys.get(kid).ok_or_else(|| Error::NotFound(format!("issuer key `{kid}`")))
}

fn keys_of(view: &TenantView) -> impl Iterator<Item = &IssuerKey> + Clone {
    view.issuer_keys.values().map(|key| &key.value)
}
