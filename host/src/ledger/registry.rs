//! The control plane's documents: what tenants, sources, filters, subscriptions, keys and tables there are. All of
//! them are in memory as one immutable [`Snapshot`], replaced after each durable change.

mod weight;
pub(super) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Ledger};
use crate::domain::audit::{Deed, Object};
use crate::domain::filter::{Filter, Table};
use crate::domain::id::{FilterName, KeyId, SourceName, SubscriptionId, TableName, TenantId};
use crate::domain::source::Source;
use crate::domain::subscription::Subscription;
use crate::domain::tenant::{ApiKey, Incarnation, Tenant};

use weight::Weighed;
pub use weight::{DOCUMENT_BYTES, DOCUMENT_BYTES_MAX, Weight};

/// A document with its version. Versions rise over the whole ledger and are never used twice, so that a document made
/// anew under an old name does not answer to an old version.
#[derive(Debug, Clone, Serialize)]
pub struct Versioned<T> {
    /// The ledger's revision that wrote it.
    pub version: u64,
    /// Bytes of its text on disk.
    #[serde(skip)]
    pub bytes: usize,
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

/// What a change expects to find, and what the audit log says of it.
#[derive(Debug, Clone)]
pub struct Intent {
    /// What it expects to find.
    pub expected: Expected,
    /// On whose behalf, and how it is called.
    pub deed: Deed,
}

/// A change by the host itself.
impl From<Expected> for Intent {
    fn from(expected: Expected) -> Self {
        Self { expected, deed: Deed::UNNAMED }
    }
}

impl From<(Expected, Deed)> for Intent {
    fn from((expected, deed): (Expected, Deed)) -> Self {
        Self { expected, deed }
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
    /// What all its documents come to, its keys among them.
    pub weight: Weight,
    /// By name.
    pub sources: BTreeMap<SourceName, Arc<Versioned<Source>>>,
    /// By name.
    pub filters: BTreeMap<FilterName, Arc<Versioned<Filter>>>,
    /// By id.
    pub subscriptions: BTreeMap<SubscriptionId, Arc<Versioned<Subscription>>>,
    /// By name.
    pub tables: BTreeMap<TableName, Arc<Versioned<Table>>>,
}

impl TenantView {
    /// See [`Incarnation`].
    pub fn incarnation(&self) -> Incarnation {
        self.tenant.value.incarnation()
    }
}

impl Snapshot {
    /// The tenant by that name, with everything it has.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&Arc<TenantView>> {
        self.tenants.get(tenant)
    }

