//! The control plane's documents: what tenants, sources, filters, subscriptions, keys and tables there are. All of
//! them are in memory as one immutable [`Snapshot`], replaced after each durable change.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::writer::Batch;
use super::{Error, Ledger, failing};
use crate::domain::filter::{Filter, Table};
use crate::domain::id::{FilterName, KeyId, SourceName, SubscriptionId, TableName, TenantId};
use crate::domain::source::Source;
use crate::domain::subscription::Subscription;
use crate::domain::tenant::{ApiKey, Tenant};

/// A document with its version. Versions rise over the whole ledger and are never used twice, so that a document made
/// anew under an old name does not answer to an old version.
#[derive(Debug, Clone, Serialize)]
pub struct Versioned<T> {
    /// The ledger's revision that wrote it.
    pub version: u64,
    /// The document.
    pub value: T,
}

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    Any,
    /// No document by that name.
    Absent,
    /// Exactly this version.
    Version(u64),
}

impl Expected {
    fn check(self, current: Option<u64>) -> Result<(), Error> {
        let met = match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Version(version) => current == Some(version),
        };
        if met { Ok(()) } else { Err(Error::VersionMismatch { current }) }
    }
}

/// Everything configured, as of one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Rises with each change.
    pub revision: u64,
    /// By name.
    pub tenants: BTreeMap<TenantId, Arc<TenantView>>,
    /// Every key, the operators' among them.
    pub keys: BTreeMap<KeyId, Arc<Versioned<ApiKey>>>,
}

/// One tenant with everything it has.
#[derive(Debug, Clone)]
pub struct TenantView {
    /// The tenant itself.
    pub tenant: Arc<Versioned<Tenant>>,
    /// By name.
    pub sources: BTreeMap<SourceName, Arc<Versioned<Source>>>,
    /// By name.
    pub filters: BTreeMap<FilterName, Arc<Versioned<Filter>>>,
    /// By id.
    pub subscriptions: BTreeMap<SubscriptionId, Arc<Versioned<Subscription>>>,
    /// By name.
    pub tables: BTreeMap<TableName, Arc<Versioned<Table>>>,
}

impl Snapshot {
    /// The tenant by that name, with everything it has.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&Arc<TenantView>> {
        self.tenants.get(tenant)
    }

    pub(super) fn load(conn: &Connection, revision: u64) -> Result<Self, Error> {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        // Tenants first: the rest is hung up under them.
        let mut statement = conn
            .prepare("SELECT kind, tenant, id, version, doc FROM entry ORDER BY kind <> 'tenant', kind, tenant, id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, tenant, id): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let corrupt = |why: String| Error::corrupt(format!("{kind} {tenant}/{id}: {why}"));
            let version = row.get::<_, i64>(3)?;
            let version = u64::try_from(version).map_err(|_| corrupt(format!("version {version}")))?;
            let doc = Doc::parse(&kind, row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)
                .map_err(|e| corrupt(e.to_string()))?
                .ok_or_else(|| corrupt("an unknown kind of document".into()))?;
            snapshot.put(doc, version);
        }
        Ok(snapshot)
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(doc, version) => {
                self.revision = self.revision.max(version);
                self.put(*doc, version);
            }
            Change::Remove(name, version) => {
                self.revision = self.revision.max(version);
                self.remove(&name);
            }
        }
    }

    fn put(&mut self, doc: Doc, version: u64) {
        match doc {
            Doc::Tenant(value) => {
                let id = value.id.clone();
                let tenant = Arc::new(Versioned { version, value });
                match self.tenants.get_mut(&id) {
                    Some(view) => Arc::make_mut(view).tenant = tenant,
                    None => {
                        let view = TenantView {
                            tenant,
                            sources: BTreeMap::new(),
                            filters: BTreeMap::new(),
                            subscriptions: BTreeMap::new(),
                            tables: BTreeMap::new(),
                        };
                        self.tenants.insert(id, Arc::new(view));
                    }
                }
            }
            Doc::Source(value) => self.under(&value.tenant.clone(), |view| {
                view.sources.insert(value.name.clone(), Arc::new(Versioned { version, value }));
            }),
            Doc::Filter(value) => self.under(&value.tenant.clone(), |view| {
                view.filters.insert(value.name.clone(), Arc::new(Versioned { version, value }));
            }),
            Doc::Subscription(value) => self.under(&value.tenant.clone(), |view| {
                view.subscriptions.insert(value.id, Arc::new(Versioned { version, value: *value }));
            }),
            Doc::Table(value) => self.under(&value.tenant.clone(), |view| {
                view.tables.insert(value.name.clone(), Arc::new(Versioned { version, value }));
            }),
            Doc::Key(value) => {
                self.keys.insert(value.id, Arc::new(Versioned { version, value }));
            }
        }
    }

    fn remove(&mut self, name: &Name) {
        match name {
            Name::Tenant(tenant) => {
                self.tenants.remove(tenant);
                self.keys.retain(|_, key| key.value.tenant.as_ref() != Some(tenant));
            }
            Name::Source(tenant, name) => self.under(tenant, |view| drop(view.sources.remove(name))),
            Name::Filter(tenant, name) => self.under(tenant, |view| drop(view.filters.remove(name))),
            Name::Subscription(tenant, id) => self.under(tenant, |view| drop(view.subscriptions.remove(id))),
            Name::Table(tenant, name) => self.under(tenant, |view| drop(view.tables.remove(name))),
            Name::Key(id) => drop(self.keys.remove(id)),
        }
    }

    fn under(&mut self, tenant: &TenantId, change: impl FnOnce(&mut TenantView)) {
        // A document without its tenant is never written; one left over would have no reader.
        if let Some(view) = self.tenants.get_mut(tenant) {
            change(Arc::make_mut(view));
        }
    }
}

