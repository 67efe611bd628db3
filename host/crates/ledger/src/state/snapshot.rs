//! The documents of the control plane in memory, as one immutable [`Snapshot`] that is replaced after each durable change.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use setgate_domain::audit::AuditObject;
use setgate_domain::filter::{Filter, Table};
use setgate_domain::id::{FilterName, IssuerKeyId, KeyId, SourceName, SubscriptionId, TableName, TenantId};
use setgate_domain::issuer_key::IssuerKey;
use setgate_domain::source::Source;
use setgate_domain::subscription::Subscription;
use setgate_domain::tenant::{ApiKey, Incarnation, Tenant};

use crate::Error;
use crate::state::document_usage::{DocumentUsage, MeasuredDocument};

/// A document with its version. Versions increase across the whole ledger and are never reused, so a document recreated
/// under an old name does not match an old version.
#[derive(Debug, Clone, Serialize)]
pub struct Versioned<T> {
    /// Revision of the ledger that wrote it.
    pub version: u64,
    /// Bytes of its text on disk.
    #[serde(skip)]
    pub bytes: usize,
    /// The document.
    pub value: T,
}

/// The whole configuration as of one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Increases with each change.
    pub revision: u64,
    /// Tenants by name.
    pub tenants: BTreeMap<TenantId, Arc<TenantView>>,
    /// All API keys, including the operator's.
    pub keys: BTreeMap<KeyId, Arc<Versioned<ApiKey>>>,
}

/// One tenant with all its documents.
#[derive(Debug, Clone)]
pub struct TenantView {
    /// The tenant itself.
    pub tenant: Arc<Versioned<Tenant>>,
    /// Memory used by its documents, including its keys.
    pub document_usage: DocumentUsage,
    /// Sources by name.
    pub sources: BTreeMap<SourceName, Arc<Versioned<Source>>>,
    /// Filters by name.
    pub filters: BTreeMap<FilterName, Arc<Versioned<Filter>>>,
    /// Subscriptions by id.
    pub subscriptions: BTreeMap<SubscriptionId, Arc<Versioned<Subscription>>>,
    /// Tables by name.
    pub tables: BTreeMap<TableName, Arc<Versioned<Table>>>,
    /// Issuer keys by id.
    pub issuer_keys: BTreeMap<IssuerKeyId, Arc<Versioned<IssuerKey>>>,
}

impl TenantView {
    /// See [`Incarnation`].
    pub fn incarnation(&self) -> Incarnation {
        self.tenant.value.incarnation()
    }
}

