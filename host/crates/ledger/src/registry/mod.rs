//! Documents of the control plane: tenants, sources, filters, subscriptions, keys and tables. All of them are in memory
//! as one immutable [`Snapshot`], which is replaced after each durable change.

pub(crate) mod blobs;
pub(crate) mod failure_streak;
mod issuer_keys;
pub(crate) mod plans;
pub(crate) mod write;

use std::sync::Arc;

use rusqlite::Connection;
use setgate_domain::audit::AuditAction;
use setgate_domain::filter::{Filter, Table};
use setgate_domain::id::{FilterName, KeyId, SourceName, SubscriptionId, TableName, TenantId};
use setgate_domain::idempotency::IdempotencyClaim;
use setgate_domain::secret::Sealed;
use setgate_domain::source::Source;
use setgate_domain::subscription::Subscription;
use setgate_domain::tenant::{ApiKey, Tenant};

use crate::Error;
use crate::audit::idempotency;
use crate::schema::sql_types::params;
use crate::state::snapshot::{Doc, Name, Snapshot};
use crate::store::Store;

/// Precondition of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// No precondition.
    Any,
    /// No document with that name exists.
    Absent,
    /// The document has exactly this version.
    Version(u64),
}

impl Precondition {
    fn check(self, current: Option<u64>) -> Result<(), Error> {
        let met = match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Version(version) => current == Some(version),
        };
        if met { Ok(()) } else { Err(Error::VersionMismatch { current }) }
    }
}

/// Precondition of a change, and its audit entry.
#[derive(Debug, Clone)]
pub struct WriteContext {
    /// The precondition.
    pub precondition: Precondition,
    /// Actor and action, for the audit log.
    pub audit: AuditAction,
}

/// A change by the host itself.
impl From<Precondition> for WriteContext {
    fn from(precondition: Precondition) -> Self {
        Self { precondition, audit: AuditAction::HOST }
    }
}

impl From<(Precondition, AuditAction)> for WriteContext {
    fn from((precondition, audit): (Precondition, AuditAction)) -> Self {
        Self { precondition, audit }
    }
}

/// The registry. Each `put_` creates or replaces a document and returns its new version; each `remove_` returns whether
/// the document existed. Both fail with [`Error::VersionMismatch`] if the precondition does not hold, and with
/// [`Error::NoTenant`] if the document's tenant does not exist. When they return, the change is durable and visible in
/// the snapshot and the audit log.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Store>);