/// A change of the registry, applied to memory after its commit.
pub(super) enum Change {
    Put(Box<Doc>, u64),
    Remove(Name, u64),
}

/// A document of any kind.
#[derive(Clone)]
pub(super) enum Doc {
    Tenant(Tenant),
    Source(Source),
    Filter(Filter),
    Subscription(Box<Subscription>),
    Table(Table),
    Key(ApiKey),
}

impl Doc {
    fn name(&self) -> Name {
        match self {
            Self::Tenant(t) => Name::Tenant(t.id.clone()),
            Self::Source(s) => Name::Source(s.tenant.clone(), s.name.clone()),
            Self::Filter(f) => Name::Filter(f.tenant.clone(), f.name.clone()),
            Self::Subscription(s) => Name::Subscription(s.tenant.clone(), s.id),
            Self::Table(t) => Name::Table(t.tenant.clone(), t.name.clone()),
            Self::Key(k) => Name::Key(k.id),
        }
    }

    /// The tenant that has to be there for the document to be.
    fn parent(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(_) => None,
            Self::Source(s) => Some(&s.tenant),
            Self::Filter(f) => Some(&f.tenant),
            Self::Subscription(s) => Some(&s.tenant),
            Self::Table(t) => Some(&t.tenant),
            Self::Key(k) => k.tenant.as_ref(),
        }
    }

    fn text(&self) -> serde_json::Result<String> {
        match self {
            Self::Tenant(t) => serde_json::to_string(t),
            Self::Source(s) => serde_json::to_string(s),
            Self::Filter(f) => serde_json::to_string(f),
            Self::Subscription(s) => serde_json::to_string(s),
            Self::Table(t) => serde_json::to_string(t),
            Self::Key(k) => serde_json::to_string(k),
        }
    }

    fn parse(kind: &str, text: &str) -> serde_json::Result<Option<Self>> {
        fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
            serde_json::from_str(text)
        }
        Ok(Some(match kind {
            "tenant" => Self::Tenant(read(text)?),
            "source" => Self::Source(read(text)?),
            "filter" => Self::Filter(read(text)?),
            "subscription" => Self::Subscription(read(text)?),
            "table" => Self::Table(read(text)?),
            "key" => Self::Key(read(text)?),
            _ => return Ok(None),
        }))
    }
}

/// What a document is found by.
#[derive(Clone)]
pub(super) enum Name {
    Tenant(TenantId),
    Source(TenantId, SourceName),
    Filter(TenantId, FilterName),
    Subscription(TenantId, SubscriptionId),
    Table(TenantId, TableName),
    Key(KeyId),
}

impl Name {
    /// The primary key: kind, tenant, id. Keys stand under no tenant, since they are looked up by id alone.
    fn columns(&self) -> (&'static str, &str, String) {
        match self {
            Self::Tenant(t) => ("tenant", t.as_str(), t.to_string()),
            Self::Source(t, name) => ("source", t.as_str(), name.to_string()),
            Self::Filter(t, name) => ("filter", t.as_str(), name.to_string()),
            Self::Subscription(t, id) => ("subscription", t.as_str(), id.to_string()),
            Self::Table(t, name) => ("table", t.as_str(), name.to_string()),
            Self::Key(id) => ("key", "", id.to_string()),
        }
    }
}

