//! API keys: `sgk_<id>_<secret>`. The secret has 256 random bits, and only its SHA-256 is stored.

mod access;
mod principal;

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::id::{Digest, KeyId, TenantId};
use setgate_domain::tenant::Quota;
use setgate_domain::tenant::{ApiKey, Scope};
use setgate_domain::time::Timestamp;
use setgate_ledger::{Precondition, Registry, Versioned};

use super::checks::{check_length, check_quota, expect_any, expect_version, find_tenant, quota_of};
use super::read_only::{ReadOnly, check_name};
use super::{Error, Page, PageQuery, TEXT_CHARS_MAX};

pub use access::{Access, Grant, Revoked};
pub use principal::Principal;

/// Length of the secret in characters: 32 bytes in base64url without padding.
const SECRET_CHARS: usize = 43;
/// Default overlap of a rotated key with its successor, in hours.
const OVERLAP_HOURS: u32 = 24;
/// Longest overlap in hours: 90 days.
pub const OVERLAP_HOURS_MAX: u32 = 90 * 24;
/// Limit for a tenant's keys including expired ones, as a multiple of its quota `keys_max`.
const WITH_ENDED: u64 = 2;
/// Limit for the operator's keys, including expired ones.
pub const OPERATOR_KEYS_MAX: usize = 200;

/// A request to create a key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewKey {
    /// A label for users.
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub label: Option<String>,
    /// The scopes of the key. If absent: the scopes of the creating key, or `read` and `write` if the operator creates
    /// a tenant's key, or `operator` for a key of the operator's own.
    #[schemars(extend("uniqueItems" = false))]
    pub scopes: Option<BTreeSet<Scope>>,
    /// Expiry time.
    pub expires_at: Option<Timestamp>,
}

/// A request to rotate a key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateKey {
    /// Hours until the old key expires. 24 if absent. With 0 it expires immediately.
    #[schemars(range(max = OVERLAP_HOURS_MAX))]
    pub overlap_hours: Option<u32>,
}

/// A change of a key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    /// The new label. `null` removes it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub label: Option<String>,
    /// The id in the path. Optional.
    #[serde(default)]
    pub id: Option<KeyId>,
    /// Read-only; ignored.
    #[serde(default)]
    pub scopes: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub created_at: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub expires_at: ReadOnly,
}

/// A key as returned by the API, without its secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `ApiKey`")]
pub struct KeyView {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    pub id: KeyId,
    pub label: Option<String>,
    pub scopes: BTreeSet<Scope>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A newly created key. The secret is returned only in this response.
#[derive(Serialize, JsonSchema)]
pub struct KeyOnce {
    /// The complete key.
    pub key: String,
    /// The parts that can be read later.
    #[serde(flatten)]
    pub view: KeyView,
}

/// The API keys of all tenants and of the operator.
#[derive(Clone)]
pub struct Keys {
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    pub(super) default_quota: Live<Quota>,
}

impl Keys {
    /// Creates a key for a tenant. A tenant's key can only create keys with at most its own scopes and expiry.
    pub async fn create(
        &self,
        actor: &Actor,
        by: &Principal,
        tenant: &TenantId,
        new: NewKey,
    ) -> Result<KeyOnce, Error> {
        self.check_room(tenant, None)?;
        check_length("label", &new.label)?;
        let scopes = new.scopes.unwrap_or_else(|| match by.tenant {
            Some(_) => by.scopes.clone(),
            None => BTreeSet::from([Scope::Read, Scope::Write]),
        });
        if scopes.is_empty() || scopes.iter().any(|scope| scope.is_operator_only()) {
            return Err(Error::invalid("scopes", "a tenant's key has at least one of `ingest`, `read` and `write`"));
        }
        check_gives(by, &scopes)?;
        let expires_at = self.take_end(by, new.expires_at)?;
        self.store_new(actor, Some(tenant.clone()), new.label, scopes, expires_at).await
    }

    /// Creates another key for the operator.
    pub async fn create_for_operator(&self, actor: &Actor, by: &Principal, new: NewKey) -> Result<KeyOnce, Error> {
        self.check_operator_room()?;
        check_length("label", &new.label)?;
        let scopes = new.scopes.unwrap_or_else(|| BTreeSet::from([Scope::Operator]));
        if scopes.len() != 1 || !scopes.iter().all(|scope| scope.is_operator_only()) {
            return Err(Error::invalid("scopes", "a key of the operator's has either `operator` or `operator_read`"));
        }
        let expires_at = self.take_end(by, new.expires_at)?;
        self.store_new(actor, None, new.label, scopes, expires_at).await
    }

