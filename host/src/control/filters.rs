//! Filters: upload, activation and rollback. A version is identified by the digest of its component and is immutable.

mod activation;
mod change;

use std::collections::BTreeSet;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::filter::{Filter, FilterVersion, Grant, Suspension};
use setgate_domain::id::{Digest, FilterName, TenantId};
use setgate_domain::rollout::{EndReason, EndedRollout, Rollout};
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Blobs, Plans, Registry, TenantView, Usage};
use setgate_sandbox::{CompiledFilter, Sandbox};

use super::checks::{
    check_quota, check_space, check_version, expect_any, expect_version, find_tenant, quota_of, retried,
};
use super::versions::{InUse, VERSIONS_KEPT, VersionPlace, Versions as _};
use super::{Error, Page, PageQuery};
use crate::pipeline::RolloutResults;

pub(super) use activation::{check_needs, resume, set_active};
pub(super) use change::change;

/// Limit for the versions of one filter, including versions in use.
pub const VERSIONS_MAX: usize = 100;
/// Limit for the removable versions named in the error if the quota is used up.
const SPARE_NAMED_MAX: usize = 5;

/// A filter as returned by the API.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Filter`")]
pub struct FilterView {
    /// The version of the document, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    pub name: FilterName,
    pub active: Option<Digest>,
    /// The version that a rollback would activate.
    pub previous: Option<Digest>,
    /// The current rollout, if there is one.
    pub rollout: Option<Rollout>,
    /// The result of the last rollout.
    pub last_rollout: Option<EndedRollout>,
    /// Set while the active version is suspended because it faulted too often.
    pub suspended: Option<Suspension>,
    /// Whether deliveries held by faults of this filter are being run again.
    pub releasing: bool,
    pub versions: Vec<VersionView>,
}

/// A filter version as returned by the API.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `FilterVersion`")]
#[schemars(rename = "FilterVersionView")]
pub struct VersionView {
    pub digest: Digest,
    pub size_bytes: u64,
    pub uploaded_at: Timestamp,
    pub needs: BTreeSet<Grant>,
    pub compile_ms: u64,
    pub active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
}

/// An upload that was compiled.
struct Upload<'a> {
    wasm: &'a Bytes,
    compiled: &'a CompiledFilter,
    activate: bool,
}

/// The filters of all tenants.
#[derive(Clone)]
pub struct Filters {
    pub(super) registry: Registry,
    pub(super) blobs: Blobs,
    pub(super) plans: Plans,
    pub(super) usage: Usage,
    pub(super) sandbox: Sandbox,
    pub(super) rollouts: RolloutResults,
    pub(super) clock: Clock,
    pub(super) default_quota: Live<Quota>,
}

