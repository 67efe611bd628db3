//! Lookup tables of a tenant: uploaded completely as JSON lines or CSV, versioned, and replaced atomically.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_domain::audit::{Actor, AuditAction};
use setgate_domain::filter::{Table, TableFormat, TableVersion};
use setgate_domain::id::{Digest, TableName, TenantId};
use setgate_domain::table::{self, Delimiter};
use setgate_domain::tenant::Quota;
use setgate_domain::text::strip_bom;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Blobs, Plans, Registry, TenantView, Usage};

use super::checks::{
    check_quota, check_space, check_version, expect_any, expect_version, find_tenant, quota_of, retried,
};
use super::versions::{InUse, VERSIONS_KEPT, VersionPlace, Versions as _};
use super::{Error, Page, PageQuery};

/// A table as returned by the API.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Table`")]
pub struct TableView {
    /// The version of the document, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    pub name: TableName,
    /// The active version.
    pub digest: Digest,
    pub rows: u64,
    pub uploaded_at: Timestamp,
    /// The version that a rollback would activate.
    pub previous: Option<Digest>,
    pub versions: Vec<TableVersionView>,
}

/// A table version as returned by the API.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `TableVersion`")]
pub struct TableVersionView {
    #[serde(flatten)]
    pub version: TableVersion,
    pub active: bool,
}

/// The lookup tables of all tenants.
#[derive(Clone)]
pub struct Tables {
    pub(super) registry: Registry,
    pub(super) blobs: Blobs,
    pub(super) plans: Plans,
    pub(super) usage: Usage,
    pub(super) clock: Clock,
    pub(super) default_quota: Live<Quota>,
}

impl Tables {
    /// Stores a table and activates it. New deliveries use it, and pending deliveries keep their pinned version. A
    /// repeated upload of the same rows results in the same version. The returned flag is true if the version is new.
    pub async fn put(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: TableName,
        upload: Bytes,
        (format, delimiter): (TableFormat, Option<Delimiter>),
        expected: Option<u64>,
    ) -> Result<(TableView, bool), Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let quota = quota_of(&self.default_quota, &view);
        if !view.tables.contains_key(&name) {
            check_quota(view.tables.len(), quota.tables_max, "tables_max")?;
        }
        check_space(&self.usage, tenant, &quota, upload.len())?;
        let bytes_max = quota.table_bytes_max;
        if upload.len() as u64 > bytes_max {
            let why =
                format!("the table has {} bytes: the tenant's quota `table_bytes_max` is {bytes_max}", upload.len());
            return Err(Error::Conflict(why));
        }
        let (rows, count) = read_table(upload, (format, delimiter), bytes_max).await?;
        let new = TableVersion {
            digest: Digest(crypto::sha256(&rows)),
            rows: count,
            bytes: rows.len() as u64,
            format,
            uploaded_at: self.clock.now(),
        };
        self.check_room(&view, &with_version(&view, tenant, name.clone(), new.clone()))?;
        self.blobs.put(tenant, rows).await?;
        retried(expected, || async {
            // Read again, because parsing and storing the rows takes time.
            let view = find_tenant(&self.registry, tenant)?;
            let table = with_version(&view, tenant, name.clone(), new.clone());
            self.check_room(&view, &table)?;
            let audit = actor.action("table.upload").note(table.digest.to_string());
            let stored = view.tables.get(&table.name);
            let is_new = stored.is_none_or(|stored| !stored.value.digests().any(|known| known == table.digest));
            let version = self.registry.put_table(table.clone(), (expect_version(expected, stored), audit)).await?;
            Ok((show(&table, version), is_new))
        })
        .await
    }

    /// A tenant's tables, by name.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<TableView>, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        page.of(view.tables.iter().map(|(name, stored)| (name.clone(), stored)), |stored| {
            show(&stored.value, stored.version)
        })
    }

    /// Returns one table.
    pub fn show(&self, tenant: &TenantId, name: &TableName) -> Result<TableView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        view.tables.get(name).map(|table| show(&table.value, table.version)).ok_or_else(|| not_found(name))
    }

    /// Activates a stored version for new deliveries.
    pub async fn activate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &TableName,
        digest: Digest,
        expected: Option<u64>,
    ) -> Result<TableView, Error> {
        self.change(&actor.action("table.activate"), tenant, name, expected, |table| {
            if set_active(table, digest) {
                return Ok(());
            }
            Err(Error::NotFound(format!("version {digest} of table `{name}`")))
        })
        .await
    }

    /// Activates the previously active version again.
    pub async fn roll_back(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &TableName,
        expected: Option<u64>,
    ) -> Result<TableView, Error> {
        self.change(&actor.action("table.rollback"), tenant, name, expected, |table| {
            let previous = table.previous.pop();
            // The version that is rolled back must not become the target of the next rollback.
            let before = table.previous.clone();
            if !previous.is_some_and(|digest| set_active(table, digest)) {
                return Err(Error::Conflict(format!(
                    "no version of table `{name}` that is kept was active before this one"
                )));
            }
            table.previous = before;
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        action: &AuditAction,
        tenant: &TenantId,
        name: &TableName,
        expected: Option<u64>,
        change: impl Fn(&mut Table) -> Result<(), Error>,
    ) -> Result<TableView, Error> {
        let change = &change;
        retried(expected, || async move {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = view.tables.get(name).ok_or_else(|| not_found(name))?;
            let mut table = stored.value.clone();
            table.versions = table.retained_versions();
            change(&mut table)?;
            self.check_room(&view, &table)?;
            let audit = action.clone().note(table.digest.to_string());
            let version =
                self.registry.put_table(table.clone(), (expect_version(expected, Some(stored)), audit)).await?;
            Ok(show(&table, version))
        })
        .await
    }

    /// A table's versions, oldest first.
    pub fn list_versions(
        &self,
        tenant: &TenantId,
        name: &TableName,
        page: &PageQuery,
    ) -> Result<Page<TableVersionView>, Error> {
        let mut versions = self.show(tenant, name)?.versions;
        let place =
            |view: &TableVersionView| VersionPlace { at: view.version.uploaded_at, digest: view.version.digest };
        versions.sort_by_key(place);
        page.of(versions.into_iter().map(|version| (place(&version), version)), |version| version)
    }

    /// Removes a version that is not in use.
    pub async fn remove_version(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &TableName,
        digest: Digest,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        retried(expected, || async {
            let view = find_tenant(&self.registry, tenant)?;
            let stored = view.tables.get(name).ok_or_else(|| not_found(name))?;
            let mut table = stored.value.clone();
            table.versions = table.retained_versions();
            check_version(expected, stored.version)?;
            let used = self.plans.table_versions_in_use(tenant).await?.remove(name.as_str()).unwrap_or_default();
            table.remove(&digest, &used, format_args!("table `{name}`"))?;
            let audit = actor.action("table.remove_version").note(digest.to_string());
            self.registry.put_table(table, (expect_version(expected, Some(stored)), audit)).await?;
            Ok(())
        })
        .await
    }

    /// Removes a table. Pending deliveries keep their pinned version.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &TableName,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !find_tenant(&self.registry, tenant)?.tables.contains_key(name) {
            return Err(not_found(name));
        }
        self.registry.remove_table(tenant, name, (expect_any(expected), actor.action("table.remove"))).await?;
        Ok(())
    }

    /// Checks the quotas: one for all versions of all tables, and one for the active versions.
    fn check_room(&self, view: &TenantView, table: &Table) -> Result<(), Error> {
        let bytes = |table: &Table| table.versions.iter().map(|version| version.bytes).sum::<u64>();
        let others = view.tables.values().filter(|other| other.value.name != table.name);
        let stored = others.map(|other| bytes(&other.value)).sum::<u64>().saturating_add(bytes(table));
        let quota = quota_of(&self.default_quota, view);
        let max = quota.tables_bytes_max;
        if stored > max {
            return Err(Error::Conflict(format!(
                "all versions of the tables would come to {stored} bytes: the tenant's quota `tables_bytes_max` is {max}; \
                 remove a table that is not needed"
            )));
        }
        // Old versions without a recorded size count as 0. They are small, because uploads were limited.
        let active = |table: &Table| table.versions.iter().find(|v| v.digest == table.digest).map_or(0, |v| v.bytes);
        let others = view.tables.values().filter(|other| other.value.name != table.name);
        let in_use = others.map(|other| active(&other.value)).sum::<u64>().saturating_add(active(table));
        let max = quota.tables_active_bytes_max;
        if in_use > max {
            return Err(Error::Conflict(format!(
                "the active versions of the tables would come to {in_use} bytes: the tenant's quota \
                 `tables_active_bytes_max` is {max}"
            )));
        }
        Ok(())
    }
}

