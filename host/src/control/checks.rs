//! Checks and look-ups that several resources share: tenants, quotas, lengths, and expected versions (`If-Match`).

use std::sync::Arc;

use setgate_base::live::Live;
use setgate_domain::id::TenantId;
use setgate_domain::tenant::Quota;
use setgate_ledger::{Precondition, Registry, TenantView, Usage, Versioned};

use super::Error;

/// The current documents of a tenant.
pub(super) fn find_tenant(registry: &Registry, tenant: &TenantId) -> Result<Arc<TenantView>, Error> {
    let snapshot = registry.snapshot();
    snapshot.tenant(tenant).cloned().ok_or_else(|| Error::NotFound(format!("tenant `{tenant}`")))
}

/// The tenant's own quota, or the host's default if the tenant has none.
pub(super) fn quota_of(default: &Live<Quota>, view: &TenantView) -> Quota {
    view.tenant.value.quota_or(&default.now()).clone()
}

/// Refuses an upload if the disk is nearly full or the tenant's storage quota would be exceeded.
pub(super) fn check_space(usage: &Usage, tenant: &TenantId, quota: &Quota, upload_bytes: usize) -> Result<(), Error> {
    if let Some(shortage) = usage.shortage_of(tenant) {
        return Err(shortage.into());
    }
    let (stored, max) = (usage.stored(tenant), quota.stored_bytes_max);
    if max > 0 && stored.saturating_add(upload_bytes as u64) > max {
        return Err(Error::StorageFull { stored, max });
    }
    Ok(())
}

/// Checks a quota for one more item beside `count` existing ones.
pub(super) fn check_quota(count: usize, max: u64, name: &str) -> Result<(), Error> {
    if count as u64 >= max {
        return Err(Error::Conflict(format!("there are {count} already: the tenant's quota `{name}` is {max}")));
    }
    Ok(())
}

/// Limit for a free text, in characters.
pub const TEXT_CHARS_MAX: usize = 1_000;

/// Checks the length of free texts.
pub(super) fn check_length<'a>(field: &'static str, texts: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    if texts.into_iter().any(|text| text.chars().count() > TEXT_CHARS_MAX) {
        return Err(Error::invalid(field, format!("at most {TEXT_CHARS_MAX} characters")));
    }
    Ok(())
}

/// Tries for a change without an expected version while it conflicts with concurrent changes.
pub(super) const TRIES: usize = 5;

/// Retries a change if the document was changed concurrently between read and write. If the client gave an expected
/// version, there is no retry, because the conflict is the client's to resolve.
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(
    expected: Option<u64>,
    mut change: impl FnMut() -> F,
) -> Result<T, Error> {
    for _ in 0..TRIES {
        match change().await {
            Err(Error::Version { .. }) if expected.is_none() => {}
            result => return result,
        }
    }
    Err(Error::Conflict("this is being changed by others all the time: send it again".into()))
}

/// As an expected version: the document must not exist yet. No document has this version.
pub const ABSENT: u64 = 0;

/// The expectation for a change of a document that was read before: the version that the client expects, or else the
/// version that was read, or absence if there was no document.
pub(super) fn expect_version<T>(expected: Option<u64>, read: Option<&Arc<Versioned<T>>>) -> Precondition {
    match expected {
        Some(ABSENT) => Precondition::Absent,
        Some(version) => Precondition::Version(version),
        None => read.map_or(Precondition::Absent, |document| Precondition::Version(document.version)),
    }
}

/// Checks the client's expected version before any other validation (RFC 9110 section 13.2.1). The ledger checks it
/// again on commit.
pub(super) fn check_version(expected: Option<u64>, stored: u64) -> Result<(), Error> {
    match expected {
        Some(version) if version != stored => Err(Error::Version { actual: Some(stored) }),
        _ => Ok(()),
    }
}

/// The expectation for a removal: any version if the client gave none.
pub(super) fn expect_any(expected: Option<u64>) -> Precondition {
    expected.map_or(Precondition::Any, Precondition::Version)
}
