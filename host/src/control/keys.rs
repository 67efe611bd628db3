//! API keys: `sgk_<id>_<secret>`. The secret half has 256 random bits and is kept as SHA-256 only.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Error, Expected, TEXT_CHARS_MAX, room, short};
use crate::crypto;
use crate::domain::id::{Digest, KeyId, TenantId};
use crate::domain::tenant::{ApiKey, Scope};
use crate::domain::time::Timestamp;

/// What every key starts with, so that scanners can find leaked ones.
const PREFIX: &str = "sgk_";
/// Characters of the secret half: 32 bytes in base64.
const SECRET_CHARS: usize = 43;

/// What is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewKey {
    /// What people call it.
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub label: Option<String>,
    /// What it may do; `read` and `write` where absent.
    pub scopes: Option<BTreeSet<Scope>>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A key as it is shown: without its secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `ApiKey`")]
pub struct KeyView {
    pub id: KeyId,
    pub label: Option<String>,
    pub scopes: BTreeSet<Scope>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A key just made: the one time that it is shown whole.
#[derive(Serialize, JsonSchema)]
pub struct KeyOnce {
    /// The whole key.
    pub key: String,
    /// What is shown of it later.
    #[serde(flatten)]
    pub view: KeyView,
}

/// Who is asking.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The tenant it acts for; none: the operator.
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// When its key ends.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whether it may do this with things of `tenant`. The operator may do everything.
    pub fn may(&self, scope: Scope, tenant: Option<&TenantId>) -> bool {
        if self.scopes.contains(&Scope::Operator) && self.tenant.is_none() {
            return true;
        }
        scope != Scope::Operator && tenant.is_some() && self.tenant.as_ref() == tenant && self.scopes.contains(&scope)
    }
}

impl Control {
    /// Makes a key for a tenant. A tenant's own key gives at most what it may do itself, and for no longer.
    pub async fn create_key(&self, by: &Principal, tenant: &TenantId, new: NewKey) -> Result<KeyOnce, Error> {
        let view = self.tenant(tenant)?;
        room(self.list_keys(tenant)?.len(), self.quota_of(&view).keys_max, "keys_max")?;
        short("label", &new.label)?;
        let all = BTreeSet::from([Scope::Read, Scope::Write]);
        let most = if by.tenant.is_none() { all } else { by.scopes.clone() };
        let scopes = new.scopes.unwrap_or_else(|| most.clone());
        if scopes.is_empty() || scopes.contains(&Scope::Operator) {
            return Err(Error::invalid("scopes", "a tenant's key has `read`, `write` or both"));
        }
        if new.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        if !scopes.is_subset(&most) {
            return Err(Error::invalid("scopes", "a key gives no scope that it does not have itself"));
        }
        let expires_at = new.expires_at.or(by.expires_at);
        if by.expires_at.is_some_and(|ends| expires_at.is_none_or(|at| at > ends)) {
            return Err(Error::invalid("expires_at", "a key gives none that ends later than itself"));
        }
        self.make_key(Some(tenant.clone()), new.label, scopes, expires_at).await
    }

    /// Makes the operator's key at first start, or `another` one; none where there is one. `keep` is given the key
    /// before it is durable: where that fails, there is no key that nobody knows. It gives back the key that it keeps,
    /// which is an earlier one where a start was broken off between its keeping and here.
    pub async fn operator_key(
        &self,
        another: bool,
        keep: impl FnOnce(&str) -> anyhow::Result<String> + Send,
    ) -> anyhow::Result<Option<KeyOnce>> {
        if !another && self.operator_keys().next().is_some() {
            return Ok(None);
        }
        let scopes = BTreeSet::from([Scope::Operator]);
        let (mut key, mut once) = self.new_key(None, Some("operator, made at start".into()), scopes, None);
        let kept = keep(&once.key)?;
        if kept != once.key {
            let Some((id, secret)) = parts(&kept).filter(|(_, secret)| secret.len() >= SECRET_CHARS) else {
                anyhow::bail!(
                    "what is kept in the operator key's place is not a key: remove it, or name another place"
                );
            };
            (key.id, key.secret) = (id, Digest(crypto::sha256(secret.as_bytes())));
            once = KeyOnce { view: view(&key), key: kept };
        }
        self.ledger.put_key(key, Expected::Absent).await?;
        Ok(Some(once))
    }

