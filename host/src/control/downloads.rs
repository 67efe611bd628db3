//! Downloads of filter components and table rows.

use bytes::Bytes;
use setgate_domain::id::{Digest, FilterName, TableName, TenantId};
use setgate_ledger::{Blobs, Plans, Registry};

use super::Error;
use super::checks::find_tenant;

/// Size of a part returned by [`Downloads::read_part`], in bytes.
pub use setgate_ledger::BLOB_PART_BYTES as PART_BYTES;

/// A stored blob that the tenant may read.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The tenant that the reads are charged to in fair scheduling.
    pub tenant: TenantId,
    /// The digest of the blob.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// Reads the blobs that belong to filters and tables.
#[derive(Clone)]
pub struct Downloads {
    pub(super) registry: Registry,
    pub(super) plans: Plans,
    pub(super) blobs: Blobs,
}

impl Downloads {
    /// A filter's component. The digest alone grants no access, because tenants share the blob store: it must be a
    /// version of the tenant's filter, or a version pinned by one of the tenant's deliveries.
    pub async fn component(&self, tenant: &TenantId, name: &FilterName, digest: Digest) -> Result<Stored, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let is_version = view.filters.get(name).is_some_and(|filter| filter.value.version(&digest).is_some());
        if !is_version && !self.plans.is_filter_version_in_use(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of filter `{name}`")));
        }
        self.stored(tenant, digest).await
    }

    /// The rows of a table as JSON lines, with the same access rule as [`Downloads::component`].
    pub async fn table_rows(&self, tenant: &TenantId, name: &TableName, digest: Digest) -> Result<Stored, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let is_version = view.tables.get(name).is_some_and(|table| table.value.digests().any(|kept| kept == digest));
        if !is_version && !self.plans.is_table_version_in_use(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of table `{name}`")));
        }
        self.stored(tenant, digest).await
    }

    /// Reads a part of the blob that [`Downloads::component`] or [`Downloads::table_rows`] returned. Empty after the last
    /// part.
    pub async fn read_part(&self, stored: &Stored, number: u32) -> Result<Bytes, Error> {
        let part = self.blobs.part(&stored.tenant, &stored.digest, number).await?;
        part.ok_or_else(|| Error::NotFound(format!("{}", stored.digest)))
    }

    async fn stored(&self, tenant: &TenantId, digest: Digest) -> Result<Stored, Error> {
        let bytes = self.blobs.check(tenant, &digest).await?;
        let bytes = bytes.ok_or_else(|| Error::NotFound(format!("{digest}: its bytes are not stored here")))?;
        Ok(Stored { tenant: tenant.clone(), digest, bytes })
    }
}
