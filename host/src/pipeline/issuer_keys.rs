//! The key that signs a tenant's SETs now. Opened keys are cached, so that a SET does not cost a decryption and the
//! parsing of a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_domain::algorithm::Algorithm;
use setgate_domain::id::{IssuerKeyId, TenantId};
use setgate_domain::issuer_key::{IssuerKey, signing_key};
use setgate_domain::secret::issuer_key_context;
use setgate_jose::SigningKey;
use setgate_ledger::Registry;
use zeroize::Zeroizing;

/// Number of opened keys in memory, at most a few kilobytes each. If an insert would exceed it, the cache is cleared.
const OPENED_KEYS_MAX: usize = 1_024;

/// Why a tenant cannot sign a SET now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIssuerKey {
    /// The tenant has no key of the algorithm, and possibly no issuer.
    #[error(
        "the tenant `{tenant}` has no issuer key for {algorithm}: create one by POST \
         /api/v1/tenants/{tenant}/issuer-keys (the first one requires the setting `server.public_url`)"
    )]
    Missing {
        /// The tenant.
        tenant: TenantId,
        /// The requested algorithm.
        algorithm: Algorithm,
    },
    /// The key cannot be decrypted, or is damaged.
    #[error(
        "the private half of the issuer key `{kid}` of the tenant `{tenant}` cannot be opened: run `setgate admin check`, \
         and let another key of its algorithm sign"
    )]
    Unreadable {
        /// The tenant.
        tenant: TenantId,
        /// The key.
        kid: IssuerKeyId,
    },
}

/// Finds the key that signs, and opens it.
pub struct IssuerKeys {
    registry: Registry,
    master: Arc<MasterKey>,
    clock: Clock,
    /// By tenant as well: two tenants may have imported the same key.
    opened: Mutex<HashMap<(TenantId, IssuerKeyId), Arc<SigningKey>>>,
}

impl IssuerKeys {
    /// With an empty cache.
    pub fn new(registry: Registry, master: Arc<MasterKey>, clock: Clock) -> Self {
        Self { registry, master, clock, opened: Mutex::default() }
    }

    /// The key that signs for an algorithm now, and the issuer (`iss`) of the SETs that it signs. The first call for a
    /// key takes about a millisecond; do not call it on a thread that serves requests.
    pub fn signing_key(
        &self,
        tenant: &TenantId,
        algorithm: Algorithm,
    ) -> Result<(Arc<SigningKey>, Arc<str>), NoIssuerKey> {
        let missing = || NoIssuerKey::Missing { tenant: tenant.clone(), algorithm };
        let snapshot = self.registry.snapshot();
        let view = snapshot.tenant(tenant).ok_or_else(missing)?;
        let issuer = view.tenant.value.issuer.as_deref().ok_or_else(missing)?;
        let keys = view.issuer_keys.values().map(|key| &key.value);
        let key = signing_key(keys, algorithm, self.clock.now()).ok_or_else(missing)?;
        Ok((self.open(key)?, issuer.into()))
    }

    fn open(&self, key: &IssuerKey) -> Result<Arc<SigningKey>, NoIssuerKey> {
        let name = (key.tenant.clone(), key.kid.clone());
        if let Some(opened) = self.lock().get(&name) {
            return Ok(Arc::clone(opened));
        }
        let opened = self.unseal(key).ok_or_else(|| {
            tracing::error!(tenant = %key.tenant, kid = %key.kid, "the private half of an issuer key cannot be opened");
            NoIssuerKey::Unreadable { tenant: key.tenant.clone(), kid: key.kid.clone() }
        })?;
        let opened = Arc::new(opened);
        let mut held = self.lock();
        if held.len() >= OPENED_KEYS_MAX {
            held.clear();
        }
        held.insert(name, Arc::clone(&opened));
        Ok(opened)
    }

