//! Verifies an endpoint: its operator must answer a challenge.

use std::sync::Arc;

use crate::pipeline::settings::Delivery;
use setgate_base::live::Live;
use setgate_domain::audit::{Actor, AuditEntry, AuditObject, AuditOutcome};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::subscription::{NOT_VERIFIED, Pause, PauseCause, Subscription};
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_ledger::{History, TenantView};

use super::SubscriptionOnce;
use super::documents::{Documents, not_found};
use super::endpoint::Endpoints;
use super::shapes::RevealedKey;
use crate::control::Error;
use crate::control::checks::{find_tenant, quota_of};
use crate::control::rate::ReceiverRequests;
use crate::pipeline::EndpointVerifier;

/// Verifies endpoints, and decides whether an endpoint must be verified.
#[derive(Clone)]
pub struct Verifications {
    pub(in crate::control) documents: Documents,
    pub(in crate::control) endpoints: Endpoints,
    pub(in crate::control) history: History,
    pub(in crate::control) default_quota: Live<Quota>,
    pub(in crate::control) delivery: Live<Delivery>,
    pub(in crate::control) verifier: Arc<EndpointVerifier>,
    pub(in crate::control) requests: ReceiverRequests,
}

impl Verifications {
    /// Sends a challenge to the endpoint. If the response returns it, the endpoint is marked as verified, and a
    /// subscription that was paused only for verification is resumed.
    ///
    /// # Errors
    /// [`Error::NotVerified`] with the reason if the challenge was not returned.
    pub async fn verify(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
    ) -> Result<SubscriptionOnce, Error> {
        let view = find_tenant(&self.documents.registry, tenant)?;
        let asked = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?.value.clone();
        if asked.endpoint.is_none() {
            let why = "this subscription has no endpoint to verify: its receiver polls";
            return Err(Error::Conflict(why.to_owned()));
        }
        self.requests.take(id)?;
        if let Err(why) = self.verifier.verify(&asked).await {
            self.note_failure(actor, tenant, id, &why).await?;
            return Err(Error::NotVerified { why });
        }
        self.documents
            .change(tenant, id, None, |_, subscription, now| {
                if !self.endpoints.has_same_origin_and_path(subscription, &asked) {
                    let why = "the endpoint was changed while it was verified: verify the new one".to_owned();
                    return Err(Error::Conflict(why));
                }
                subscription.verified_at = Some(now);
                if subscription.paused.as_ref().is_some_and(|pause| pause.cause == PauseCause::Unverified) {
                    subscription.paused = None;
                }
                Ok((actor.action("subscription.verify"), RevealedKey::default()))
            })
            .await
    }

    /// Records a failed verification in the audit log, because a request was sent.
    async fn note_failure(&self, actor: &Actor, tenant: &TenantId, id: SubscriptionId, why: &str) -> Result<(), Error> {
        let object = AuditObject { kind: "subscription".to_owned(), id: id.to_string() };
        let audit = actor.action("subscription.verify").note(why);
        let entry = AuditEntry::new(audit, self.documents.clock.now(), Some(tenant.clone()), object);
        self.history.record_audit(AuditEntry { outcome: AuditOutcome::Failed, ..entry }).await?;
        Ok(())
    }

    /// Whether endpoints of this tenant must be verified before anything is sent to them.
    fn requires_verified(&self, view: &TenantView) -> bool {
        self.delivery.now().require_verified_endpoints || quota_of(&self.default_quota, view).require_verified_endpoints
    }

    /// Pauses a subscription before it is stored, if its endpoint has changed and must be verified first.
    pub(super) fn pause_unverified(
        &self,
        view: &TenantView,
        subscription: &mut Subscription,
        before: Option<&Subscription>,
        now: Timestamp,
    ) {
        let before = before.filter(|before| self.endpoints.has_same_origin_and_path(before, subscription));
        subscription.verified_at = before.and_then(|before| before.verified_at);
        let sends = subscription.endpoint.is_some();
        if before.is_none() && sends && subscription.paused.is_none() && self.requires_verified(view) {
            subscription.paused =
                Some(Pause { cause: PauseCause::Unverified, reason: NOT_VERIFIED.to_owned(), since: now });
        }
    }

    /// Checks that a user may resume the subscription.
    pub(super) fn check_verified(&self, view: &TenantView, subscription: &Subscription) -> Result<(), Error> {
        if subscription.endpoint.is_some() && subscription.verified_at.is_none() && self.requires_verified(view) {
            let why = "its endpoint is not verified, which this host asks for: `POST .../verify` resumes it";
            return Err(Error::Conflict(why.to_owned()));
        }
        Ok(())
    }
}