    fn operator_keys(&self) -> impl Iterator<Item = KeyView> {
        let keys = self.ledger.snapshot().keys.values().map(|key| key.value.clone()).collect::<Vec<_>>();
        keys.into_iter()
            .filter(|key| key.tenant.is_none() && key.scopes.contains(&Scope::Operator))
            .map(|key| view(&key))
    }

    /// The operator's keys, oldest first.
    pub fn list_operator_keys(&self) -> Vec<KeyView> {
        self.operator_keys().collect()
    }

    /// Makes one more key of the operator's.
    pub async fn create_operator_key(&self, new: NewKey) -> Result<KeyOnce, Error> {
        let scopes = BTreeSet::from([Scope::Operator]);
        if new.scopes.is_some_and(|given| given != scopes) {
            return Err(Error::invalid("scopes", "a key of the operator's has `operator` alone"));
        }
        if new.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        self.make_key(None, new.label, scopes, new.expires_at).await
    }

    /// Ends a key of the operator's at once. One without an end has to remain.
    pub async fn remove_operator_key(&self, id: KeyId) -> Result<(), Error> {
        let keys = self.list_operator_keys();
        if !keys.iter().any(|key| key.id == id) {
            return Err(Error::NotFound(format!("key `{id}`")));
        }
        if !keys.iter().any(|key| key.id != id && key.expires_at.is_none()) {
            return Err(Error::Conflict(
                "no other key of the operator's without an end would be left: make one".into(),
            ));
        }
        self.ledger.remove_key(id, Expected::Any).await?;
        Ok(())
    }

    async fn make_key(
        &self,
        tenant: Option<TenantId>,
        label: Option<String>,
        scopes: BTreeSet<Scope>,
        expires_at: Option<Timestamp>,
    ) -> Result<KeyOnce, Error> {
        let (key, once) = self.new_key(tenant, label, scopes, expires_at);
        self.ledger.put_key(key, Expected::Absent).await?;
        Ok(once)
    }

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
        let body = id.to_string();
        let body = body.strip_prefix(KeyId::PREFIX).unwrap_or(&body);
        let once = KeyOnce { key: format!("{PREFIX}{body}_{secret}"), view: view(&key) };
        (key, once)
    }

    /// A tenant's keys, oldest first.
    pub fn list_keys(&self, tenant: &TenantId) -> Result<Vec<KeyView>, Error> {
        self.tenant(tenant)?;
        let snapshot = self.ledger.snapshot();
        // By id, and so by age.
        let keys = snapshot.keys.values().map(|key| &key.value).filter(|key| key.tenant.as_ref() == Some(tenant));
        Ok(keys.map(view).collect())
    }

    /// Ends a key at once.
    pub async fn remove_key(&self, tenant: &TenantId, id: KeyId) -> Result<(), Error> {
        let snapshot = self.ledger.snapshot();
        let known = snapshot.keys.get(&id).is_some_and(|key| key.value.tenant.as_ref() == Some(tenant));
        if !known {
            return Err(Error::NotFound(format!("key `{id}`")));
        }
        self.ledger.remove_key(id, Expected::Any).await?;
        Ok(())
    }

    /// Whose key this is; none where it is unknown, wrong or has ended.
    pub fn authenticate(&self, given: &str) -> Option<Principal> {
        let (id, secret) = parts(given)?;
        let snapshot = self.ledger.snapshot();
        let key = &snapshot.keys.get(&id)?.value;
        let same = crypto::constant_time_eq(&crypto::sha256(secret.as_bytes()), &key.secret.0);
        let live = key.expires_at.is_none_or(|at| at > self.clock.now());
        (same && live).then(|| Principal {
            tenant: key.tenant.clone(),
            scopes: key.scopes.clone(),
            expires_at: key.expires_at,
        })
    }
}

/// The public and the secret half of a whole key.
fn parts(given: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = given.strip_prefix(PREFIX)?.split_once('_')?;
    Some((format!("{}{id}", KeyId::PREFIX).parse().ok()?, secret))
}

fn view(key: &ApiKey) -> KeyView {
    KeyView {
        id: key.id,
        label: key.label.clone(),
        scopes: key.scopes.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
    }
}