impl Snapshot {
    /// The tenant with that name and all its documents.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&Arc<TenantView>> {
        self.tenants.get(tenant)
    }

    /// A subscription of a tenant.
    pub fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Option<&Arc<Versioned<Subscription>>> {
        self.tenant(tenant)?.subscriptions.get(&id)
    }

    pub(crate) fn load(conn: &Connection, revision: u64) -> Result<Self, Error> {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        // Tenants first, because the other documents belong to them. Each query follows the primary key, which avoids
        // sorting.
        for of in ["kind = 'tenant'", "kind <> 'tenant'"] {
            let mut statement = conn.prepare(&format!(
                "SELECT kind, tenant, id, version, doc FROM document WHERE {of} ORDER BY kind, tenant, id"
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
                    .ok_or_else(|| corrupt("the kind of document is unknown".into()))?;
                snapshot.put(doc, version, text.len());
            }
        }
        Ok(snapshot)
    }

    pub(crate) fn apply(&mut self, change: Change) {
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
        doc.shrink();
        match doc {
            Doc::Tenant(value) => {
                let id = value.id.clone();
                let tenant = Arc::new(Versioned { version, bytes, value });
                match self.tenants.get_mut(&id) {
                    Some(view) => {
                        let view = Arc::make_mut(view);
                        view.document_usage += tenant.document_usage();
                        view.document_usage -= std::mem::replace(&mut view.tenant, tenant).document_usage();
                    }
                    None => {
                        let view = TenantView {
                            document_usage: tenant.document_usage(),
                            tenant,
                            sources: BTreeMap::new(),
                            filters: BTreeMap::new(),
                            subscriptions: BTreeMap::new(),
                            tables: BTreeMap::new(),
                            issuer_keys: BTreeMap::new(),
                        };
                        self.tenants.insert(id, Arc::new(view));
                    }
                }
            }
            Doc::Source(value) => self.update_tenant(&value.tenant.clone(), |view| {
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.document_usage, &mut view.sources, name, Some(new));
            }),
            Doc::Filter(value) => self.update_tenant(&value.tenant.clone(), |view| {
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.document_usage, &mut view.filters, name, Some(new));
            }),
            Doc::Subscription(value) => self.update_tenant(&value.tenant.clone(), |view| {
                let (id, new) = (value.id, Versioned { version, bytes, value: *value });
                replace(&mut view.document_usage, &mut view.subscriptions, id, Some(new));
            }),
            Doc::Table(value) => self.update_tenant(&value.tenant.clone(), |view| {
                let (name, new) = (value.name.clone(), Versioned { version, bytes, value });
                replace(&mut view.document_usage, &mut view.tables, name, Some(new));
            }),
            Doc::IssuerKey(value) => self.update_tenant(&value.tenant.clone(), |view| {
                let (kid, new) = (value.kid.clone(), Versioned { version, bytes, value });
                replace(&mut view.document_usage, &mut view.issuer_keys, kid, Some(new));
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
                self.update_tenant(tenant, |view| {
                    replace(&mut view.document_usage, &mut view.sources, name.clone(), None)
                });
            }
            Name::Filter(tenant, name) => {
                self.update_tenant(tenant, |view| {
                    replace(&mut view.document_usage, &mut view.filters, name.clone(), None)
                });
            }
            Name::Subscription(tenant, id) => {
                self.update_tenant(tenant, |view| {
                    replace(&mut view.document_usage, &mut view.subscriptions, *id, None)
                });
            }
            Name::Table(tenant, name) => {
                self.update_tenant(tenant, |view| {
                    replace(&mut view.document_usage, &mut view.tables, name.clone(), None)
                });
            }
            Name::IssuerKey(tenant, kid) => {
                self.update_tenant(tenant, |view| {
                    replace(&mut view.document_usage, &mut view.issuer_keys, kid.clone(), None)
                });
            }
            Name::Key(id) => {
                let tenant = self.keys.get(id).and_then(|key| key.value.tenant.clone());
                self.replace_key(*id, tenant, None);
            }
        }
    }

    /// Keys are stored outside the tenants, because they are looked up by id alone, but count towards their tenant's
    /// documents.
    fn replace_key(&mut self, id: KeyId, tenant: Option<TenantId>, new: Option<Versioned<ApiKey>>) {
        let mut usage = DocumentUsage::default();
        replace(&mut usage, &mut self.keys, id, new);
        if let Some(tenant) = tenant {
            self.update_tenant(&tenant, |view| view.document_usage += usage);
        }
    }

    fn update_tenant(&mut self, tenant: &TenantId, change: impl FnOnce(&mut TenantView)) {
        // A document is never written without its tenant; a leftover one would have no reader.
        if let Some(view) = self.tenants.get_mut(tenant) {
            change(Arc::make_mut(view));
        }
    }
}

/// Replaces or removes a document and updates the tenant's usage.
fn replace<K: Ord, T>(
    usage: &mut DocumentUsage,
    documents: &mut BTreeMap<K, Arc<Versioned<T>>>,
    key: K,
    new: Option<Versioned<T>>,
) where
    Versioned<T>: MeasuredDocument,
{
    let before = match new {
        Some(new) => {
            *usage += new.document_usage();
            documents.insert(key, Arc::new(new))
        }
        None => documents.remove(&key),
    };
    if let Some(before) = before {
        *usage -= before.document_usage();
    }
}

/// A change of the registry, applied to memory after its commit.
pub(crate) enum Change {
    /// A document, its version and the size of its text.
    Put(Box<Doc>, u64, usize),
    Remove(Name, u64),
}

#[derive(Clone)]
pub(crate) enum Doc {
    Tenant(Tenant),
    Source(Source),
    Filter(Filter),
    Subscription(Box<Subscription>),
    Table(Table),
    IssuerKey(IssuerKey),
    Key(ApiKey),
}

