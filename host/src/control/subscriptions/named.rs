//! Names of subscriptions.

use setgate_domain::id::{SubscriptionId, SubscriptionName};
use setgate_domain::subscription::Subscription;
use setgate_ledger::TenantView;

use crate::control::Error;

/// The id of the subscription with this name.
pub(super) fn find(view: &TenantView, name: &SubscriptionName) -> Option<SubscriptionId> {
    let mut subscriptions = view.subscriptions.values();
    subscriptions.find(|stored| stored.value.name.as_ref() == Some(name)).map(|stored| stored.value.id)
}

/// The name of a subscription after its replacement. If absent, the old name is retained, and `null` removes it.
pub(super) fn name_of(
    given: Option<Option<SubscriptionName>>,
    before: Option<&Subscription>,
) -> Option<SubscriptionName> {
    given.unwrap_or_else(|| before.and_then(|before| before.name.clone()))
}

/// Refuses a document with the id of another subscription.
pub(super) fn check_id(given: Option<SubscriptionId>, id: SubscriptionId) -> Result<(), Error> {
    match given {
        Some(given) if given != id => {
            let why = format!(
                "this is the document of `{given}`, and the request is for `{id}`: leave `id` out, or correct the path"
            );
            Err(Error::invalid("id", why))
        }
        _ => Ok(()),
    }
}