    fn unseal(&self, key: &IssuerKey) -> Option<SigningKey> {
        let text = self.master.open(&issuer_key_context(&key.tenant, &key.kid), &key.private).ok()?;
        let der = Zeroizing::new(BASE64_STANDARD.decode(text.expose()).ok()?);
        let opened = SigningKey::from_pkcs8(key.algorithm, &der).ok()?;
        (opened.kid() == key.kid.as_str()).then_some(opened)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(TenantId, IssuerKeyId), Arc<SigningKey>>> {
        // An insert cannot be left half done, so a poisoned lock still guards consistent data.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use setgate_domain::secret::Secret;
    use setgate_domain::tenant::Tenant;
    use setgate_domain::time::Timestamp;
    use setgate_ledger::{Ledger, Options, Precondition};

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    struct World {
        _folder: tempfile::TempDir,
        ledger: Ledger,
        master: Arc<MasterKey>,
        clock: Clock,
        keys: IssuerKeys,
    }

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Clock::manual(START);
            let ledger = Ledger::open(Options::new(folder.path()), clock.clone()).unwrap();
            let tenant = Tenant { id: acme(), display_name: None, quota: None, issuer: None, created_at: START };
            ledger.registry.put_tenant(tenant, Precondition::Absent).await.unwrap();
            let master = Arc::new(MasterKey::generate());
            let keys = IssuerKeys::new(ledger.registry.clone(), master.clone(), clock.clone());
            Self { _folder: folder, ledger, master, clock, keys }
        }

        /// Adds an EdDSA key that signs after so many milliseconds.
        async fn add(&self, after_ms: i64) -> SigningKey {
            let made = SigningKey::generate(Algorithm::EdDsa).unwrap();
            let kid: IssuerKeyId = made.kid().parse().unwrap();
            let private = Secret::new(BASE64_STANDARD.encode(made.to_pkcs8()));
            let key = IssuerKey {
                tenant: acme(),
                kid: kid.clone(),
                algorithm: Algorithm::EdDsa,
                public_jwk: made.public_jwk().to_owned(),
                private: self.master.seal(&issuer_key_context(&acme(), &kid), &private),
                created_at: START,
                signs_from: START.plus_millis(after_ms),
            };
            let url = Some("https://edge.example".to_owned());
            self.ledger.registry.add_issuer_key(key, url, Precondition::Absent).await.unwrap();
            made
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn newest_key_signs_when_its_time_has_come() {
        let world = World::new().await;
        let missing = world.keys.signing_key(&acme(), Algorithm::EdDsa).err().unwrap();
        assert!(missing.to_string().contains("/api/v1/tenants/acme/issuer-keys"), "{missing}");
        let (first, second) = (world.add(0).await, world.add(1_000).await);
        let signs = || world.keys.signing_key(&acme(), Algorithm::EdDsa).unwrap();
        let (key, issuer) = signs();
        assert_eq!((key.kid(), &*issuer), (first.kid(), "https://edge.example/t/acme"));
        assert!(Arc::ptr_eq(&key, &signs().0), "it is opened once");
        world.clock.set(START.plus_millis(1_000));
        assert_eq!(signs().0.kid(), second.kid());
        let other = world.keys.signing_key(&acme(), Algorithm::Es256).err();
        assert!(matches!(other, Some(NoIssuerKey::Missing { algorithm: Algorithm::Es256, .. })), "{other:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn key_of_another_master_key_is_refused() {
        let world = World::new().await;
        let made = world.add(0).await;
        let other = Arc::new(MasterKey::generate());
        let keys = IssuerKeys::new(world.ledger.registry.clone(), other, world.clock.clone());
        let refused = keys.signing_key(&acme(), Algorithm::EdDsa).err().unwrap();
        assert!(matches!(&refused, NoIssuerKey::Unreadable { kid, .. } if kid.as_str() == made.kid()), "{refused}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn opened_keys_are_bounded() {
        let world = World::new().await;
        let made = world.add(0).await;
        let (key, _) = world.keys.signing_key(&acme(), Algorithm::EdDsa).unwrap();
        for n in 0..3 * OPENED_KEYS_MAX {
            let (tenant, kid): (TenantId, IssuerKeyId) =
                (format!("t{n}").parse().unwrap(), made.kid().parse().unwrap());
            let mut held = world.keys.lock();
            if held.len() >= OPENED_KEYS_MAX {
                break;
            }
            held.insert((tenant, kid), Arc::clone(&key));
        }
        assert_eq!(world.keys.lock().len(), OPENED_KEYS_MAX);
        world.add(0).await;
        world.clock.set(START.plus_millis(1));
        world.keys.signing_key(&acme(), Algorithm::EdDsa).unwrap();
        assert!(world.keys.lock().len() <= OPENED_KEYS_MAX);
    }
}