    pub(super) fn load(conn: &Connection, revision: u64) -> Result<Self, Error> {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        // Tenants first: the rest is hung up under them. Each in the order of the key, which nothing has to be sorted for.
        for of in ["kind = 'tenant'", "kind <> 'tenant'"] {
            let mut statement = conn.prepare(&format!(
                "SELECT kind, tenant, id, version, doc FROM entry WHERE {of} ORDER BY kind, tenant, id"
            ))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |at| -> rusqlite::Result<&str> { Ok(row.get_ref(at)?.as_str()?) };
                let (kind, tenant, id) = (text(0)?, text(1)?, text(2)?);
                let corrupt = |why: String| Error::corrupt(format!("{kind} {tenant}/{id}: {why}"));
                let version = row.get::<_, i64>(3)?;
                let version = u64::try_from(version).map_err(|_| corrupt(format!("version {version}")))?;
                let text = text(4)?;
                let doc = Doc::parse(kind, text)
                    .map_err(|e| corrupt(e.to_string()))?
                    .ok_or_else(|| corrupt("an unknown kind of document".into()))?;
                snapshot.put(doc, version, text.len());
            }
        }
        Ok(snapshot)
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(doc, version, bytes) => {
                self.revision = self.revision.max(version);
                self.put(*doc, version, bytes);
            }
            Change::Remove(name, version) => {
                self.revision = self.revision.max(version);
                self.remove(&name);
            }
        }
    }

    fn put(&mut self, mut doc: Doc, version: u64, bytes: usize) {
        doc.fit();
        match doc {
            Doc::Tenant(value) => {
                let id = value.id.clone();
                let tenant = Arc::new(Versioned { version, bytes, value });
                match self.tenants.get_mut(&id) {
                    Some(view) => {
                        let view = Arc::make_mut(view);
                        view.weight += tenant.weight();
                        view.weight -= std::mem::replace(&mut view.tenant, tenant).weight();
                    }
                    None => {
                        let view = TenantView {
                            weight: tenant.weight(),
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
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.weight, &mut view.sources, name, Some(new));
            }),
            Doc::Filter(value) => self.under(&value.tenant.clone(), |view| {
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.weight, &mut view.filters, name, Some(new));
            }),
            Doc::Subscription(value) => self.under(&value.tenant.clone(), |view| {
                let (id, new) = (value.id, Versioned { version, bytes, value: *value });
                replace(&mut view.weight, &mut view.subscriptions, id, Some(new));
            }),
            Doc::Table(value) => self.under(&value.tenant.clone(), |view| {
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.weight, &mut view.tables, name, Some(new));
            }),
            Doc::Key(value) => {
                let (id, tenant) = (value.id, value.tenant.clone());
                self.replace_key(id, tenant, Some(Versioned { version, bytes, value }));
            }
        }
    }

    fn remove(&mut self, name: &Name) {
        match name {
            Name::Tenant(tenant) => {
                self.tenants.remove(tenant);
                self.keys.retain(|_, key| key.value.tenant.as_ref() != Some(tenant));
            }
            Name::Source(tenant, name) => {
                self.under(tenant, |view| replace(&mut view.weight, &mut view.sources, name.clone(), None));
            }
            Name::Filter(tenant, name) => {
                self.under(tenant, |view| replace(&mut view.weight, &mut view.filters, name.clone(), None));
            }
            Name::Subscription(tenant, id) => {
                self.under(tenant, |view| replace(&mut view.weight, &mut view.subscriptions, *id, None));
            }
            Name::Table(tenant, name) => {
                self.under(tenant, |view| replace(&mut view.weight, &mut view.tables, name.clone(), None));
            }
            Name::Key(id) => {
                let tenant = self.keys.get(id).and_then(|key| key.value.tenant.clone());
                self.replace_key(*id, tenant, None);
            }
        }
    }

    /// Keys are looked up by id alone, and weigh on their tenant all the same.
    fn replace_key(&mut self, id: KeyId, tenant: Option<TenantId>, new: Option<Versioned<ApiKey>>) {
        let mut weight = Weight::default();
        replace(&mut weight, &mut self.keys, id, new);
        if let Some(tenant) = tenant {
            self.under(&tenant, |view| view.weight += weight);
        }
    }

    fn under(&mut self, tenant: &TenantId, change: impl FnOnce(&mut TenantView)) {
        // A document without its tenant is never written; one left over would have no reader.
        if let Some(view) = self.tenants.get_mut(tenant) {
            change(Arc::make_mut(view));
        }
    }
}

/// Puts a document in the place of the one that was there, or takes that one away, and keeps the weight in step.
fn replace<K: Ord, T>(
    weight: &mut Weight,
    documents: &mut BTreeMap<K, Arc<Versioned<T>>>,
    key: K,
    new: Option<Versioned<T>>,
) where
    Versioned<T>: Weighed,
{
    let before = match new {
        Some(new) => {
            *weight += new.weight();
            documents.insert(key, Arc::new(new))
        }
        None => documents.remove(&key),
    };
    if let Some(before) = before {
        *weight -= before.weight();
    }
}

/// A change of the registry, applied to memory after its commit.
pub(super) enum Change {
    /// A document, its version and the bytes of its text.
    Put(Box<Doc>, u64, usize),
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

    /// Gives back the room that its lists have left over. What is read from JSON has room for four where there is one, and
    /// each document is kept for as long as the host runs.
    fn fit(&mut self) {
        match self {
            Self::Tenant(_) | Self::Table(_) | Self::Key(_) => {}
            Self::Source(s) => {
                s.proofs.shrink_to_fit();
                s.issuers_allowed.shrink_to_fit();
                s.websub_topics.shrink_to_fit();
            }
            Self::Filter(f) => {
                f.versions.shrink_to_fit();
                f.previous.shrink_to_fit();
            }
            Self::Subscription(s) => {
                s.events.shrink_to_fit();
                s.sources.shrink_to_fit();
                s.chain.shrink_to_fit();
                s.signing.keys.shrink_to_fit();
            }
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

    /// Whose it is; none: the operator's.
    fn owner(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(t) => Some(t.id.clone()),
            other => other.parent().cloned(),
        }
    }

    /// Why it sends nothing, where it is a subscription that is paused.
    fn paused(&self) -> Option<&str> {
        match self {
            Self::Subscription(s) => s.paused.as_ref().map(|pause| pause.reason.as_str()),
            _ => None,
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

    fn object(&self) -> Object {
        let (kind, _, id) = self.columns();
        Object { kind: kind.to_owned(), id }
    }

    /// Whose the document of this name and text was; none: the operator's.
    fn owner(&self, text: &str) -> Option<TenantId> {
        match self {
            Self::Tenant(t)
            | Self::Source(t, _)
            | Self::Filter(t, _)
            | Self::Subscription(t, _)
            | Self::Table(t, _) => Some(t.clone()),
            Self::Key(_) => serde_json::from_str::<ApiKey>(text).ok().and_then(|key| key.tenant),
        }
    }
}

/// The registry. Each `put_` makes or replaces a document and returns its new version; each `remove_` says whether
/// there was one. Both fail with [`Error::VersionMismatch`] where what they expect does not hold, and with
/// [`Error::NoTenant`] where the document's tenant is not there. Durable, in the snapshot and in the audit log, when they
/// return.
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
    pub async fn put_tenant(&self, tenant: Tenant, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Tenant(tenant), intent).await
    }

    /// Makes or replaces a source.
    pub async fn put_source(&self, source: Source, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Source(source), intent).await
    }

