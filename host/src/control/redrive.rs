//! Redrive of held or dead deliveries: of one, or of many by id or by their properties, oldest first.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_base::fair::TenantSemaphores;
use setgate_domain::audit::{Actor, AuditAction};
use setgate_domain::delivery::{DeliveryRecord, Redrive, State};
use setgate_domain::id::{DeliveryId, FilterName, SourceName, SubscriptionId, TenantId};
use setgate_domain::tenant::Incarnation;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Cursor, Deliveries, History, REDRIVE_CHUNK_ROWS, RedriveOutcome, Registry};
use std::time::{Duration, Instant};

use super::checks::find_tenant;
use super::deliveries::{DeliveryHistory, DeliveryView, not_found};
use super::pages::{cursor as cursor_of, parse_cursor};
use super::{DeliveryQuery, Error};
use crate::pipeline::{DueQueue, Requeues, run_to_completion};

/// Limit for a tenant's concurrent bulk redrives.
pub(super) const REDRIVES_PER_TENANT_MAX: usize = 1;
/// Deliveries of one redrive request; the answer contains a cursor for the next request.
const REDRIVE_DELIVERIES_MAX: usize = 10_000;
/// Time limit of a redrive request, which then answers with its progress.
const REDRIVE_TIME_MAX: Duration = Duration::from_secs(20);

/// Limit for the ids in one request.
pub const IDS_MAX: usize = 1_000;
/// Default limit for the deliveries that one request redrives.
pub const LIMIT_DEFAULT: usize = 1_000;

/// A request to redrive one delivery.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveInput {
    /// The action. `again` if absent.
    #[serde(default = "again")]
    pub action: Redrive,
}

fn again() -> Redrive {
    Redrive::Again
}

/// A bulk redrive request. Exactly one of `where` and `ids` is required.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveManyInput {
    /// The action. `again` if absent.
    #[serde(default = "again")]
    pub action: Redrive,
    /// Selects deliveries by their properties.
    #[serde(default, rename = "where")]
    pub selector: Option<RedriveSelector>,
    /// Selects deliveries by id, at most [`IDS_MAX`].
    #[serde(default)]
    pub ids: Option<Vec<DeliveryId>>,
    /// Only with `where`: `next` of the previous response.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Only with `where`: limit for the deliveries of this request. [`LIMIT_DEFAULT`] if absent, at most
    /// 10000.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Selects held or dead deliveries. Absent fields match everything.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveSelector {
    /// The state.
    pub state: RedriveState,
    /// The subscription.
    #[serde(default)]
    pub subscription: Option<SubscriptionId>,
    /// A type of the event, as the complete URI.
    #[serde(default)]
    pub r#type: Option<String>,
    /// The subject of the event. Must match exactly.
    #[serde(default)]
    pub subject: Option<String>,
    /// The source of the event.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// Created at or after this time.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Created before this time.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// The filter whose fault caused the delivery to be held.
    #[serde(default)]
    pub faulted_filter: Option<FilterName>,
}

/// The states that need manual action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `State`")]
pub enum RedriveState {
    Held,
    Dead,
}

/// The result of a bulk redrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RedriveCounts {
    /// Deliveries selected.
    pub matched: u64,
    /// Selected deliveries that are due again or discarded.
    pub redriven: u64,
    /// Selected deliveries that were not redriven, because they no longer exist or because the action does not apply to
    /// their current state.
    pub skipped: u64,
    /// The `cursor` of the next request. `null` if no deliveries remain.
    pub next: Option<String>,
}

/// Validated selection by filter.
struct Found {
    state: State,
    query: DeliveryQuery,
    cursor: Option<Cursor>,
    limit: usize,
}

/// Validated selection.
enum Chosen {
    Ids(Vec<DeliveryId>),
    Found(Box<Found>),
}

/// Redrives deliveries: sends them again, releases or discards them.
#[derive(Clone)]
pub struct Redrives {
    pub(super) registry: Registry,
    pub(super) history: History,
    pub(super) deliveries: Deliveries,
    pub(super) shown: DeliveryHistory,
    pub(super) requeues: Requeues,
    pub(super) due: DueQueue,
    pub(super) clock: Clock,
    /// Limits the bulk redrives of each tenant.
    pub(super) running: Arc<TenantSemaphores>,
}

