//! Subscriptions by name: looks them up, and creates or replaces them with PUT.

use setgate_domain::id::{SubscriptionId, SubscriptionName, SubscriptionRef, TenantId};
use setgate_ledger::TenantView;

use super::{Control, Error, Subscription, SubscriptionInput, SubscriptionOnce};
use crate::control::ABSENT;
use crate::control::checks::TRIES;

impl Control {
    /// The id of the subscription that a path refers to.
    pub fn subscription_id(&self, tenant: &TenantId, named: &SubscriptionRef) -> Result<SubscriptionId, Error> {
        match named {
            SubscriptionRef::Id(id) => Ok(*id),
            SubscriptionRef::Name(name) => find(self.tenant(tenant)?.as_ref(), name)
                .ok_or_else(|| Error::NotFound(format!("subscription `{name}`"))),
        }
    }

    /// Creates or replaces the subscription with this name. The returned flag is true if it was created.
    pub async fn put_subscription(
        &self,
        tenant: &TenantId,
        name: &SubscriptionName,
        mut input: SubscriptionInput,
        expected: Option<u64>,
    ) -> Result<(bool, SubscriptionOnce), Error> {
        if let Some(given) = &input.name
            && given.as_ref() != Some(name)
        {
            let why = format!("the path names the subscription `{name}`: leave `name` out, or rename it by its id");
            return Err(Error::invalid("name", why));
        }
        input.name = Some(Some(name.clone()));
        for _ in 0..TRIES {
            let found = find(self.tenant(tenant)?.as_ref(), name);
            let put = match found {
                Some(id) => self.replace_subscription(tenant, id, input.clone(), expected).await,
                // The client expects a version, but the subscription does not exist.
                None if expected.is_some_and(|version| version != ABSENT) => {
                    return Err(Error::Version { actual: None });
                }
                None => self.create_subscription(tenant, input.clone()).await,
            };
            match put {
                // Another request created or removed the subscription in the meantime: try again.
                Err(Error::NameTaken(_)) if found.is_none() => {}
                Err(Error::NotFound(_)) if found.is_some() && expected.is_none() => {}
                put => return put.map(|put| (found.is_none(), put)),
            }
        }
        Err(Error::Conflict("this is being changed by others all the time: send it again".into()))
    }
}

/// The id of the subscription with this name.
fn find(view: &TenantView, name: &SubscriptionName) -> Option<SubscriptionId> {
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