    /// The expiry time of a key created by `by`: no later than that of `by`.
    fn take_end(&self, by: &Principal, given: Option<Timestamp>) -> Result<Option<Timestamp>, Error> {
        if given.is_some_and(|at| at <= self.clock.now()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        let end = given.or(by.expires_at);
        check_end(by, end)?;
        Ok(end)
    }

    /// Replaces a key with a new one that has the same scopes, label and expiry under a new id. Both keys are valid
    /// during the overlap, so that clients can be switched one by one. A caller that rotates a key other than its own
    /// cannot gain more rights than it may grant.
    pub async fn rotate(
        &self,
        actor: &Actor,
        by: &Principal,
        tenant: Option<&TenantId>,
        id: KeyId,
        input: RotateKey,
        expected: Option<u64>,
    ) -> Result<KeyOnce, Error> {
        let stored = self.key_of(tenant, id)?;
        let now = self.clock.now();
        let hours = input.overlap_hours.unwrap_or(OVERLAP_HOURS);
        if hours > OVERLAP_HOURS_MAX {
            return Err(Error::invalid("overlap_hours", format!("at most {OVERLAP_HOURS_MAX}")));
        }
        if let Some(ended) = stored.value.expired_at(now) {
            return Err(Error::Conflict(format!("the key `{id}` ended at {ended}: make another")));
        }
        match tenant {
            Some(tenant) => self.check_room(tenant, Some(id))?,
            None => self.check_operator_room()?,
        }
        if by.key != id {
            if tenant.is_some() {
                check_gives(by, &stored.value.scopes)?;
            }
            check_end(by, stored.value.expires_at)?;
        }
        let before = &stored.value;
        let (key, mut once) =
            self.new_key(before.tenant.clone(), before.label.clone(), before.scopes.clone(), before.expires_at);
        let mut old = before.clone();
        let ends = now.plus_millis(i64::from(hours) * 3_600_000);
        old.expires_at = Some(old.expires_at.map_or(ends, |at| at.min(ends)));
        let intent = (expect_version(expected, Some(&stored)), actor.action("key.rotate"));
        once.view.version = self.registry.rotate_key(old, key, intent).await?;
        Ok(once)
    }

    /// Changes the label of a key.
    pub async fn label(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        id: KeyId,
        change: KeyChange,
        expected: Option<u64>,
    ) -> Result<KeyView, Error> {
        check_name("id", change.id.as_ref(), &id)?;
        check_length("label", &change.label)?;
        let stored = self.key_of(tenant, id)?;
        let mut key = stored.value.clone();
        key.label = change.label;
        let intent = (expect_version(expected, Some(&stored)), actor.action("key.label"));
        let version = self.registry.put_key(key.clone(), intent).await?;
        Ok(view(&key, version))
    }

    /// Creates the operator's key at the first start, or an additional one if `another` is set. `None` if there is one
    /// already. `keep` saves the key before it is durable, so that a key cannot exist without a saved copy; if `keep`
    /// fails, no key is created. `keep` returns the saved key, which is an earlier one if a previous start was
    /// interrupted between saving and storing.
    pub async fn create_at_start(
        &self,
        another: bool,
        keep: impl FnOnce(&str) -> anyhow::Result<String> + Send,
    ) -> anyhow::Result<Option<KeyOnce>> {
        let is_full = |key: &KeyView| key.scopes.contains(&Scope::Operator);
        if !another && self.keys_of(None).iter().any(is_full) {
            return Ok(None);
        }
        let scopes = BTreeSet::from([Scope::Operator]);
        let (mut key, mut once) = self.new_key(None, Some("operator, made at start".into()), scopes, None);
        let kept = keep(&once.key)?;
        if kept != once.key {
            let Some((id, secret)) = ApiKey::parse(&kept).filter(|(_, secret)| secret.len() >= SECRET_CHARS) else {
                anyhow::bail!(
                    "what is kept in the operator key's place is not a key: remove it, or name another place"
                );
            };
            (key.id, key.secret) = (id, Digest(crypto::sha256(secret.as_bytes())));
            once = KeyOnce { view: view(&key, 0), key: kept };
        }
        let audit = Actor::HOST.action("key.create").note("the operator's, at the start");
        once.view.version = self.registry.put_key(key, (Precondition::Absent, audit)).await?;
        Ok(Some(once))
    }

    /// Removes a key of the operator's, effective immediately.
    ///
    /// # Errors
    /// [`Error::Conflict`] unless another key with the scope `operator` and without expiry remains.
    pub async fn remove_of_operator(&self, actor: &Actor, id: KeyId, expected: Option<u64>) -> Result<(), Error> {
        self.key_of(None, id)?;
        let keys = self.keys_of(None);
        let remains = |key: &KeyView| key.id != id && key.expires_at.is_none() && key.scopes.contains(&Scope::Operator);
        if !keys.iter().any(remains) {
            return Err(Error::Conflict(
                "no other key of the operator's without an end would be left: make one".into(),
            ));
        }
        self.registry.remove_key(id, (expect_any(expected), actor.action("key.remove"))).await?;
        Ok(())
    }

    async fn store_new(
        &self,
        actor: &Actor,
        tenant: Option<TenantId>,
        label: Option<String>,
        scopes: BTreeSet<Scope>,
        expires_at: Option<Timestamp>,
    ) -> Result<KeyOnce, Error> {
        let (key, mut once) = self.new_key(tenant, label, scopes, expires_at);
        once.view.version = self.registry.put_key(key, (Precondition::Absent, actor.action("key.create"))).await?;
        Ok(once)
    }

    /// A new key that is not yet stored, so its version is 0.
    fn new_key(
        &self,
        tenant: Option<TenantId>,
        label: Option<String>,
        scopes: BTreeSet<Scope>,
        expires_at: Option<Timestamp>,
    ) -> (ApiKey, KeyOnce) {
        let now = self.clock.now();
        let id = KeyId::new(now, crypto::random_u128());
        let secret = URL_SAFE_NO_PAD.encode(crypto::random_bytes::<32>());
        let key = ApiKey {
            id,
            tenant,
            label,
            scopes,
            secret: Digest(crypto::sha256(secret.as_bytes())),
            created_at: now,
            expires_at,
        };
        let once = KeyOnce { key: ApiKey::format(id, &secret), view: view(&key, 0) };
        (key, once)
    }

    /// Checks the key quota of a tenant, not counting the key `rotated`. Expired keys need little space, so all keys
    /// together may reach twice the quota.
    fn check_room(&self, tenant: &TenantId, rotated: Option<KeyId>) -> Result<(), Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let max = quota_of(&self.default_quota, &view).keys_max;
        let keys = self.keys_of(Some(tenant));
        let now = self.clock.now();
        let live = keys.iter().filter(|key| Some(key.id) != rotated && key.expires_at.is_none_or(|at| at > now));
        check_quota(live.count(), max, "keys_max")?;
        if keys.len() as u64 >= max.saturating_mul(WITH_ENDED) {
            return Err(Error::Conflict(format!(
                "there are {} keys with those that have ended, twice the tenant's quota `keys_max`: remove some that have",
                keys.len()
            )));
        }
        Ok(())
    }

