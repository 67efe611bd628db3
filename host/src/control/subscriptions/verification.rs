//! Verifies an endpoint: its operator must answer a challenge.

use setgate_domain::audit::{Entry, Object, Outcome};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::subscription::{Cause, NOT_VERIFIED, Pause, Subscription};
use setgate_domain::time::Timestamp;
use setgate_ledger::TenantView;

use super::signing::Made;
use super::{SubscriptionOnce, not_found};
use crate::control::checks::{expect_version, retried};
use crate::control::{Control, Error};

impl Control {
    /// Sends a challenge to the endpoint. If the response returns it, the endpoint is marked as verified, and a
    /// subscription that was paused only for verification is resumed.
    ///
    /// # Errors
    /// [`Error::NotVerified`] with the reason if the challenge was not returned.
    pub async fn verify_endpoint(&self, tenant: &TenantId, id: SubscriptionId) -> Result<SubscriptionOnce, Error> {
        let view = self.tenant(tenant)?;
        let asked = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?.value.clone();
        self.take_test(id)?;
        if let Err(why) = self.data_plane.verify_endpoint(&asked).await {
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
            let intent = (expect_version(None, Some(stored)), self.audit("subscription.verify"));
            let version = self.ledger.registry.put_subscription(subscription.clone(), intent).await?;
            Ok(Made::default().beside(self, version, &subscription, now))
        })
        .await
    }

    /// Records a failed verification in the audit log, because a request was sent.
    async fn note_failure(&self, tenant: &TenantId, id: SubscriptionId, why: &str) -> Result<(), Error> {
        let object = Object { kind: "subscription".to_owned(), id: id.to_string() };
        let audit = self.audit("subscription.verify").note(why);
        let entry = Entry::of(audit, self.clock.now(), Some(tenant.clone()), object);
        self.ledger.history.record_audit(Entry { outcome: Outcome::Failed, ..entry }).await?;
        Ok(())
    }

    /// Whether endpoints of this tenant must be verified before anything is sent to them.
    fn requires_verified(&self, view: &TenantView) -> bool {
        self.settings.now().delivery.require_verified_endpoints || self.quota_of(view).require_verified_endpoints
    }

    /// Pauses a subscription before it is stored, if its endpoint has changed and must be verified first.
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

    /// Checks that a user may resume the subscription.
    pub(super) fn check_verified(&self, view: &TenantView, subscription: &Subscription) -> Result<(), Error> {
        if subscription.verified_at.is_none() && self.requires_verified(view) {
            let why = "its endpoint is not verified, which this host asks for: `POST .../verify` resumes it";
            return Err(Error::Conflict(why.to_owned()));
        }
        Ok(())
    }
}
