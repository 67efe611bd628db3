//! Writes and removes documents together with their audit rows, in one request of the writer.

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::audit::{AuditEntry, Originator};
use setgate_domain::id::{FilterName, IssuerKeyId, TenantId};
use setgate_domain::subscription::Subscription;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;

use super::{Precondition, WriteContext};
use crate::Error;
use crate::audit;
use crate::audit::idempotency;
use crate::commit::queue::Batch;
use crate::registry::failure_streak;
use crate::schema::sql_types::params;
use crate::state::document_usage::{DOCUMENT_BYTES_MAX, DocumentUsage};
use crate::state::snapshot::{Change, Doc, Name};

/// Verbs exempt from quotas: they stop or repair something, so they must always work, and none adds more than a bounded
/// text or key.
const QUOTA_EXEMPT_VERBS: [&str; 13] = [
    "activate",
    "end",
    "label",
    "pause",
    "promote",
    "release",
    "remove_version",
    "resume",
    "rollback",
    "rotate_key",
    "rotate_poll_token",
    "suspend",
    "verify",
];

/// Writes a document and its audit row. The quota applies unless the host itself makes the change.
pub(crate) fn put(
    batch: &mut Batch<'_>,
    doc: Doc,
    context: WriteContext,
    host: &Quota,
    at: Timestamp,
) -> Result<u64, Error> {
    let WriteContext { precondition, audit } = context;
    let (name, tenant) = (doc.name(), doc.owner());
    let paused = doc.paused().map(str::to_owned);
    let verb = audit.action.and_then(|action| action.split_once('.')).map(|(_, verb)| verb);
    let has_quota = audit.actor.by != Originator::Host && !verb.is_some_and(|verb| QUOTA_EXEMPT_VERBS.contains(&verb));
    let Put { before, after, version } = put_without_audit(batch, doc, precondition, has_quota.then_some(host))?;
    let changed = before.as_ref().map(|(_, text)| differing(text, &after)).unwrap_or_default();
    let (kind, ..) = name.columns();
    let named = audit.action.is_some();
    let mut entry = AuditEntry::new(audit, at, tenant, name.object());
    if !named {
        let only_paused = !changed.is_empty() && changed.iter().all(|field| field == "paused");
        let verb = match (&before, &paused) {
            (None, _) => "create",
            (Some(_), Some(_)) if only_paused => "pause",
            (Some(_), None) if only_paused => "resume",
            (Some(_), _) => "update",
        };
        entry.action = format!("{kind}.{verb}");
        entry.note = entry.note.or(paused.filter(|_| only_paused));
    }
    entry.changed = changed;
    entry.version_before = before.map(|(version, _)| version);
    entry.version = Some(version);
    audit::record(batch, &entry)?;
    Ok(version)
}

pub(crate) struct Put {
    /// Version and text of the previous document.
    before: Option<(u64, String)>,
    after: String,
    pub(crate) version: u64,
}