    fn check_operator_room(&self) -> Result<(), Error> {
        if self.keys_of(None).len() >= OPERATOR_KEYS_MAX {
            let why = format!("the operator has {OPERATOR_KEYS_MAX} keys with those that have ended: remove some");
            return Err(Error::Conflict(why));
        }
        Ok(())
    }

    /// The operator's keys, oldest first.
    pub fn list_of_operator(&self, page: &PageQuery) -> Result<Page<KeyView>, Error> {
        page.of(self.keys_of(None).into_iter().map(|key| (key.id, key)), |key| key)
    }

    /// A tenant's keys, oldest first.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<KeyView>, Error> {
        find_tenant(&self.registry, tenant)?;
        page.of(self.keys_of(Some(tenant)).into_iter().map(|key| (key.id, key)), |key| key)
    }

    /// Sorted by id, and therefore by age.
    fn keys_of(&self, tenant: Option<&TenantId>) -> Vec<KeyView> {
        let snapshot = self.registry.snapshot();
        let keys = snapshot.keys.values().filter(|key| key.value.tenant.as_ref() == tenant);
        keys.map(|key| view(&key.value, key.version)).collect()
    }

    /// A key of the tenant, or of the operator if `tenant` is `None`.
    pub fn show(&self, tenant: Option<&TenantId>, id: KeyId) -> Result<KeyView, Error> {
        let key = self.key_of(tenant, id)?;
        Ok(view(&key.value, key.version))
    }

    fn key_of(&self, tenant: Option<&TenantId>, id: KeyId) -> Result<Arc<Versioned<ApiKey>>, Error> {
        let snapshot = self.registry.snapshot();
        let key = snapshot.keys.get(&id).filter(|key| key.value.tenant.as_ref() == tenant);
        key.cloned().ok_or_else(|| Error::NotFound(format!("key `{id}`")))
    }

    /// Removes a key, effective immediately.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: KeyId,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        self.key_of(Some(tenant), id)?;
        self.registry.remove_key(id, (expect_any(expected), actor.action("key.remove"))).await?;
        Ok(())
    }
}

fn check_gives(by: &Principal, scopes: &BTreeSet<Scope>) -> Result<(), Error> {
    let most = by.gives();
    match scopes.difference(&most).next() {
        None => Ok(()),
        Some(scope) => {
            let why = format!("a key gives no scope that it does not have itself: this one lacks `{}`", scope.as_str());
            Err(Error::invalid("scopes", why))
        }
    }
}

fn check_end(by: &Principal, end: Option<Timestamp>) -> Result<(), Error> {
    if by.expires_at.is_some_and(|ends| end.is_none_or(|at| at > ends)) {
        return Err(Error::invalid("expires_at", "a key gives none that ends later than itself"));
    }
    Ok(())
}

fn view(key: &ApiKey, version: u64) -> KeyView {
    KeyView {
        version,
        id: key.id,
        label: key.label.clone(),
        scopes: key.scopes.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
    }
}
