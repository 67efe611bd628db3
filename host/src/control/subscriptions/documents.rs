//! The documents of subscriptions: the steps that all changes of one share.

use setgate_base::clock::Clock;
use setgate_domain::audit::AuditAction;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::subscription::Subscription;
use setgate_domain::time::Timestamp;
use setgate_egress::Egress;
use setgate_ledger::{Precondition, Registry, TenantView};

use super::shapes::{RevealedKey, SubscriptionOnce, show};
use crate::control::Error;
use crate::control::checks::{expect_version, find_tenant, retried};
use crate::control::warnings;

/// Stores subscriptions, and shows them.
#[derive(Clone)]
pub(in crate::control) struct Documents {
    pub(in crate::control) registry: Registry,
    pub(in crate::control) egress: Egress,
    pub(in crate::control) clock: Clock,
}

impl Documents {
    /// Stores a new subscription.
    pub(super) async fn create(
        &self,
        subscription: Subscription,
        made: RevealedKey,
        audit: AuditAction,
    ) -> Result<SubscriptionOnce, Error> {
        let version = self.registry.put_subscription(subscription.clone(), (Precondition::Absent, audit)).await?;
        Ok(self.show(version, &subscription, made, subscription.created_at))
    }

    /// Applies a change to a stored subscription. It is applied again if another change was committed in between, unless
    /// the client gave an expected version.
    pub(super) async fn change(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
        change: impl Fn(&TenantView, &mut Subscription, Timestamp) -> Result<(AuditAction, RevealedKey), Error>,
    ) -> Result<SubscriptionOnce, Error> {
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
            let now = self.clock.now();
            let mut subscription = stored.value.clone();
            let (audit, made) = change(&view, &mut subscription, now)?;
            subscription.updated_at = now;
            let intent = (expect_version(expected, Some(stored)), audit);
            let version = self.registry.put_subscription(subscription.clone(), intent).await?;
            Ok(self.show(version, &subscription, made, now))
        })
        .await
    }

    /// The response with a subscription, and with the parts of a new key that are returned once.
    pub(super) fn show(
        &self,
        version: u64,
        subscription: &Subscription,
        made: RevealedKey,
        now: Timestamp,
    ) -> SubscriptionOnce {
        SubscriptionOnce {
            version,
            view: show(subscription, now),
            warnings: warnings::of_subscription(subscription, &self.registry, &self.egress),
            signing_secret: made.secret,
            signing_public_key: made.public,
            poll_token: made.poll_token,
        }
    }
}

pub(super) fn not_found(id: SubscriptionId) -> Error {
    Error::NotFound(format!("subscription `{id}`"))
}