/// Writes a document without an audit row. `host` is the default quota, or `None` if no quota applies.
pub(crate) fn put_without_audit(
    batch: &mut Batch<'_>,
    doc: Doc,
    precondition: Precondition,
    host: Option<&Quota>,
) -> Result<Put, Error> {
    let conn = batch.conn;
    if let Some(tenant) = doc.parent()
        && current(conn, &Name::Tenant(tenant.clone()))?.is_none()
    {
        return Err(Error::NoTenant(tenant.clone()));
    }
    if let Doc::Tenant(tenant) = &doc {
        let purging = conn.prepare_cached("SELECT 1 FROM purge WHERE tenant = ?1")?.exists(params![&tenant.id])?;
        if purging {
            return Err(Error::Purging(tenant.id.clone()));
        }
    }
    let name = doc.name();
    let before = stored(conn, &name)?;
    precondition.check(before.as_ref().map(|(version, _)| *version))?;
    if let Doc::Subscription(subscription) = &doc {
        check_chain(conn, subscription)?;
        check_name(conn, subscription)?;
        failure_streak::end(conn, subscription.id)?;
    }
    let version = next_revision(conn)?;
    let (kind, tenant, id) = name.columns();
    let after = doc.text().map_err(|e| Error::Engine(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
    check_quota(batch, &doc, before.as_ref().map(|(_, text)| text.as_str()), after.len(), host)?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO document (kind, tenant, id, version, doc) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![kind, tenant, id, version.cast_signed(), after])?;
    batch.effects.change(Change::Put(Box::new(doc), version, after.len()));
    Ok(Put { before, after, version })
}

/// Adds the size of the change to the batch. Fails if the change makes the tenant exceed its quota.
fn check_quota(
    batch: &mut Batch<'_>,
    doc: &Doc,
    before: Option<&str>,
    bytes: usize,
    host: Option<&Quota>,
) -> Result<(), Error> {
    let Some(tenant) = doc.owner() else { return Ok(()) };
    let mut added = doc.document_usage(bytes);
    if let Some(text) = before {
        let (kind, ..) = doc.name().columns();
        let before = Doc::parse(kind, text).ok().flatten();
        added -= before.map(|before| before.document_usage(text.len())).unwrap_or_default();
    }
    if let Some(host) = host.filter(|_| !matches!(doc, Doc::Tenant(_))) {
        let view = batch.snapshot.tenant(&tenant);
        let quota = view.map_or(host, |view| view.tenant.value.quota_or(host));
        let mut sum = view.map(|view| view.document_usage).unwrap_or_default();
        // Changes of the same batch are not in the snapshot yet.
        batch.document_usage.iter().filter(|(of, _)| *of == tenant).for_each(|(_, added)| sum += *added);
        sum += added;
        if bytes > DOCUMENT_BYTES_MAX && added.documents_bytes > 0 {
            return Err(Error::DocumentTooLarge { bytes, max: DOCUMENT_BYTES_MAX });
        }
        if let Some((quota, sum, max)) = sum.exceeded_quota(&added, quota) {
            return Err(Error::QuotaExceeded { quota, sum: sum.unsigned_abs(), max });
        }
    }
    batch.document_usage.push((tenant, added));
    Ok(())
}

/// Removes a document and records it in the audit log.
pub(crate) fn remove(batch: &mut Batch<'_>, name: Name, context: WriteContext, at: Timestamp) -> Result<bool, Error> {
    let WriteContext { precondition, audit } = context;
    let conn = batch.conn;
    let found = stored(conn, &name)?;
    precondition.check(found.as_ref().map(|(version, _)| *version))?;
    let Some((before, text)) = found else { return Ok(false) };
    match &name {
        Name::Filter(tenant, filter) => check_unbound(conn, tenant, filter)?,
        Name::IssuerKey(tenant, kid) => check_unused(conn, tenant, kid)?,
        _ => {}
    }
    let version = next_revision(conn)?;
    let (kind, tenant, id) = name.columns();
    if let (Some(owner), Ok(Some(doc))) = (name.owner(&text), Doc::parse(kind, &text)) {
        let mut freed = DocumentUsage::default();
        freed -= doc.document_usage(text.len());
        batch.document_usage.push((owner, freed));
    }
    if let Name::Subscription(_, subscription) = &name {
        failure_streak::end(conn, *subscription)?;
    }
    if let Name::Tenant(tenant) = &name {
        failure_streak::delete_tenant(conn, tenant)?;
        idempotency::delete_tenant(conn, tenant)?;
        conn.execute("DELETE FROM document WHERE tenant = ?1", params![tenant])?;
        conn.execute("DELETE FROM document WHERE kind = 'key' AND doc ->> 'tenant' = ?1", params![tenant])?;
        conn.execute("INSERT OR IGNORE INTO purge VALUES (?1)", params![tenant])?;
    } else {
        conn.prepare_cached("DELETE FROM document WHERE kind = ?1 AND tenant = ?2 AND id = ?3")?
            .execute(params![kind, tenant, id])?;
    }
    let named = audit.action.is_some();
    let mut entry = AuditEntry::new(audit, at, name.owner(&text), name.object());
    if !named {
        entry.action = format!("{kind}.remove");
    }
    entry.version_before = Some(before);
    audit::record(batch, &entry)?;
    batch.effects.change(Change::Remove(name, version));
    Ok(true)
}

/// Names of the members that differ between two documents, except `updated_at`: the audit entry has its own time.
fn differing(before: &str, after: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap_or_default();
    let (before, after) = (read(before), read(after));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |name: &&String| name.as_str() != "updated_at" && before.get(*name) != after.get(*name);
    names.into_iter().filter(differs).cloned().collect()
}

/// Checks that every filter of the chain has an active version. Reads the rows, because the snapshot lacks changes of
/// the same batch.
fn check_chain(conn: &Connection, subscription: &Subscription) -> Result<(), Error> {
    for binding in &subscription.chain {
        let name = Name::Filter(subscription.tenant.clone(), binding.filter.clone());
        let (kind, tenant, id) = name.columns();
        let active = conn
            .prepare_cached(
                "SELECT 1 FROM document WHERE kind = ?1 AND tenant = ?2 AND id = ?3 AND doc ->> 'active' IS NOT NULL",
            )?
            .exists(params![kind, tenant, id])?;
        if !active {
            return Err(Error::FilterNotActive(binding.filter.clone()));
        }
    }
    Ok(())
}

/// Finds the subscriptions of a tenant by name, through the index `document_name`.
pub(crate) const SUBSCRIPTION_BY_NAME: &str = "SELECT id FROM document WHERE kind = 'subscription' AND tenant = ?1 AND doc ->> '$.name' = ?2 AND doc ->> '$.name' IS NOT NULL";

/// Checks that no other subscription of the tenant has its name. Reads the rows, as in [`check_chain`].
fn check_name(conn: &Connection, subscription: &Subscription) -> Result<(), Error> {
    let Some(name) = &subscription.name else { return Ok(()) };
    let id = subscription.id.to_string();
    let mut statement = conn.prepare_cached(SUBSCRIPTION_BY_NAME)?;
    let mut others = statement.query_map(params![subscription.tenant, name.as_str()], |row| row.get::<_, String>(0))?;
    match others.find(|other| !matches!(other, Ok(other) if *other == id)) {
        None => Ok(()),
        Some(Ok(_)) => Err(Error::NameTaken(name.clone())),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Checks that no delivery of the tenant has a SET that the key signed. Another tenant may have imported the same key.
fn check_unused(conn: &Connection, tenant: &TenantId, kid: &IssuerKeyId) -> Result<(), Error> {
    let used = conn
        .prepare_cached(
            "SELECT 1 FROM signed_set s JOIN delivery d ON d.seq = s.delivery WHERE s.kid = ?1 AND d.tenant = ?2",
        )?
        .exists(params![kid.as_str(), tenant])?;
    if used {
        let why = format!(
            "SETs that the key `{kid}` signed are still stored, and their receivers need it: remove it when their \
             deliveries are no longer in the history"
        );
        return Err(Error::InUse(why));
    }
    Ok(())
}

/// Checks that no subscription of the tenant binds the filter. Reads the rows, as in [`check_chain`].
fn check_unbound(conn: &Connection, tenant: &TenantId, filter: &FilterName) -> Result<(), Error> {
    let subscription = conn
        .prepare_cached(
            "SELECT id FROM document WHERE kind = 'subscription' AND tenant = ?1
                 AND EXISTS (SELECT 1 FROM json_each(doc, '$.chain') b WHERE b.value ->> 'filter' = ?2) LIMIT 1",
        )?
        .query_row(params![tenant, filter.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    match subscription {
        Some(id) => Err(Error::InUse(format!("the subscription `{id}` binds the filter `{filter}`: change it first"))),
        None => Ok(()),
    }
}

/// Version and text of a document.
pub(super) fn stored(conn: &Connection, name: &Name) -> Result<Option<(u64, String)>, Error> {
    let (kind, tenant, id) = name.columns();
    let found = conn
        .prepare_cached("SELECT version, doc FROM document WHERE kind = ?1 AND tenant = ?2 AND id = ?3")?
        .query_row(params![kind, tenant, id], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))
        .optional()?;
    Ok(found)
}

fn current(conn: &Connection, name: &Name) -> Result<Option<u64>, Error> {
    let (kind, tenant, id) = name.columns();
    let version = conn
        .prepare_cached("SELECT version FROM document WHERE kind = ?1 AND tenant = ?2 AND id = ?3")?
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
