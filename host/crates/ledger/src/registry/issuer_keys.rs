//! Issuer keys, and the names of their tenants.
//!
//! # Invariants
//!
//! 1. The issuer of a tenant is fixed in the transaction that adds its first issuer key, which also counts the tenant in
//!    `issuer_name`. A row there is never deleted. So no two tenants, of any time, have the same issuer under one public
//!    URL: receivers that trust an issuer never trust another tenant by it.
//! 2. An issuer key is removed only if no delivery has a SET that the key signed.

use rusqlite::{Connection, OptionalExtension as _};
use setgate_domain::id::{IssuerKeyId, TenantId};
use setgate_domain::issuer_key::{ISSUER_KEYS_MAX, IssuerKey, issuer_path};
use setgate_domain::tenant::Tenant;

use super::write;
use super::{Precondition, Registry, WriteContext};
use crate::Error;
use crate::commit::queue::Batch;
use crate::schema::sql_types::params;
use crate::state::snapshot::{Doc, Name};

impl Registry {
    /// Creates a tenant. [`Error::IssuerNameUsed`] if an earlier tenant of that name had an issuer key, unless
    /// `new_issuer` is set: its issuer will be another one.
    pub async fn create_tenant(
        &self,
        tenant: Tenant,
        new_issuer: bool,
        context: impl Into<WriteContext>,
    ) -> Result<u64, Error> {
        let (context, at) = (context.into(), self.0.clock().now());
        let quota = self.0.options().quota.clone();
        self.0
            .queue()
            .write(move |batch| {
                if !new_issuer && issuers(batch.conn, &tenant.id)? > 0 {
                    return Err(Error::IssuerNameUsed(tenant.id.clone()));
                }
                write::put(batch, Doc::Tenant(tenant), context, &quota, at)
            })
            .await
    }

    /// Adds an issuer key, and returns its version and the issuer of its tenant. With the first key, the issuer is made
    /// from `public_url` ([`Error::NoPublicUrl`] if it is `None`) and fixed. [`Error::TooManyIssuerKeys`] if the tenant
    /// has [`ISSUER_KEYS_MAX`].
    pub async fn add_issuer_key(
        &self,
        key: IssuerKey,
        public_url: Option<String>,
        context: impl Into<WriteContext>,
    ) -> Result<(u64, String), Error> {
        let (mut context, at) = (context.into(), self.0.clock().now());
        let quota = self.0.options().quota.clone();
        self.0
            .queue()
            .write(move |batch| {
                let count: u32 = batch
                    .conn
                    .prepare_cached("SELECT count(*) FROM document WHERE kind = 'issuer_key' AND tenant = ?1")?
                    .query_row(params![key.tenant], |row| row.get(0))?;
                if count as usize >= ISSUER_KEYS_MAX {
                    return Err(Error::TooManyIssuerKeys { max: ISSUER_KEYS_MAX });
                }
                let (issuer, is_new) = fix_issuer(batch, &key.tenant, public_url.as_deref())?;
                if is_new {
                    context.audit = context.audit.note(format!("issuer {issuer}"));
                }
                let version = write::put(batch, Doc::IssuerKey(key), context, &quota, at)?;
                Ok((version, issuer))
            })
            .await
    }

    /// Replaces an issuer key.
    pub async fn put_issuer_key(&self, key: IssuerKey, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::IssuerKey(key), context).await
    }

    /// Removes an issuer key. [`Error::InUse`] if a delivery has a SET that the key signed.
    pub async fn remove_issuer_key(
        &self,
        tenant: &TenantId,
        kid: &IssuerKeyId,
        context: impl Into<WriteContext>,
    ) -> Result<bool, Error> {
        self.remove(Name::IssuerKey(tenant.clone(), kid.clone()), context).await
    }
}

/// The issuer of a tenant, and whether it was made now.
fn fix_issuer(batch: &mut Batch<'_>, id: &TenantId, public_url: Option<&str>) -> Result<(String, bool), Error> {
    // The row and not the snapshot, which lacks changes of the same batch.
    let Some((_, text)) = write::stored(batch.conn, &Name::Tenant(id.clone()))? else {
        return Err(Error::NoTenant(id.clone()));
    };
    let corrupt = |why: &dyn std::fmt::Display| Error::corrupt(format!("tenant {id}: {why}"));
    let mut tenant: Tenant = serde_json::from_str(&text).map_err(|error| corrupt(&error))?;
    if let Some(issuer) = tenant.issuer {
        return Ok((issuer, false));
    }
    let public_url = public_url.ok_or_else(|| Error::NoPublicUrl(id.clone()))?;
    let number: u32 = batch
        .conn
        .prepare_cached(
            "INSERT INTO issuer_name (tenant, issuers) VALUES (?1, 1)
             ON CONFLICT (tenant) DO UPDATE SET issuers = issuers + 1 RETURNING issuers",
        )?
        .query_row(params![id], |row| row.get(0))?;
    let issuer = format!("{public_url}{}", issuer_path(id, number));
    tenant.issuer = Some(issuer.clone());
    write::put_without_audit(batch, Doc::Tenant(tenant), Precondition::Any, None)?;
    Ok((issuer, true))
}