impl Redrives {
    /// Redrives one delivery.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the action does not apply to the delivery's state.
    pub async fn redrive(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: DeliveryId,
        action: Redrive,
    ) -> Result<DeliveryView, Error> {
        let record = self.shown.find(tenant, id).await?;
        let audit = audit_of(actor, action);
        // A delivery without a completed chain runs the current chain, because its pinned chain would hold it again.
        if action == Redrive::Again
            && !self.requeues.with_current_chain(tenant, vec![record], audit.clone()).await?.is_empty()
        {
            return self.shown.show(tenant, id).await;
        }
        let (redrives, whose) = (self.clone(), tenant.clone());
        let redriven = run_to_completion(async move {
            let redriven = redrives.deliveries.redrive(&whose, id, (action, audit), redrives.clock.now()).await?;
            if let Some(RedriveOutcome::Due(due) | RedriveOutcome::Discarded(Some(due))) = &redriven {
                redrives.due.push(vec![due.clone()]).await;
            }
            Ok::<_, setgate_ledger::Error>(redriven)
        });
        match redriven.await? {
            None => return Err(not_found(id)),
            Some(RedriveOutcome::Due(_) | RedriveOutcome::Discarded(_)) => {}
            Some(RedriveOutcome::NotApplicable(state)) => {
                return Err(Error::Conflict(format!(
                    "the delivery is {}: `again` and `discard` are for held and dead ones, `release` for held ones",
                    state.as_str()
                )));
            }
        }
        self.shown.show(tenant, id).await
    }

    /// Redrives held or dead deliveries in chunks, with one transaction per chunk, and begins no chunk after
    /// `time_limit`. A repeated request does nothing,
    /// because redriven deliveries are no longer in the selected state.
    ///
    /// # Errors
    /// [`Error::Busy`] if the tenant already has a bulk redrive running.
    pub async fn redrive_many(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        input: RedriveManyInput,
        time_limit: Duration,
    ) -> Result<RedriveCounts, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let (action, chosen) = choose(of, input)?;
        let turn = self.running.get(tenant).try_acquire_owned();
        let turn =
            turn.map_err(|_| Error::Busy("a redrive of this tenant is under way: ask again when it has ended".into()))?;
        let (redrives, whose) = (self.clone(), tenant.clone());
        let audit = audit_of(actor, action);
        let deadline = Instant::now() + time_limit.min(REDRIVE_TIME_MAX);
        run_to_completion(async move {
            let _turn = turn;
            match chosen {
                Chosen::Ids(ids) => redrives.redrive_named(&whose, ids, action, &audit).await,
                Chosen::Found(found) => redrives.redrive_found(&whose, of, *found, (action, &audit), deadline).await,
            }
        })
        .await
    }

    async fn redrive_named(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
        action: Redrive,
        audit: &AuditAction,
    ) -> Result<RedriveCounts, Error> {
        let mut counts = RedriveCounts { matched: ids.len() as u64, ..RedriveCounts::default() };
        let at = self.clock.now();
        for chunk in ids.chunks(REDRIVE_CHUNK_ROWS) {
            let records = self.history.deliveries_by_id(tenant, chunk.to_vec()).await?;
            counts.redriven += self.redrive_chunk(tenant, records, action, audit, at).await?;
        }
        counts.skipped = counts.matched - counts.redriven;
        Ok(counts)
    }

    async fn redrive_found(
        &self,
        tenant: &TenantId,
        of: Incarnation,
        found: Found,
        (action, audit): (Redrive, &AuditAction),
        deadline: Instant,
    ) -> Result<RedriveCounts, Error> {
        let Found { state, query, mut cursor, limit } = found;
        let mut counts = RedriveCounts::default();
        // All chunks use the same time, so that the deliveries become due in their original order.
        let at = self.clock.now();
        loop {
            let room = limit - usize::try_from(counts.matched).unwrap_or(limit).min(limit);
            if room == 0 || Instant::now() >= deadline {
                break;
            }
            // The tenant was removed and created again in the meantime.
            if find_tenant(&self.registry, tenant)?.incarnation() != of {
                return Err(Error::NotFound(format!("tenant `{tenant}` any more")));
            }
            let page = self
                .history
                .resting_deliveries(tenant, state, query.clone(), cursor, room.min(REDRIVE_CHUNK_ROWS))
                .await?;
            counts.matched += page.items.len() as u64;
            counts.redriven += self.redrive_chunk(tenant, page.items, action, audit, at).await?;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        counts.skipped = counts.matched - counts.redriven;
        counts.next = cursor.map(|cursor| cursor_of(of, cursor));
        Ok(counts)
    }

    /// Redrives up to [`REDRIVE_CHUNK_ROWS`] deliveries and returns how many changed.
    async fn redrive_chunk(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        action: Redrive,
        audit: &AuditAction,
        at: Timestamp,
    ) -> Result<u64, Error> {
        if records.is_empty() {
            return Ok(0);
        }
        let mut ids: BTreeSet<DeliveryId> = records.iter().map(|record| record.id).collect();
        let mut redriven = 0;
        if action == Redrive::Again {
            // Deliveries without a completed chain run the current chain.
            for id in self.requeues.with_current_chain(tenant, records, audit.clone()).await? {
                ids.remove(&id);
                redriven += 1;
            }
        }
        let done = self.deliveries.redrive_many(tenant, ids.into_iter().collect(), (action, audit.clone()), at).await?;
        let mut due = Vec::with_capacity(done.len());
        for one in done {
            match one {
                RedriveOutcome::Due(delivery) => due.push(delivery),
                // A discarded delivery unblocks the next one in its FIFO order.
                RedriveOutcome::Discarded(unblocked) => due.extend(unblocked),
                RedriveOutcome::NotApplicable(_) => continue,
            }
            redriven += 1;
        }
        self.due.push(due).await;
        Ok(redriven)
    }
}