    /// Makes or replaces a filter. Its versions' components are put before, by [`Ledger::put_blob`].
    pub async fn put_filter(&self, filter: Filter, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Filter(filter), intent).await
    }

    /// Makes or replaces a subscription. [`Error::Unbound`] where its chain names a filter that is not there or has no
    /// active version.
    pub async fn put_subscription(&self, subscription: Subscription, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Subscription(Box::new(subscription)), intent).await
    }

    /// Makes or replaces a table. Its rows are put before, by [`Ledger::put_blob`].
    pub async fn put_table(&self, table: Table, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Table(table), intent).await
    }

    /// Makes or replaces an API key.
    pub async fn put_key(&self, key: ApiKey, intent: impl Into<Intent>) -> Result<u64, Error> {
        self.put(Doc::Key(key), intent).await
    }

    /// Puts a key beside the one whose place it takes, which is changed at the same time: both or neither, and one row
    /// of the audit log. `intent` is for the old one; the new one must not be there. Returns the version of the new one.
    pub async fn rotate_key(&self, old: ApiKey, new: ApiKey, intent: impl Into<Intent>) -> Result<u64, Error> {
        let (mut intent, at) = (intent.into(), self.clock().now());
        intent.deed = intent.deed.note(format!("in its place: {}", new.id));
        let quota = self.options().quota.clone();
        self.queue()
            .write(move |batch| {
                // A key that leaked is replaced over any quota; how many there may be is bounded by itself.
                let made = write::put_silently(batch, Doc::Key(new), Expected::Absent, None)?;
                write::put(batch, Doc::Key(old), intent, &quota, at)?;
                Ok(made.version)
            })
            .await
    }

    /// Removes a tenant with everything it has: documents and keys at once, then events and deliveries in chunks.
    /// Returns when all of it is gone; broken off, [`Ledger::retain`] goes on with it.
    pub async fn remove_tenant(&self, tenant: &TenantId, intent: impl Into<Intent>) -> Result<bool, Error> {
        let removed = self.remove(Name::Tenant(tenant.clone()), intent).await?;
        if removed {
            self.purge(tenant).await?;
        }
        Ok(removed)
    }

    /// Removes a source. Its events stay.
    pub async fn remove_source(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        intent: impl Into<Intent>,
    ) -> Result<bool, Error> {
        self.remove(Name::Source(tenant.clone(), name.clone()), intent).await
    }

    /// Removes a filter; [`Error::InUse`] where a subscription binds it. Deliveries that pinned a version of it keep
    /// that version.
    pub async fn remove_filter(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        intent: impl Into<Intent>,
    ) -> Result<bool, Error> {
        self.remove(Name::Filter(tenant.clone(), name.clone()), intent).await
    }

    /// Removes a subscription. Its deliveries stay as they are: settling those that are due is the caller's.
    pub async fn remove_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        intent: impl Into<Intent>,
    ) -> Result<bool, Error> {
        self.remove(Name::Subscription(tenant.clone(), id), intent).await
    }

    /// Removes a table. Deliveries that pinned its rows keep them.
    pub async fn remove_table(
        &self,
        tenant: &TenantId,
        name: &TableName,
        intent: impl Into<Intent>,
    ) -> Result<bool, Error> {
        self.remove(Name::Table(tenant.clone(), name.clone()), intent).await
    }

    /// Removes an API key.
    pub async fn remove_key(&self, id: KeyId, intent: impl Into<Intent>) -> Result<bool, Error> {
        self.remove(Name::Key(id), intent).await
    }

    async fn put(&self, doc: Doc, intent: impl Into<Intent>) -> Result<u64, Error> {
        let (intent, at) = (intent.into(), self.clock().now());
        let quota = self.options().quota.clone();
        self.queue().write(move |batch| write::put(batch, doc, intent, &quota, at)).await
    }

    async fn remove(&self, name: Name, intent: impl Into<Intent>) -> Result<bool, Error> {
        let (intent, at) = (intent.into(), self.clock().now());
        self.queue().write(move |batch| write::remove(batch, name, intent, at)).await
    }
}

#[cfg(test)]
mod tests;
