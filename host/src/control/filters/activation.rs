//! Activation of a filter version, and the end of a suspension.

use setgate_domain::filter::{Filter, missing_grants};
use setgate_domain::id::Digest;
use setgate_ledger::TenantView;

use super::VERSIONS_MAX;
use crate::control::Error;

/// Activates a version for new deliveries. Does nothing if it is active already.
pub(in crate::control) fn set_active(filter: &mut Filter, digest: Digest, view: &TenantView) -> Result<(), Error> {
    if filter.active == Some(digest) {
        return Ok(());
    }
    if let Some(rollout) = &filter.rollout {
        // The rollout compares its candidate with the active version, so its results would become invalid.
        return Err(Error::Conflict(format!(
            "the filter `{}` has a rollout of {}: promote or end it first, or upload with `?activate=false`",
            filter.name, rollout.digest
        )));
    }
    check_needs(filter, digest, view)?;
    filter.withdraw(&digest, None);
    if let Some(before) = filter.active.replace(digest) {
        filter.previous.push(before);
        if filter.previous.len() > VERSIONS_MAX {
            filter.previous.remove(0);
        }
        release(filter, Some(before));
    }
    Ok(())
}

/// Called after a user has activated another version than `before`. Deliveries held by the suspension of `before` are
/// run again, and a suspension of the new active version ends.
pub(super) fn release(filter: &mut Filter, before: Option<Digest>) {
    if let Some(before) = before.filter(|before| filter.suspension(before).is_some()) {
        filter.releasing.insert(before);
    }
    if let Some(active) = filter.active {
        resume(filter, active);
    }
}

/// Ends the suspension of a version. Returns true if it was suspended.
pub(in crate::control) fn resume(filter: &mut Filter, digest: Digest) -> bool {
    let suspended = filter.version_mut(&digest).and_then(|version| version.suspended.take());
    if suspended.is_some() {
        filter.releasing.insert(digest);
    }
    suspended.is_some()
}

/// Refuses a version that needs more than a binding grants, because it would fault on each of the binding's deliveries.
pub(in crate::control) fn check_needs(filter: &Filter, digest: Digest, view: &TenantView) -> Result<(), Error> {
    let Some(version) = filter.version(&digest) else { return Ok(()) };
    for subscription in view.subscriptions.values() {
        for binding in subscription.value.chain.iter().filter(|binding| binding.filter == filter.name) {
            if let Some(missing) = missing_grants(&version.needs, &binding.grants) {
                return Err(Error::Conflict(format!(
                    "this version of filter `{}` {missing} in subscription `{}` first",
                    filter.name, subscription.value.id
                )));
            }
        }
    }
    Ok(())
}
