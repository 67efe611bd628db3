//! Verifying an endpoint: whoever runs it has to answer a challenge.

use super::signing::Made;
use super::{SubscriptionOnce, not_found};
use crate::control::{Control, Error, over, retried};
use crate::domain::audit::{Entry, Object, Outcome};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::subscription::{Cause, NOT_VERIFIED, Pause, Subscription};
use crate::domain::time::Timestamp;
use crate::ledger::TenantView;

impl Control {
    /// Sends the endpoint a challenge. Where it is given back, the endpoint is verified, and a subscription that only
    /// waited for that begins to send. [`Error::NotVerified`] tells what was answered instead.
    pub async fn verify_endpoint(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let asked = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?.value.clone();
        self.take_test(id)?;
        if let Err(why) = (self.challenge)(asked.clone()).await {
            self.note_failure(tenant, id, &why).await?;
            return Err(Error::NotVerified { why });
        }
        retried(None, || async {
            let view = self.tenant(tenant)?;
            let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
            if !self.is_same_place(&stored.value, &asked) {
                let why = "the endpoint was changed while it was verified: verify the new one".to_owned();
                return Err(Error::Conflict(why));
            }
            let now = self.clock.now();
            let mut subscription = stored.value.clone();
            subscription.verified_at = Some(now);
            subscription.updated_at = now;
            if subscription.paused.as_ref().is_some_and(|pause| pause.cause == Cause::Unverified) {
                subscription.paused = None;
            }
            let intent = (over(Some(stored)), self.deed("subscription.verify"));
            let version = self.ledger.put_subscription(subscription.clone(), intent).await?;
            Ok(Made::default().beside(self, version, &subscription, now))
        })
        .await
    }

    /// A challenge that failed went out all the same: it stands in the log.
    async fn note_failure(&self, tenant: &TenantId, id: SubscriptionId, why: &str) -> Result<(), Error> {
        let object = Object { kind: "subscription".to_owned(), id: id.to_string() };
        let deed = self.deed("subscription.verify").note(why);
        let entry = Entry::of(deed, self.clock.now(), Some(tenant.clone()), object);
        self.ledger.record(Entry { outcome: Outcome::Failed, ..entry }).await?;
        Ok(())
    }

    /// Whether nothing may be sent to an endpoint of this tenant before it was verified.
    fn requires_verified(&self, view: &TenantView) -> bool {
        self.settings.now().delivery.require_verified_endpoints || self.quota_of(view).require_verified_endpoints
    }

    /// Pauses what is about to be stored where its endpoint has to be verified first and is another one than before.
    pub(super) fn pause_unverified(
        &self,
        view: &TenantView,
        subscription: &mut Subscription,
        before: Option<&Subscription>,
        now: Timestamp,
    ) {
        let before = before.filter(|before| self.is_same_place(before, subscription));
        subscription.verified_at = before.and_then(|before| before.verified_at);
        if before.is_none() && subscription.paused.is_none() && self.requires_verified(view) {
            subscription.paused = Some(Pause { cause: Cause::Unverified, reason: NOT_VERIFIED.to_owned(), since: now });
        }
    }

    /// Whether a subscription may be resumed by a person.
    pub(super) fn check_verified(&self, view: &TenantView, subscription: &Subscription) -> Result<(), Error> {
        if subscription.verified_at.is_none() && self.requires_verified(view) {
            let why = "its endpoint is not verified, which this host asks for: `POST .../verify` resumes it";
            return Err(Error::Conflict(why.to_owned()));
        }
        Ok(())
    }
}