/// Validates a request.
fn choose(of: Incarnation, input: RedriveManyInput) -> Result<(Redrive, Chosen), Error> {
    let RedriveManyInput { action, selector, ids, cursor, limit } = input;
    match (selector, ids) {
        (None, Some(ids)) => {
            if ids.len() > IDS_MAX {
                return Err(Error::invalid("ids", format!("at most {IDS_MAX} deliveries; or use `where`")));
            }
            if cursor.is_some() || limit.is_some() {
                return Err(Error::invalid(
                    "cursor",
                    "`cursor` and `limit` are only valid with `where`: all `ids` are redriven",
                ));
            }
            // Removes duplicates.
            let ids: BTreeSet<DeliveryId> = ids.into_iter().collect();
            Ok((action, Chosen::Ids(ids.into_iter().collect())))
        }
        (Some(selector), None) => {
            let state = match selector.state {
                RedriveState::Held => State::Held,
                RedriveState::Dead => State::Dead,
            };
            if action == Redrive::Release && state == State::Dead {
                return Err(Error::invalid("action", "`release` is for held deliveries: use `again` for dead ones"));
            }
            let max = REDRIVE_DELIVERIES_MAX;
            let limit = limit.unwrap_or(LIMIT_DEFAULT.min(max));
            if !(1..=max).contains(&limit) {
                return Err(Error::invalid("limit", format!("1 to {max}")));
            }
            let query = DeliveryQuery {
                subscription: selector.subscription,
                event_type: selector.r#type,
                subject: selector.subject,
                source: selector.source,
                filter: selector.faulted_filter,
                since: selector.since,
                until: selector.until,
                ..DeliveryQuery::default()
            };
            let cursor = parse_cursor(of, cursor.as_deref())?;
            Ok((action, Chosen::Found(Box::new(Found { state, query, cursor, limit }))))
        }
        _ => Err(Error::invalid("where", "exactly one of `where` and `ids` is required")),
    }
}

/// The audit record of an action.
fn audit_of(actor: &Actor, action: Redrive) -> AuditAction {
    actor.action(match action {
        Redrive::Again => "delivery.again",
        Redrive::Release => "delivery.release",
        Redrive::Discard => "delivery.discard",
    })
}
