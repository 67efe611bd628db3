//! Operational events: Setgate's own events about actions of the host, such as a paused subscription. They take the
//! same path as all other events and reach the subscriptions that name the source `setgate`. If there is no such
//! subscription, no event is created.

use serde_json::json;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_domain::builtin_event;
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::json::JsonLimits;
use setgate_domain::set::SetToken;
use setgate_domain::subscription::{PauseCause, Subscription};
use setgate_domain::time::Timestamp;
use setgate_ledger::{Events, Registry};
use tracing::error;

use super::spans::Spans;

pub(super) enum OperationalEvent<'a> {
    /// The host paused a subscription. `since` is part of the event's name, so that each cause is reported only once.
    Disabled { subscription: &'a Subscription, cause: PauseCause, reason: &'a str, since: Timestamp },
}

impl OperationalEvent<'_> {
    fn uri(&self) -> &'static str {
        match self {
            Self::Disabled { .. } => builtin_event::SUBSCRIPTION_DISABLED,
        }
    }

    /// The deduplication name: two notices with the same name are the same event.
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
                // Without path and query, which may contain secrets of the receiver.
                "endpoint": subscription.endpoint.as_ref().map(|endpoint| endpoint.origin().to_string()),
                "cause": cause,
                "reason": reason,
                "since": since,
            }),
        }
    }
}

/// Appends operational events.
pub(super) struct OperationalEvents {
    registry: Registry,
    events: Events,
    clock: Clock,
    spans: Spans,
}

impl OperationalEvents {
    pub(super) fn new(registry: Registry, events: Events, clock: Clock, spans: Spans) -> Self {
        Self { registry, events, clock, spans }
    }

    /// Appends an operational event to the tenant's journal, once. A failure is only logged, because the reported
    /// action has taken place and is visible in the subscription itself.
    pub(super) async fn append(&self, tenant: &TenantId, notice: OperationalEvent<'_>) {
        let snapshot = self.registry.snapshot();
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

    async fn append_notice(
        &self,
        tenant: &TenantId,
        source: SourceName,
        notice: &OperationalEvent<'_>,
    ) -> Result<(), String> {
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
        // Only the name, because a repeated notice may have another time or reason.
        let key = crypto::sha256(format!("notice {tenant} {name}").as_bytes());
        let id = EventId::new(now, crypto::random_u128());
        let (_span, trace) = self.spans.making(tenant, &source, id);
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
        // Bypasses the tenant's append queue, which may be full because of the reported problem. Loop A creates the
        // deliveries.
        match self.events.append(event).await {
            Ok(_) | Err(setgate_ledger::Error::NoTenant(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}
