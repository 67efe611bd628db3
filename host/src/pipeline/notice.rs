//! Notices: events of Setgate's own about what the host did to a tenant's things, on the path of every other event. They
//! reach the subscriptions that name the source `setgate`; where none does, none is made.

use serde_json::json;
use tracing::error;

use crate::crypto;
use crate::domain::catalogue;
use crate::domain::event::{Dedupe, NewEvent};
use crate::domain::id::{EventId, SourceName, TenantId};
use crate::domain::json::JsonLimits;
use crate::domain::set::SetToken;
use crate::domain::subscription::{Cause, Subscription};
use crate::domain::time::Timestamp;
use crate::ledger;

use super::Pipeline;

/// What a notice is about.
pub(super) enum Notice<'a> {
    /// The host paused a subscription. Since when that was due is part of the notice's name: it is given once.
    Disabled { subscription: &'a Subscription, cause: Cause, reason: &'a str, since: Timestamp },
}

impl Notice<'_> {
    fn uri(&self) -> &'static str {
        match self {
            Self::Disabled { .. } => catalogue::SUBSCRIPTION_DISABLED,
        }
    }

    /// What makes a second notice the same as the first.
    fn name(&self) -> String {
        match self {
            Self::Disabled { subscription, since, .. } => {
                format!("subscription-disabled-{}-{}", subscription.id, since.as_millis())
            }
        }
    }

    fn body(&self) -> serde_json::Value {
        match self {
            Self::Disabled { subscription, cause, reason, since } => json!({
                "subscription": subscription.id,
                "description": subscription.description,
                // Without its path and query, which may hold what only the receiver should know.
                "endpoint": subscription.endpoint.origin().to_string(),
                "cause": cause,
                "reason": reason,
                "since": since,
            }),
        }
    }
}

impl Pipeline {
    /// Appends a notice to the tenant's events, once. Where that fails, the operator is told: what it is about has
    /// happened, and is shown where it happened too.
    pub(super) async fn give_notice(&self, tenant: &TenantId, notice: Notice<'_>) {
        let snapshot = self.ledger.snapshot();
        let source = SourceName::setgate();
        let wanted = snapshot.tenant(tenant).is_some_and(|view| {
            view.subscriptions.values().any(|subscription| subscription.value.sources.contains(&source))
        });
        if !wanted {
            return;
        }
        if let Err(why) = self.append_notice(tenant, source, &notice).await {
            error!(%tenant, notice = notice.uri(), %why, "a notice could not be given");
        }
    }

    async fn append_notice(&self, tenant: &TenantId, source: SourceName, notice: &Notice<'_>) -> Result<(), String> {
        let now = self.clock.now();
        let name = notice.name();
        let issuer = format!("https://schemas.setgate.dev/sources/{tenant}/{source}");
        let claims = json!({
            "iss": issuer,
            "jti": name,
            "iat": now.as_seconds(),
            "events": { notice.uri(): notice.body() },
        });
        let limits = JsonLimits { depth_max: usize::MAX, bytes_max: usize::MAX };
        let set = SetToken::parse(claims.to_string(), limits).map_err(|error| error.to_string())?;
        // The name alone: the same notice may say another time or reason when it is made again.
        let key = crypto::sha256(format!("notice {tenant} {name}").as_bytes());
        let id = EventId::new(now, crypto::random_u128());
        let (_span, trace) = self.making(tenant, &source, id);
        let event = NewEvent {
            id,
            tenant: tenant.clone(),
            source,
            original: set.text.clone().into_bytes().into(),
            set,
            subject: None,
            content_type: "application/json".into(),
            accepted_at: now,
            dedupe: Dedupe { key, body: key, window_ms: None },
            trace,
        };
        // Without a turn among the tenant's own events, whose flood it may be about. The loop makes its deliveries.
        match self.ledger.append(event).await {
            Ok(_) | Err(ledger::Error::NoTenant(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}