impl Registry {
    /// The current configuration. Cheap; never blocks.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.shared().snapshot.load_full()
    }

    /// Signals each change of the registry with its revision.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.shared().revision.subscribe()
    }

    /// Creates or replaces a tenant. [`Error::Purging`] while an earlier tenant with that name is still being removed.
    pub async fn put_tenant(&self, tenant: Tenant, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::Tenant(tenant), context).await
    }

    /// Creates or replaces a source.
    pub async fn put_source(&self, source: Source, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::Source(source), context).await
    }

    /// Creates or replaces a filter. The components of its versions must be stored first ([`Blobs::put`](crate::Blobs::put)).
    pub async fn put_filter(&self, filter: Filter, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::Filter(filter), context).await
    }

    /// Creates or replaces a subscription. [`Error::FilterNotActive`] if its chain names a filter that does not exist or has no
    /// active version.
    pub async fn put_subscription(
        &self,
        subscription: Subscription,
        context: impl Into<WriteContext>,
    ) -> Result<u64, Error> {
        self.put(Doc::Subscription(Box::new(subscription)), context).await
    }

    /// Creates or replaces a table. Its rows must be stored first ([`Blobs::put`](crate::Blobs::put)).
    pub async fn put_table(&self, table: Table, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::Table(table), context).await
    }

    /// Creates or replaces an API key.
    pub async fn put_key(&self, key: ApiKey, context: impl Into<WriteContext>) -> Result<u64, Error> {
        self.put(Doc::Key(key), context).await
    }

    /// Adds a key and updates the key it replaces, in one transaction with one audit row. `context` applies to the old
    /// key; the new one must not exist. Returns the version of the new one.
    pub async fn rotate_key(&self, old: ApiKey, new: ApiKey, context: impl Into<WriteContext>) -> Result<u64, Error> {
        let (mut context, at) = (context.into(), self.0.clock().now());
        context.audit = context.audit.note(format!("replaced by {}", new.id));
        let quota = self.0.options().quota.clone();
        self.0
            .queue()
            .write(move |batch| {
                // A leaked key can be replaced regardless of quotas; the number of keys has a limit of its own.
                let made = write::put_without_audit(batch, Doc::Key(new), Precondition::Absent, None)?;
                write::put(batch, Doc::Key(old), context, &quota, at)?;
                Ok(made.version)
            })
            .await
    }

    /// Removes a source. Its events remain.
    pub async fn remove_source(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        context: impl Into<WriteContext>,
    ) -> Result<bool, Error> {
        self.remove(Name::Source(tenant.clone(), name.clone()), context).await
    }

    /// Removes a filter. [`Error::InUse`] if a subscription binds it. Deliveries that pinned a version of it keep that
    /// version.
    pub async fn remove_filter(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        context: impl Into<WriteContext>,
    ) -> Result<bool, Error> {
        self.remove(Name::Filter(tenant.clone(), name.clone()), context).await
    }

    /// Removes a subscription. Its deliveries remain unchanged; settling the due ones is up to the caller.
    pub async fn remove_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        context: impl Into<WriteContext>,
    ) -> Result<bool, Error> {
        self.remove(Name::Subscription(tenant.clone(), id), context).await
    }

    /// Removes a table. Deliveries that pinned its rows keep them.
    pub async fn remove_table(
        &self,
        tenant: &TenantId,
        name: &TableName,
        context: impl Into<WriteContext>,
    ) -> Result<bool, Error> {
        self.remove(Name::Table(tenant.clone(), name.clone()), context).await
    }

    /// Removes an API key.
    pub async fn remove_key(&self, id: KeyId, context: impl Into<WriteContext>) -> Result<bool, Error> {
        self.remove(Name::Key(id), context).await
    }

    async fn put(&self, doc: Doc, context: impl Into<WriteContext>) -> Result<u64, Error> {
        let (context, at) = (context.into(), self.0.clock().now());
        let quota = self.0.options().quota.clone();
        self.0.queue().write(move |batch| write::put(batch, doc, context, &quota, at)).await
    }

    pub(crate) async fn remove(&self, name: Name, context: impl Into<WriteContext>) -> Result<bool, Error> {
        let (context, at) = (context.into(), self.0.clock().now());
        self.0.queue().write(move |batch| write::remove(batch, name, context, at)).await
    }
}

impl Registry {
    /// The executed request of this claim, if any, and the totals of its tenant.
    pub async fn executed_request(
        &self,
        claim: &IdempotencyClaim,
    ) -> Result<(Option<idempotency::ExecutedRequest>, idempotency::StoredResponses), Error> {
        let (asked, since) = (claim.clone(), self.0.clock().now().plus_millis(-idempotency::IDEMPOTENCY_RETENTION_MS));
        let read = move |conn: &Connection| idempotency::find(conn, &asked, since);
        match &claim.tenant {
            Some(tenant) => self.0.readers().of(tenant).read(read).await,
            None => self.0.readers().read(read).await,
        }
    }

    /// Stores the response of an executed request. A request that changed nothing has no row: it gets one if
    /// `insert_missing` is set, and otherwise nothing is stored.
    pub async fn store_response(
        &self,
        claim: &IdempotencyClaim,
        response: Sealed,
        insert_missing: bool,
    ) -> Result<(), Error> {
        let (claim, at) = (claim.clone(), self.0.clock().now());
        self.0
            .queue()
            .write(move |batch| {
                if insert_missing {
                    idempotency::insert(batch.conn, &claim, at)?;
                }
                batch
                    .conn
                    .prepare_cached("UPDATE idempotency SET response = ?2, bytes = ?3 WHERE claim = ?1")?
                    .execute(params![claim.id, response.0, response.0.len() as i64])?;
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests;
