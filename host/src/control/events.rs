//! Events as they were accepted.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use setgate_domain::event::EventRecord;
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::time::Timestamp;

use super::checks::find_tenant;
use super::pages::cursor as cursor_of;
use super::{Error, EventQuery, Page, PageQuery};

/// An event with its SET.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Event`")]
pub struct EventView {
    pub id: EventId,
    pub source: SourceName,
    pub types: Vec<String>,
    pub jti: String,
    pub subject: Option<String>,
    pub accepted_at: Timestamp,
    /// The normalized SET, before any filter.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub set: Box<RawValue>,
}

/// Reads a tenant's events.
#[derive(Clone)]
pub struct Events {
    pub(super) registry: setgate_ledger::Registry,
    pub(super) history: setgate_ledger::History,
    pub(super) events: setgate_ledger::Events,
}

impl Events {
    /// Lists a tenant's events without their SETs, newest first.
    pub async fn list(
        &self,
        tenant: &TenantId,
        query: EventQuery,
        page: &PageQuery,
    ) -> Result<Page<EventRecord>, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let asked = page.within(of)?;
        let page = self.history.events(tenant, query, asked.place()?, asked.limit()).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| cursor_of(of, next)) })
    }

    /// An event with its SET.
    pub async fn show(&self, tenant: &TenantId, id: EventId) -> Result<EventView, Error> {
        find_tenant(&self.registry, tenant)?;
        let event = self.events.event(tenant, id).await?;
        let event = event.ok_or_else(|| Error::NotFound(format!("event `{id}`")))?;
        let set = RawValue::from_string(event.set.text).map_err(|error| {
            Error::Ledger(setgate_ledger::Error::Corrupt { what: format!("the SET of event {id}: {error}") })
        })?;
        Ok(EventView {
            id: event.id,
            source: event.source,
            types: event.set.types,
            jti: event.set.jti,
            subject: event.subject,
            accepted_at: event.accepted_at,
            set,
        })
    }
}
