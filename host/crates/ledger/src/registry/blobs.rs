//! Blobs: filter components and rows of lookup tables. Stored once per content, named by their digest, and retained
//! while anything refers to them.
//!
//! A blob is written in parts, each in its own batch, so that an upload of many megabytes delays an event by no more
//! than one part. The row in `blob` comes last; parts without it are swept. Until then the row in `upload` charges them to
//! the tenant that uploads, since an upload may be abandoned after any part.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use setgate_base::crypto::{sha256, sha256_reader};
use setgate_domain::id::{Digest, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::commit::queue::Batch;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::stored;
use crate::store::Store;

/// Maximum bytes of a part.
pub const BLOB_PART_BYTES: usize = 256 << 10;

/// Filter components and table rows, stored once per content.
#[derive(Clone)]
pub struct Blobs(pub(crate) Arc<Store>);

impl Blobs {
    /// Stores a blob of a tenant (a filter component or table rows), unless it is already stored, and returns its
    /// digest. It is retained while a filter, table or plan refers to it, and for [`crate::UNUSED_RETENTION_MS`] after this
    /// call.
    pub async fn put(&self, tenant: &TenantId, body: Bytes) -> Result<Digest, Error> {
        let digest = Digest(sha256(&body));
        let now = self.0.clock().now();
        if self.0.queue().write(move |batch| refresh(batch.conn, &digest, now)).await? {
            return Ok(digest);
        }
        for (number, at) in (0..body.len()).step_by(BLOB_PART_BYTES).enumerate() {
            let part = body.slice(at..body.len().min(at + BLOB_PART_BYTES));
            let tenant = tenant.clone();
            self.0.queue().write(move |batch| put_part(batch, (&digest, number as i64), now, (&tenant, &part))).await?;
        }
        let (tenant, bytes) = (tenant.clone(), stored::bytes(body.len()));
        self.0
            .queue()
            .write(move |batch| {
                end_upload(batch, &digest)?;
                if !refresh(batch.conn, &digest, now)? {
                    batch
                        .conn
                        .prepare_cached("INSERT INTO blob (digest, stored_at, tenant, bytes) VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![digest, now, tenant, bytes])?;
                    batch.effects.add_stored_bytes(&tenant, bytes);
                }
                Ok(digest)
            })
            .await
    }

    /// Size of a blob in bytes, without reading it.
    pub async fn size(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<u64>, Error> {
        let digest = *digest;
        self.0
            .readers()
            .of(tenant)
            .read(move |conn| {
                Ok(conn
                    .prepare_cached("SELECT bytes FROM blob WHERE digest = ?1")?
                    .query_row(params![digest], |row| row.get::<_, i64>(0))
                    .optional()?
                    .map(i64::cast_unsigned))
            })
            .await
    }

    /// Reads a whole blob to verify its digest and returns its size in bytes. Only one part is in memory at a time.
    /// [`Error::Corrupt`] if the digest does not match.
    pub async fn check(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<u64>, Error> {
        let digest = *digest;
        self.0
            .history_of(tenant)
            .read(move |conn| {
                if part(conn, &digest, 0)?.is_none() {
                    return Ok(None);
                }
                let mut parts = Parts { conn, digest, next: 0, part: Vec::new(), read: 0, bytes: 0, failed: None };
                let found = sha256_reader(&mut parts);
                match (parts.failed, found) {
                    (Some(error), _) => Err(error),
                    (None, Ok(found)) if found == digest.0 => Ok(Some(parts.bytes)),
                    (None, _) => Err(Error::corrupt(format!("the content of blob {digest} does not match its digest"))),
                }
            })
            .await
    }

    /// A part of a blob: [`BLOB_PART_BYTES`] bytes, fewer for the last part, none after it.
    pub async fn part(&self, tenant: &TenantId, digest: &Digest, number: u32) -> Result<Option<Bytes>, Error> {
        let digest = *digest;
        let part = self.0.history_of(tenant).read(move |conn| part(conn, &digest, number.into())).await?;
        Ok(part.map(Bytes::from))
    }

    /// The content of a blob. [`Error::Corrupt`] if it does not match its digest.
    pub async fn get(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let digest = *digest;
        let body = self.0.readers().of(tenant).read(move |conn| read(conn, &digest)).await?;
        match body {
            Some(body) if sha256(&body) != digest.0 => {
                Err(Error::corrupt(format!("the content of blob {digest} does not match its digest")))
            }
            body => Ok(body.map(Bytes::from)),
        }
    }
}

/// Returns whether the blob exists, and if so refreshes its time of storage.
fn refresh(conn: &Connection, digest: &Digest, now: Timestamp) -> Result<bool, Error> {
    let rows = conn
        .prepare_cached("UPDATE blob SET stored_at = max(stored_at, ?2) WHERE digest = ?1")?
        .execute(params![digest, now])?;
    Ok(rows > 0)
}

/// Stores a part and charges it to the tenant, unless the part is already stored.
fn put_part(
    batch: &mut Batch<'_>,
    (digest, number): (&Digest, i64),
    now: Timestamp,
    (tenant, part): (&TenantId, &[u8]),
) -> Result<(), Error> {
    let conn = batch.conn;
    // An abandoned upload may have left this part; refresh its time so that it is not swept.
    let there = conn
        .prepare_cached("UPDATE blob_part SET stored_at = max(stored_at, ?3) WHERE digest = ?1 AND number = ?2")?
        .execute(params![digest, number, now])?;
    if there > 0 {
        return Ok(());
    }
    conn.prepare_cached("INSERT INTO blob_part (digest, number, stored_at, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![digest, number, now, part])?;
    // Another upload of the same bytes may have finished meanwhile, and its tenant is charged for all of them.
    let is_whole = conn.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?.exists(params![digest])?;
    if !is_whole {
        let bytes = stored::bytes(part.len());
        conn.prepare_cached(
            "INSERT INTO upload (digest, tenant, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (digest, tenant) DO UPDATE SET bytes = bytes + ?3",
        )?
        .execute(params![digest, tenant, bytes])?;
        batch.effects.add_stored_bytes(tenant, bytes);
    }
    Ok(())
}

/// Ends the charge for the parts of an upload that has finished or was deleted.
fn end_upload(batch: &mut Batch<'_>, digest: &Digest) -> Result<(), Error> {
    let charged: Vec<(TenantId, i64)> = batch
        .conn
        .prepare_cached("DELETE FROM upload WHERE digest = ?1 RETURNING tenant, bytes")?
        .query_map(params![digest], |row| Ok((row.column(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (tenant, bytes) in charged {
        batch.effects.add_stored_bytes(&tenant, -bytes);
    }
    Ok(())
}

/// Reads a blob part by part.
struct Parts<'a> {
    conn: &'a Connection,
    digest: Digest,
    next: i64,
    part: Vec<u8>,
    /// Bytes read of the current part.
    read: usize,
    /// Bytes read in total.
    bytes: u64,
    failed: Option<Error>,
}

impl io::Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.part.len() {
            match part(self.conn, &self.digest, self.next) {
                Ok(part) => (self.part, self.read) = (part.unwrap_or_default(), 0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
            self.next += 1;
        }
        let read = io::Read::read(&mut &self.part[self.read..], buffer)?;
        self.read += read;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// See [`Blobs::part`](crate::Blobs::part).
fn part(conn: &Connection, digest: &Digest, number: i64) -> Result<Option<Vec<u8>>, Error> {
    let part = conn
        .prepare_cached(
            "SELECT coalesce((SELECT p.body FROM blob_part p WHERE p.digest = ?1 AND p.number = ?2), x'')
             FROM blob WHERE digest = ?1",
        )?
        .query_row(params![digest, number], |row| row.get(0))
        .optional()?;
    Ok(part)
}

/// Reads all parts of a blob in order.
pub(crate) fn read(conn: &Connection, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
    if !conn.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?.exists(params![digest])? {
        return Ok(None);
    }
    let mut body = Vec::new();
    let mut statement = conn.prepare_cached("SELECT body FROM blob_part WHERE digest = ?1 ORDER BY number")?;
    let mut rows = statement.query(params![digest])?;
    while let Some(row) = rows.next()? {
        body.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    Ok(Some(body))
}

pub(crate) fn delete(batch: &mut Batch<'_>, digest: &Digest) -> Result<(), Error> {
    let conn = batch.conn;
    let owner: Option<(TenantId, i64)> = conn
        .prepare_cached("DELETE FROM blob WHERE digest = ?1 RETURNING tenant, bytes")?
        .query_row(params![digest], |row| Ok((row.column(0)?, row.get(1)?)))
        .optional()?;
    if let Some((tenant, bytes)) = owner {
        batch.effects.add_stored_bytes(&tenant, -bytes);
    }
    conn.execute("DELETE FROM blob_part WHERE digest = ?1", params![digest])?;
    Ok(())
}

/// Deletes the parts of uploads abandoned before `before`: none of their parts was stored since.
pub(crate) fn delete_abandoned_uploads(batch: &mut Batch<'_>, before: Timestamp) -> Result<(), Error> {
    let abandoned: Vec<Digest> = batch
        .conn
        .prepare_cached(
            "SELECT digest FROM blob_part WHERE digest NOT IN (SELECT digest FROM blob)
             GROUP BY digest HAVING max(stored_at) < ?1",
        )?
        .query_map(params![before], |row| row.column(0))?
        .collect::<Result<_, _>>()?;
    for digest in &abandoned {
        batch.conn.prepare_cached("DELETE FROM blob_part WHERE digest = ?1")?.execute(params![digest])?;
        end_upload(batch, digest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::UNUSED_RETENTION_MS;
    use crate::inspect;
    use crate::tests::{NOW, block_on, open, reopen, tenant};

    #[test]
    fn blob_round_trips_at_any_size() {
        block_on(async {
            let (_folder, ledger) = open();
            for bytes in [0, 4, BLOB_PART_BYTES - 1, BLOB_PART_BYTES, BLOB_PART_BYTES * 2 + 5] {
                let body: Bytes = (0..bytes).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
                let name = ledger.blobs.put(&tenant().id, body.clone()).await.unwrap();
                assert_eq!(ledger.blobs.put(&tenant().id, body.clone()).await.unwrap(), name);
                assert_eq!(ledger.blobs.size(&tenant().id, &name).await.unwrap(), Some(bytes as u64));
                assert_eq!(ledger.blobs.check(&tenant().id, &name).await.unwrap(), Some(bytes as u64));
                assert_eq!(in_parts(&ledger, &name).await, body);
                assert_eq!(ledger.blobs.get(&tenant().id, &name).await.unwrap(), Some(body));
            }
            assert_eq!(ledger.blobs.get(&tenant().id, &Digest([7; 32])).await.unwrap(), None);
            assert_eq!(ledger.blobs.size(&tenant().id, &Digest([7; 32])).await.unwrap(), None);
        });
    }

    async fn in_parts(ledger: &Ledger, digest: &Digest) -> Bytes {
        let mut whole = Vec::new();
        for number in 0.. {
            let part = ledger.blobs.part(&tenant().id, digest, number).await.unwrap().unwrap();
            if part.is_empty() {
                break;
            }
            whole.extend_from_slice(&part);
        }
        whole.into()
    }

    #[test]
    fn damaged_blob_is_detected() {
        block_on(async {
            let (_folder, ledger) = open();
            let name = ledger.blobs.put(&tenant().id, Bytes::from(vec![7; BLOB_PART_BYTES + 5])).await.unwrap();
            let damage = "UPDATE blob_part SET body = x'00' WHERE number = 1";
            ledger.store.queue().write(move |batch| Ok(batch.conn.execute(damage, [])?)).await.unwrap();
            assert!(matches!(ledger.blobs.check(&tenant().id, &name).await, Err(Error::Corrupt { .. })));
            assert_eq!(ledger.blobs.check(&tenant().id, &Digest([7; 32])).await.unwrap(), None);
        });
    }

    #[test]
    fn abandoned_upload_is_charged_until_deleted_or_completed() {
        block_on(async {
            let (folder, ledger) = open();
            let (ours, theirs) = (tenant().id, "another".parse::<TenantId>().unwrap());
            let before = ledger.usage.stored(&ours);
            let body = Bytes::from(vec![7; BLOB_PART_BYTES * 20]);
            tokio::select! {
                biased;
                _ = ledger.blobs.put(&ours, body.clone()) => panic!("it is broken off after its first parts"),
                () = async { while ledger.usage.stored(&ours) == before { tokio::task::yield_now().await } } => {}
            }
            let ledger = reopen(&folder, ledger).await;
            let charged = ledger.usage.stored(&ours) - before;
            assert!((1..20).contains(&(charged / BLOB_PART_BYTES as u64)), "{charged}");
            // Whoever uploads the same bytes to their end is charged for all of them, and nobody else is.
            ledger.blobs.put(&theirs, body.clone()).await.unwrap();
            assert_eq!((ledger.usage.stored(&ours), ledger.usage.stored(&theirs)), (before, body.len() as u64));
            let found = inspect(folder.path()).unwrap();
            assert!(found.checks.iter().all(|check| check.faults == 0), "{:?}", found.checks);
        });
    }

    #[test]
    fn abandoned_upload_is_deleted() {
        block_on(async {
            let (_folder, ledger) = open();
            let digest = Digest([5; 32]);
            let before = ledger.usage.stored(&tenant().id);
            let put = |number, at| {
                let tenant = tenant().id;
                ledger.store.queue().write(move |batch| put_part(batch, (&digest, number), at, (&tenant, b"half")))
            };
            put(0, NOW).await.unwrap();
            put(1, NOW.plus_millis(5)).await.unwrap();
            put(1, NOW.plus_millis(5)).await.unwrap();
            assert_eq!(ledger.usage.stored(&tenant().id), before + 8, "parts are charged, each once");
            let parts = async || {
                let count = |conn: &Connection| Ok(conn.query_row("SELECT count(*) FROM blob_part", [], |r| r.get(0))?);
                ledger.store.readers().read::<i64>(count).await.unwrap()
            };
            ledger.upkeep.retain(NOW.plus_millis(UNUSED_RETENTION_MS + 4)).await.unwrap();
            assert_eq!(parts().await, 2, "it may still go on");
            ledger.upkeep.retain(NOW.plus_millis(UNUSED_RETENTION_MS + 6)).await.unwrap();
            assert_eq!(parts().await, 0);
            assert_eq!(ledger.usage.stored(&tenant().id), before);
        });
    }
}