/// Converts an upload to the stored format and counts its rows. Runs on a blocking thread, because the upload may
/// have megabytes.
async fn read_table(
    upload: Bytes,
    (format, delimiter): (TableFormat, Option<Delimiter>),
    bytes_max: u64,
) -> Result<(Bytes, u64), Error> {
    let reading = tokio::task::spawn_blocking(move || {
        let rows = match format {
            TableFormat::JsonLines => upload.slice_ref(strip_bom(&upload)),
            TableFormat::Csv => table::from_csv(&upload, delimiter, bytes_max)?.into(),
        };
        let count = table::parse(&rows)?.len() as u64;
        Ok((rows, count))
    });
    let read = reading.await.map_err(|error| Error::Conflict(format!("the table could not be read: {error}")))?;
    read.map_err(|why: String| Error::invalid("body", why))
}

/// The table with a new active version, and without the versions that are no longer retained.
fn with_version(view: &TenantView, tenant: &TenantId, name: TableName, new: TableVersion) -> Table {
    let digest = new.digest;
    let Some(stored) = view.tables.get(&name) else {
        let TableVersion { rows, uploaded_at, .. } = new;
        let (tenant, previous, versions) = (tenant.clone(), Vec::new(), vec![new]);
        return Table { tenant, name, digest, rows, uploaded_at, previous, versions };
    };
    let mut table = stored.value.clone();
    table.versions = table.retained_versions();
    if !table.versions.iter().any(|version| version.digest == digest) {
        table.versions.push(new);
    }
    set_active(&mut table, digest);
    // Deliveries that pinned a version retain its rows even if the table no longer lists it.
    table.prune(&InUse::new());
    table
}

/// Activates a version. Returns false if it does not exist.
fn set_active(table: &mut Table, digest: Digest) -> bool {
    let Some(version) = table.versions.iter().find(|version| version.digest == digest) else { return false };
    if table.digest != digest {
        table.previous.push(table.digest);
        if table.previous.len() > VERSIONS_KEPT {
            table.previous.remove(0);
        }
    }
    (table.digest, table.rows, table.uploaded_at) = (digest, version.rows, version.uploaded_at);
    true
}

fn not_found(name: &TableName) -> Error {
    Error::NotFound(format!("table `{name}`"))
}

fn show(table: &Table, version: u64) -> TableView {
    let views = table
        .retained_versions()
        .into_iter()
        .map(|version| TableVersionView { active: version.digest == table.digest, version });
    TableView {
        version,
        name: table.name.clone(),
        digest: table.digest,
        rows: table.rows,
        uploaded_at: table.uploaded_at,
        previous: table.previous.last().copied(),
        versions: views.collect(),
    }
}