fn put(batch: &mut Batch<'_>, doc: Doc, expected: Expected) -> Result<u64, Error> {
    let conn = batch.conn;
    if let Some(tenant) = doc.parent()
        && current(conn, &Name::Tenant(tenant.clone()))?.is_none()
    {
        return Err(Error::NoTenant(tenant.clone()));
    }
    if let Doc::Tenant(tenant) = &doc {
        let purging = conn.prepare_cached("SELECT 1 FROM purge WHERE tenant = ?1")?.exists([&tenant.id])?;
        if purging {
            return Err(Error::Purging(tenant.id.clone()));
        }
    }
    let name = doc.name();
    expected.check(current(conn, &name)?)?;
    if let Doc::Subscription(subscription) = &doc {
        check_chain(conn, subscription)?;
        failing::over(conn, subscription.id)?;
    }
    let version = next_revision(conn)?;
    let (kind, tenant, id) = name.columns();
    let text = doc.text().map_err(|e| Error::Engine(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
    conn.prepare_cached("INSERT OR REPLACE INTO entry (kind, tenant, id, version, doc) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind, tenant, id, version.cast_signed(), text])?;
    batch.effects.change(Change::Put(Box::new(doc), version));
    Ok(version)
}

fn remove(batch: &mut Batch<'_>, name: Name, expected: Expected) -> Result<bool, Error> {
    let conn = batch.conn;
    let found = current(conn, &name)?;
    expected.check(found)?;
    if found.is_none() {
        return Ok(false);
    }
    if let Name::Filter(tenant, filter) = &name {
        check_unbound(conn, tenant, filter)?;
    }
    let version = next_revision(conn)?;
    if let Name::Subscription(_, subscription) = &name {
        failing::over(conn, *subscription)?;
    }
    if let Name::Tenant(tenant) = &name {
        failing::forget(conn, tenant)?;
        conn.execute("DELETE FROM entry WHERE tenant = ?1", [tenant])?;
        conn.execute("DELETE FROM entry WHERE kind = 'key' AND doc ->> 'tenant' = ?1", [tenant])?;
        conn.execute("INSERT OR IGNORE INTO purge VALUES (?1)", [tenant])?;
    } else {
        let (kind, tenant, id) = name.columns();
        conn.prepare_cached("DELETE FROM entry WHERE kind = ?1 AND tenant = ?2 AND id = ?3")?
            .execute(params![kind, tenant, id])?;
    }
    batch.effects.change(Change::Remove(name, version));
    Ok(true)
}

/// Every filter of the chain has an active version. Asked of the rows, since the snapshot lacks the changes of the
/// same batch.
fn check_chain(conn: &Connection, subscription: &Subscription) -> Result<(), Error> {
    for binding in &subscription.chain {
        let name = Name::Filter(subscription.tenant.clone(), binding.filter.clone());
        let (kind, tenant, id) = name.columns();
        let active = conn
            .prepare_cached(
                "SELECT 1 FROM entry WHERE kind = ?1 AND tenant = ?2 AND id = ?3 AND doc ->> 'active' IS NOT NULL",
            )?
            .exists(params![kind, tenant, id])?;
        if !active {
            return Err(Error::Unbound(binding.filter.clone()));
        }
    }
    Ok(())
}

/// No subscription of the tenant binds the filter; asked of the rows, as in [`check_chain`].
fn check_unbound(conn: &Connection, tenant: &TenantId, filter: &FilterName) -> Result<(), Error> {
    let subscription = conn
        .prepare_cached(
            "SELECT id FROM entry WHERE kind = 'subscription' AND tenant = ?1
                 AND EXISTS (SELECT 1 FROM json_each(doc, '$.chain') b WHERE b.value ->> 'filter' = ?2) LIMIT 1",
        )?
        .query_row(params![tenant, filter.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    match subscription {
        Some(id) => Err(Error::InUse(format!("the subscription `{id}` binds the filter `{filter}`: change it first"))),
        None => Ok(()),
    }
}

fn current(conn: &Connection, name: &Name) -> Result<Option<u64>, Error> {
    let (kind, tenant, id) = name.columns();
    let version = conn
        .prepare_cached("SELECT version FROM entry WHERE kind = ?1 AND tenant = ?2 AND id = ?3")?
        .query_row(params![kind, tenant, id], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(version.map(i64::cast_unsigned))
}

fn next_revision(conn: &Connection) -> Result<u64, Error> {
    let revision: i64 = conn
        .prepare_cached("UPDATE mark SET value = value + 1 WHERE name = 'revision' RETURNING value")?
        .query_row([], |row| row.get(0))?;
    Ok(revision.cast_unsigned())
}

/// The registry. Each `put_` makes or replaces a document and returns its new version; each `remove_` says whether
/// there was one. Both fail with [`Error::VersionMismatch`] where `expected` does not hold, and with
/// [`Error::NoTenant`] where the document's tenant is not there. Durable, and in the snapshot, when they return.
impl Ledger {
    /// Everything configured. Cheap; never waits.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared().snapshot.load_full()
    }

    /// Wakes after each change of the registry, with its revision.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared().revision.subscribe()
    }

    /// Makes or replaces a tenant. [`Error::Purging`] while an earlier tenant of that name is still being removed.
    pub async fn put_tenant(&self, tenant: Tenant, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Tenant(tenant), expected).await
    }

    /// Makes or replaces a source.
    pub async fn put_source(&self, source: Source, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Source(source), expected).await
    }

    /// Makes or replaces a filter. Its versions' components are put before, by [`Ledger::put_blob`].
    pub async fn put_filter(&self, filter: Filter, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Filter(filter), expected).await
    }

    /// Makes or replaces a subscription. [`Error::Unbound`] where its chain names a filter that is not there or has no
    /// active version.
    pub async fn put_subscription(&self, subscription: Subscription, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Subscription(Box::new(subscription)), expected).await
    }

    /// Makes or replaces a table. Its rows are put before, by [`Ledger::put_blob`].
    pub async fn put_table(&self, table: Table, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Table(table), expected).await
    }

    /// Makes or replaces an API key.
    pub async fn put_key(&self, key: ApiKey, expected: Expected) -> Result<u64, Error> {
        self.put(Doc::Key(key), expected).await
    }

    /// Removes a tenant with everything it has: documents and keys at once, then events and deliveries in chunks.
    /// Returns when all of it is gone; broken off, [`Ledger::retain`] goes on with it.
    pub async fn remove_tenant(&self, tenant: &TenantId, expected: Expected) -> Result<bool, Error> {
        let removed = self.remove(Name::Tenant(tenant.clone()), expected).await?;
        if removed {
            self.purge(tenant).await?;
        }
        Ok(removed)
    }

    /// Removes a source. Its events stay.
    pub async fn remove_source(&self, tenant: &TenantId, name: &SourceName, expected: Expected) -> Result<bool, Error> {
        self.remove(Name::Source(tenant.clone(), name.clone()), expected).await
    }

    /// Removes a filter; [`Error::InUse`] where a subscription binds it. Deliveries that pinned a version of it keep
    /// that version.
    pub async fn remove_filter(&self, tenant: &TenantId, name: &FilterName, expected: Expected) -> Result<bool, Error> {
        self.remove(Name::Filter(tenant.clone(), name.clone()), expected).await
    }

    /// Removes a subscription. Its deliveries stay as they are: settling those that are due is the caller's.
    pub async fn remove_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Expected,
    ) -> Result<bool, Error> {
        self.remove(Name::Subscription(tenant.clone(), id), expected).await
    }

    /// Removes a table. Deliveries that pinned its rows keep them.
    pub async fn remove_table(&self, tenant: &TenantId, name: &TableName, expected: Expected) -> Result<bool, Error> {
        self.remove(Name::Table(tenant.clone(), name.clone()), expected).await
    }

    /// Removes an API key.
    pub async fn remove_key(&self, id: KeyId, expected: Expected) -> Result<bool, Error> {
        self.remove(Name::Key(id), expected).await
    }

    async fn put(&self, doc: Doc, expected: Expected) -> Result<u64, Error> {
        self.queue().write(move |batch| put(batch, doc, expected)).await
    }

    async fn remove(&self, name: Name, expected: Expected) -> Result<bool, Error> {
        self.queue().write(move |batch| remove(batch, name, expected)).await
    }
}

#[cfg(test)]
mod tests;