impl Doc {
    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Tenant(t) => Name::Tenant(t.id.clone()),
            Self::Source(s) => Name::Source(s.tenant.clone(), s.name.clone()),
            Self::Filter(f) => Name::Filter(f.tenant.clone(), f.name.clone()),
            Self::Subscription(s) => Name::Subscription(s.tenant.clone(), s.id),
            Self::Table(t) => Name::Table(t.tenant.clone(), t.name.clone()),
            Self::IssuerKey(k) => Name::IssuerKey(k.tenant.clone(), k.kid.clone()),
            Self::Key(k) => Name::Key(k.id),
        }
    }

    /// Releases the spare capacity of its lists. A list of one element read from JSON has capacity for four, and
    /// documents stay in memory for as long as the host runs.
    pub(crate) fn shrink(&mut self) {
        match self {
            Self::Tenant(_) | Self::Table(_) | Self::IssuerKey(_) | Self::Key(_) => {}
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
                if let Some(signing) = &mut s.signing {
                    signing.keys.shrink_to_fit();
                }
            }
        }
    }

    /// The tenant that must exist for this document.
    pub(crate) fn parent(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(_) => None,
            Self::Source(s) => Some(&s.tenant),
            Self::Filter(f) => Some(&f.tenant),
            Self::Subscription(s) => Some(&s.tenant),
            Self::Table(t) => Some(&t.tenant),
            Self::IssuerKey(k) => Some(&k.tenant),
            Self::Key(k) => k.tenant.as_ref(),
        }
    }

    /// Owner of the document. `None` if it belongs to the operator.
    pub(crate) fn owner(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(t) => Some(t.id.clone()),
            other => other.parent().cloned(),
        }
    }

    /// Reason of the pause, if it is a paused subscription.
    pub(crate) fn paused(&self) -> Option<&str> {
        match self {
            Self::Subscription(s) => s.paused.as_ref().map(|pause| pause.reason.as_str()),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> serde_json::Result<String> {
        match self {
            Self::Tenant(t) => serde_json::to_string(t),
            Self::Source(s) => serde_json::to_string(s),
            Self::Filter(f) => serde_json::to_string(f),
            Self::Subscription(s) => serde_json::to_string(s),
            Self::Table(t) => serde_json::to_string(t),
            Self::IssuerKey(k) => serde_json::to_string(k),
            Self::Key(k) => serde_json::to_string(k),
        }
    }

    pub(crate) fn parse(kind: &str, text: &str) -> serde_json::Result<Option<Self>> {
        fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
            serde_json::from_str(text)
        }
        Ok(Some(match kind {
            "tenant" => Self::Tenant(read(text)?),
            "source" => Self::Source(read(text)?),
            "filter" => Self::Filter(read(text)?),
            "subscription" => Self::Subscription(read(text)?),
            "table" => Self::Table(read(text)?),
            "issuer_key" => Self::IssuerKey(read(text)?),
            "key" => Self::Key(read(text)?),
            _ => return Ok(None),
        }))
    }
}

/// Name of a document of any kind.
#[derive(Clone)]
pub(crate) enum Name {
    Tenant(TenantId),
    Source(TenantId, SourceName),
    Filter(TenantId, FilterName),
    Subscription(TenantId, SubscriptionId),
    Table(TenantId, TableName),
    IssuerKey(TenantId, IssuerKeyId),
    Key(KeyId),
}

impl Name {
    /// The primary key: kind, tenant, id. API keys have an empty tenant, because they are looked up by id alone.
    pub(crate) fn columns(&self) -> (&'static str, &str, String) {
        match self {
            Self::Tenant(t) => ("tenant", t.as_str(), t.to_string()),
            Self::Source(t, name) => ("source", t.as_str(), name.to_string()),
            Self::Filter(t, name) => ("filter", t.as_str(), name.to_string()),
            Self::Subscription(t, id) => ("subscription", t.as_str(), id.to_string()),
            Self::Table(t, name) => ("table", t.as_str(), name.to_string()),
            Self::IssuerKey(t, kid) => ("issuer_key", t.as_str(), kid.to_string()),
            Self::Key(id) => ("key", "", id.to_string()),
        }
    }

    pub(crate) fn object(&self) -> AuditObject {
        let (kind, _, id) = self.columns();
        AuditObject { kind: kind.to_owned(), id }
    }

    /// Owner of a document with this name and text. `None` if it belongs to the operator.
    pub(crate) fn owner(&self, text: &str) -> Option<TenantId> {
        match self {
            Self::Tenant(t)
            | Self::Source(t, _)
            | Self::Filter(t, _)
            | Self::Subscription(t, _)
            | Self::Table(t, _)
            | Self::IssuerKey(t, _) => Some(t.clone()),
            Self::Key(_) => serde_json::from_str::<ApiKey>(text).ok().and_then(|key| key.tenant),
        }
    }
}