impl Filters {
    /// Stores a component as the newest version, and activates it unless `activate` is false. A repeated upload of the
    /// same bytes results in the same version. The returned flag is true if the version is new.
    pub async fn upload(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: FilterName,
        wasm: Bytes,
        activate: bool,
        expected: Option<u64>,
    ) -> Result<(FilterView, bool), Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let quota = quota_of(&self.default_quota, &view);
        self.check_room(&view, &name, &wasm).await?;
        check_space(&self.usage, tenant, &quota, wasm.len())?;
        let compiled = self.sandbox.compile(tenant, wasm.clone(), &quota).await?;
        self.blobs.put(tenant, wasm.clone()).await?;
        let upload = Upload { wasm: &wasm, compiled: &compiled, activate };
        retried(expected, || self.add_version(actor, tenant, &name, &upload, expected)).await
    }

    async fn add_version(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        upload: &Upload<'_>,
        expected: Option<u64>,
    ) -> Result<(FilterView, bool), Error> {
        let Upload { wasm, compiled, activate } = *upload;
        // Read again, because other uploads may have taken place during compilation.
        let view = find_tenant(&self.registry, tenant)?;
        let stored = view.filters.get(name);
        let mut filter = stored.map_or_else(
            || Filter {
                tenant: tenant.clone(),
                name: name.clone(),
                active: None,
                previous: Vec::new(),
                versions: Vec::new(),
                rollout: None,
                last_rollout: None,
                releasing: BTreeSet::new(),
            },
            |stored| stored.value.clone(),
        );
        self.check_room(&view, name, wasm).await?;
        let new = filter.version(&compiled.digest).is_none();
        if new {
            filter.versions.push(FilterVersion {
                digest: compiled.digest,
                size_bytes: compiled.size_bytes,
                uploaded_at: self.clock.now(),
                needs: compiled.needs.clone(),
                compile_ms: compiled.compile_ms,
                withdrawn: None,
                suspended: None,
            });
        }
        if activate {
            set_active(&mut filter, compiled.digest, &view)?;
        }
        if new && filter.versions.len() > VERSIONS_KEPT {
            filter.prune(&self.versions_in_use(tenant, name).await?);
            if filter.versions.len() > VERSIONS_MAX {
                return Err(Error::Conflict(format!(
                    "the filter `{name}` has {VERSIONS_MAX} versions, and each is needed by its rollout, a roll-back or a \
                     delivery of the history: upload again when retention has removed old deliveries, or use another name"
                )));
            }
        }
        let audit = actor.action("filter.upload").note(compiled.digest.to_string());
        let intent = (expect_version(expected, stored), audit);
        let version = self.registry.put_filter(filter.clone(), intent).await?;
        Ok((show(&filter, version), new))
    }

    /// Checks the quotas for an upload. A repeated upload of stored bytes needs no space.
    async fn check_room(&self, view: &TenantView, name: &FilterName, wasm: &[u8]) -> Result<(), Error> {
        let digest = Digest(crypto::sha256(wasm));
        if view.filters.get(name).is_some_and(|filter| filter.value.version(&digest).is_some()) {
            return Ok(());
        }
        let quota = quota_of(&self.default_quota, view);
        if !view.filters.contains_key(name) {
            check_quota(view.filters.len(), quota.filters_max, "filters_max")?;
        }
        let versions = view.filters.values().flat_map(|filter| &filter.value.versions);
        let stored: u64 = versions.map(|version| version.size_bytes).sum();
        let max = quota.filters_bytes_max;
        if stored.saturating_add(wasm.len() as u64) > max {
            let what_to_do = self.how_to_make_room(view).await?;
            return Err(Error::Conflict(format!(
                "the filters have {stored} bytes already: the tenant's quota `filters_bytes_max` is {max}; {what_to_do}"
            )));
        }
        Ok(())
    }

    /// Advice for a tenant whose quota is used up, with the names of some removable versions.
    async fn how_to_make_room(&self, view: &TenantView) -> Result<String, Error> {
        let (mut spare, none) = (Vec::new(), InUse::new());
        let used = self.plans.filter_versions_in_use(&view.tenant.value.id).await?;
        for filter in view.filters.values().map(|stored| &stored.value) {
            let used = used.get(filter.name.as_str()).unwrap_or(&none);
            let unneeded = filter.versions.iter().filter(|version| filter.need(&version.digest, used).is_none());
            spare.extend(unneeded.map(|version| format!("{}/versions/{}", filter.name, version.digest)));
        }
        if spare.is_empty() {
            return Ok(
                "each version is active, rolled out, what a roll-back would activate, or needed by a delivery of the \
                       history: upload again when retention has removed old deliveries, remove a filter that no \
                       subscription binds, or ask the operator for a larger quota"
                    .to_owned(),
            );
        }
        let (count, named) = (spare.len(), spare[..spare.len().min(SPARE_NAMED_MAX)].join(", "));
        Ok(format!("{count} versions are not needed and can be removed by DELETE of filters/{named}"))
    }

    async fn versions_in_use(&self, tenant: &TenantId, name: &FilterName) -> Result<InUse, Error> {
        Ok(self.plans.filter_versions_in_use(tenant).await?.remove(name.as_str()).unwrap_or_default())
    }

    /// A filter's versions, oldest first.
    pub fn list_versions(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        page: &PageQuery,
    ) -> Result<Page<VersionView>, Error> {
        let mut versions = self.show(tenant, name)?.versions;
        let place = |version: &VersionView| VersionPlace { at: version.uploaded_at, digest: version.digest };
        versions.sort_by_key(place);
        page.of(versions.into_iter().map(|version| (place(&version), version)), |version| version)
    }

    /// Removes a version that is not in use.
    pub async fn remove_version(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        digest: Digest,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = view.filters.get(name).ok_or_else(|| not_found(name))?;
            let mut filter = stored.value.clone();
            check_version(expected, stored.version)?;
            let used = self.versions_in_use(tenant, name).await?;
            filter.remove(&digest, &used, format_args!("filter `{name}`"))?;
            let audit = actor.action("filter.remove_version").note(digest.to_string());
            self.registry.put_filter(filter, (expect_version(expected, Some(stored)), audit)).await?;
            Ok(())
        })
        .await
    }

    /// Activates a version for new deliveries.
    pub async fn activate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        digest: Digest,
        expected: Option<u64>,
    ) -> Result<FilterView, Error> {
        let changed = change(&self.registry, tenant, name, expected, |view, filter| {
            if filter.version(&digest).is_none() {
                return Err(Error::NotFound(format!("version {digest} of filter `{name}`")));
            }
            set_active(filter, digest, view)?;
            Ok((actor.action("filter.activate").note(digest.to_string()), ()))
        });
        changed.await.map(|(filter, version, ())| show(&filter, version))
    }

    /// Activates the previously active version again. This also ends a rollout, since a rollback must leave all
    /// subjects on a known version.
    pub async fn roll_back(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        expected: Option<u64>,
    ) -> Result<FilterView, Error> {
        let changed = change(&self.registry, tenant, name, expected, |view, filter| {
            let Some(previous) = filter.previous.pop() else {
                let instead = if filter.rollout.is_some() { ": to be rid of its rollout, end that" } else { "" };
                let why = format!("no version of filter `{name}` was active before this one{instead}");
                return Err(Error::Conflict(why));
            };
            check_needs(filter, previous, view)?;
            let counted = self.rollouts.counted(tenant, name);
            let ended = filter.end_rollout(self.clock.now(), EndReason::RolledBack, counted);
            let before = filter.active.replace(previous);
            filter.withdraw(&previous, None);
            activation::release(filter, before);
            Ok((actor.action("filter.rollback").note(previous.to_string()), ended.is_some()))
        });
        let (filter, version, had_rollout) = changed.await?;
        if had_rollout {
            self.rollouts.ended(tenant, name, EndReason::RolledBack);
        }
        Ok(show(&filter, version))
    }

    /// Ends the suspension of all versions or of the given one. Deliveries that they hold are run again.
    pub async fn resume(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        digest: Option<Digest>,
        expected: Option<u64>,
    ) -> Result<FilterView, Error> {
        let changed = change(&self.registry, tenant, name, expected, |_, filter| {
            let asked: Vec<Digest> = match digest {
                Some(digest) => vec![digest],
                None => filter.versions.iter().map(|version| version.digest).collect(),
            };
            let mut resumed = false;
            for digest in asked {
                resumed |= resume(filter, digest);
            }
            if !resumed {
                let which = digest.map_or_else(|| "no version".to_owned(), |digest| format!("no version {digest}"));
                let why = format!("{which} of filter `{name}` is suspended: there is nothing to resume");
                return Err(Error::Conflict(why));
            }
            let which = digest.map_or_else(|| "all versions".to_owned(), |digest| digest.to_string());
            Ok((actor.action("filter.resume").note(which), ()))
        });
        changed.await.map(|(filter, version, ())| show(&filter, version))
    }

    /// A tenant's filters, by name.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<FilterView>, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        page.of(view.filters.iter().map(|(name, stored)| (name.clone(), stored)), |stored| {
            show(&stored.value, stored.version)
        })
    }

    /// Returns one filter.
    pub fn show(&self, tenant: &TenantId, name: &FilterName) -> Result<FilterView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        view.filters.get(name).map(|filter| show(&filter.value, filter.version)).ok_or_else(|| not_found(name))
    }

    /// Removes a filter that no subscription binds. Its components are retained as long as a delivery may run them.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &FilterName,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        let view = find_tenant(&self.registry, tenant)?;
        if !view.filters.contains_key(name) {
            return Err(not_found(name));
        }
        let bound = view.subscriptions.values().find(|s| s.value.chain.iter().any(|b| b.filter == *name));
        if let Some(subscription) = bound {
            let why =
                format!("the subscription `{}` binds the filter `{name}`: change it first", subscription.value.id);
            return Err(Error::Conflict(why));
        }
        self.registry.remove_filter(tenant, name, (expect_any(expected), actor.action("filter.remove"))).await?;
        Ok(())
    }
}

pub(super) fn not_found(name: &FilterName) -> Error {
    Error::NotFound(format!("filter `{name}`"))
}

fn show(filter: &Filter, version: u64) -> FilterView {
    FilterView {
        version,
        name: filter.name.clone(),
        active: filter.active,
        previous: filter.previous.last().copied(),
        rollout: filter.rollout.clone(),
        last_rollout: filter.last_rollout.clone(),
        suspended: filter.active.and_then(|active| filter.suspension(&active).cloned()),
        releasing: !filter.releasing.is_empty(),
        versions: filter
            .versions
            .iter()
            .map(|version| VersionView {
                digest: version.digest,
                size_bytes: version.size_bytes,
                uploaded_at: version.uploaded_at,
                needs: version.needs.clone(),
                compile_ms: version.compile_ms,
                active: filter.active == Some(version.digest),
                withdrawn: version.withdrawn,
                suspended: version.suspended.clone(),
            })
            .collect(),
    }
}
