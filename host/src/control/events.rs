//! Events as they were accepted.

use serde::Serialize;
use serde_json::value::RawValue;

use super::deliveries::PAGE_MAX;
use super::{Control, Error};
use crate::domain::event::Event;
use crate::domain::id::{EventId, SourceName, TenantId};
use crate::domain::time::Timestamp;
use crate::ledger::{Cursor, EventQuery, Page};

/// An event as it is shown.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in `Event`")]
pub struct EventView {
    pub id: EventId,
    pub source: SourceName,
    pub types: Vec<String>,
    pub jti: String,
    pub subject: Option<String>,
    pub accepted_at: Timestamp,
    /// The SET; only where one event is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<Box<RawValue>>,
}

impl Control {
    /// A tenant's events, newest first, without their SETs.
    pub async fn list_events(
        &self,
        tenant: &TenantId,
        query: EventQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<EventView>, Error> {
        self.tenant(tenant)?;
        let page = self.ledger.events(tenant, query, cursor, limit.clamp(1, PAGE_MAX)).await?;
        Ok(Page { items: page.items.into_iter().map(|event| show(event, false)).collect(), next: page.next })
    }

    /// One event with its SET.
    pub async fn show_event(&self, tenant: &TenantId, id: EventId) -> Result<EventView, Error> {
        self.tenant(tenant)?;
        let event = self.ledger.event(tenant, id).await?;
        event.map(|event| show(event, true)).ok_or_else(|| Error::NotFound(format!("event `{id}`")))
    }
}

fn show(event: Event, whole: bool) -> EventView {
    EventView {
        id: event.id,
        source: event.source,
        types: event.set.types,
        jti: event.set.jti,
        subject: event.subject,
        accepted_at: event.accepted_at,
        set: if whole { RawValue::from_string(event.set.text).ok() } else { None },
    }
}