/// Number of tenants of this name that had an issuer key.
fn issuers(conn: &Connection, tenant: &TenantId) -> Result<u32, Error> {
    let found = conn
        .prepare_cached("SELECT issuers FROM issuer_name WHERE tenant = ?1")?
        .query_row(params![tenant], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use setgate_domain::algorithm::Algorithm;
    use setgate_domain::secret::Sealed;

    use super::*;
    use crate::inspect;
    use crate::tests::{NOW, block_on, due_one, open, reopen, tenant};

    const URL: &str = "https://edge.example";

    fn key(name: char) -> IssuerKey {
        IssuerKey {
            tenant: tenant().id,
            kid: name.to_string().repeat(43).parse().unwrap(),
            algorithm: Algorithm::Es256,
            public_jwk: "{}".to_owned(),
            private: Sealed("v1.x".to_owned()),
            created_at: NOW,
            signs_from: NOW,
        }
    }

    fn with_url() -> Option<String> {
        Some(URL.to_owned())
    }

    #[test]
    fn first_key_fixes_the_issuer() {
        block_on(async {
            let (folder, ledger) = open();
            let registry = &ledger.registry;
            let early = registry.add_issuer_key(key('a'), with_url(), Precondition::Absent).await;
            assert!(matches!(early, Err(Error::NoTenant(_))));
            registry.create_tenant(tenant(), false, Precondition::Absent).await.unwrap();
            let without = registry.add_issuer_key(key('a'), None, Precondition::Absent).await;
            assert!(matches!(without, Err(Error::NoPublicUrl(_))));
            let (_, issuer) = registry.add_issuer_key(key('a'), with_url(), Precondition::Absent).await.unwrap();
            assert_eq!(issuer, "https://edge.example/t/acme");
            let elsewhere = Some("https://elsewhere.example".to_owned());
            let (version, same) = registry.add_issuer_key(key('b'), elsewhere, Precondition::Absent).await.unwrap();
            assert_eq!(same, issuer);
            let again = registry.add_issuer_key(key('b'), None, Precondition::Absent).await;
            assert!(matches!(again, Err(Error::VersionMismatch { current: Some(v) }) if v == version));

            let ledger = reopen(&folder, ledger).await;
            let view = ledger.registry.snapshot().tenant(&tenant().id).unwrap().clone();
            assert_eq!(view.tenant.value.issuer.as_ref(), Some(&issuer));
            assert_eq!(view.issuer_keys.len(), 2);
            assert_eq!(view.issuer_keys[&key('b').kid].version, version);
            for check in inspect(folder.path()).unwrap().checks {
                assert_eq!(check.faults, 0, "{check:?}");
            }
        });
    }

    #[test]
    fn number_of_keys_is_limited() {
        block_on(async {
            let (_folder, ledger) = open();
            ledger.registry.create_tenant(tenant(), false, Precondition::Absent).await.unwrap();
            let add = |name| ledger.registry.add_issuer_key(key(name), with_url(), Precondition::Absent);
            for name in ('a'..).take(ISSUER_KEYS_MAX) {
                add(name).await.unwrap();
            }
            assert!(matches!(add('z').await, Err(Error::TooManyIssuerKeys { max: ISSUER_KEYS_MAX })));
            assert!(ledger.registry.remove_issuer_key(&tenant().id, &key('a').kid, Precondition::Any).await.unwrap());
            add('z').await.unwrap();
            assert!(!ledger.registry.remove_issuer_key(&tenant().id, &key('a').kid, Precondition::Any).await.unwrap());
        });
    }

    #[test]
    fn name_of_an_issuer_is_not_reused_silently() {
        block_on(async {
            let (folder, ledger) = open();
            let create = async |ledger: &crate::Ledger, new_issuer| {
                ledger.registry.create_tenant(tenant(), new_issuer, Precondition::Absent).await
            };
            let remove = async |ledger: &crate::Ledger| {
                assert!(ledger.registry.remove_tenant(&tenant().id, Precondition::Any).await.unwrap());
            };
            // A tenant that never had an issuer key leaves its name free.
            create(&ledger, false).await.unwrap();
            remove(&ledger).await;
            create(&ledger, false).await.unwrap();
            let mut expected = Vec::new();
            let mut ledger = ledger;
            for number in 1..=3_u32 {
                let added = ledger.registry.add_issuer_key(key('a'), with_url(), Precondition::Absent).await;
                expected.push(added.unwrap().1);
                remove(&ledger).await;
                ledger = reopen(&folder, ledger).await;
                let refused = create(&ledger, false).await;
                assert!(matches!(refused, Err(Error::IssuerNameUsed(name)) if name == tenant().id), "{number}");
                create(&ledger, true).await.unwrap();
                let view = ledger.registry.snapshot().tenant(&tenant().id).unwrap().clone();
                assert!(view.issuer_keys.is_empty() && view.tenant.value.issuer.is_none());
            }
            assert_eq!(
                expected,
                ["https://edge.example/t/acme", "https://edge.example/t/acme/2", "https://edge.example/t/acme/3"]
            );
        });
    }

    #[test]
    fn key_stays_while_a_set_that_it_signed_is_stored() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            ledger.registry.add_issuer_key(key('a'), with_url(), Precondition::Absent).await.unwrap();
            let change = |sql: &'static str| {
                let (seq, kid) = (due.seq, key('a').kid);
                ledger.store.queue().write(move |batch| Ok(batch.conn.execute(sql, params![seq, kid.as_str()])?))
            };
            let remove =
                async || ledger.registry.remove_issuer_key(&due.tenant, &key('a').kid, Precondition::Any).await;
            change("INSERT INTO signed_set (delivery, kid, jti, token) VALUES (?1, ?2, 'j', 't')").await.unwrap();
            let refused = remove().await;
            assert!(matches!(&refused, Err(Error::InUse(why)) if why.contains("still stored")), "{refused:?}");
            // A SET of another tenant, which imported the same key.
            change("UPDATE signed_set SET delivery = ?1 + 1000 WHERE kid = ?2").await.unwrap();
            assert!(remove().await.unwrap());
        });
    }
}
