//! Requests with an `Idempotency-Key` header, and their responses.
//!
//! # Invariants
//!
//! 1. A row is written in the transaction that executes its request (`audit`). A request without a row has changed
//!    nothing and may be executed; one with a row is never executed again.
//! 2. The response is stored afterwards, encrypted. A row without a response belongs to a request whose host was killed
//!    in between.
//! 3. A row expires [`IDEMPOTENCY_RETENTION_MS`] after it was written.

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::id::{Digest, TenantId};
use setgate_domain::idempotency::IdempotencyClaim;
use setgate_domain::secret::Sealed;
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::sql_types::{ReadColumn, params};

/// How long a request is recognised by its key, in milliseconds: one day.
pub const IDEMPOTENCY_RETENTION_MS: i64 = 24 * 3_600 * 1_000;

/// A request that was executed.
#[derive(Debug, Clone)]
pub struct ExecutedRequest {
    /// Digest of the request.
    pub request: Digest,
    /// The response. `None` if the host was killed before it was stored.
    pub response: Option<Sealed>,
}

/// Rows of a tenant, or of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredResponses {
    /// Number of requests.
    pub count: u64,
    /// Bytes of their responses.
    pub bytes: u64,
}

/// The executed request of a claim, if any, and the totals of its tenant, without rows written at or before `since`.
pub(crate) fn find(
    conn: &Connection,
    claim: &IdempotencyClaim,
    since: Timestamp,
) -> Result<(Option<ExecutedRequest>, StoredResponses), Error> {
    let found = conn
        .prepare_cached("SELECT request, response FROM idempotency WHERE claim = ?1 AND at > ?2")?
        .query_row(params![claim.id, since], |row| {
            Ok(ExecutedRequest { request: row.column(0)?, response: row.get::<_, Option<String>>(1)?.map(Sealed) })
        })
        .optional()?;
    let stored = conn
        .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM idempotency WHERE tenant = ?1")?
        .query_row([owner(claim.tenant.as_ref())], |row| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(StoredResponses { count: number(0)?, bytes: number(1)? })
        })?;
    Ok((found, stored))
}

/// Records a request. If it is executed in several transactions, the first one records it.
pub(crate) fn insert(conn: &Connection, claim: &IdempotencyClaim, at: Timestamp) -> Result<(), Error> {
    conn.prepare_cached(
        "INSERT INTO idempotency (claim, tenant, at, request, bytes) VALUES (?1, ?2, ?3, ?4, 0)
         ON CONFLICT (claim) DO UPDATE SET at = ?3, request = ?4, bytes = 0, response = NULL WHERE at <= ?5",
    )?
    .execute(params![
        claim.id,
        owner(claim.tenant.as_ref()),
        at,
        claim.request,
        at.plus_millis(-IDEMPOTENCY_RETENTION_MS)
    ])?;
    Ok(())
}

/// Deletes expired requests.
pub(crate) fn delete_expired(conn: &Connection, now: Timestamp) -> Result<(), Error> {
    conn.execute("DELETE FROM idempotency WHERE at <= ?1", params![now.plus_millis(-IDEMPOTENCY_RETENTION_MS)])?;
    Ok(())
}

/// Deletes the rows of a removed tenant.
pub(crate) fn delete_tenant(conn: &Connection, tenant: &TenantId) -> Result<(), Error> {
    conn.execute("DELETE FROM idempotency WHERE tenant = ?1", params![tenant])?;
    Ok(())
}

/// The operator's rows have an empty tenant.
fn owner(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::tests::{NOW, TENANT, block_on, open, reopen};
    use setgate_domain::audit::{Actor, AuditEntry, AuditObject, Originator};
    use setgate_domain::id::KeyId;

    fn claim(key: &str, request: &str) -> IdempotencyClaim {
        setgate_base::crypto::idempotency_claim(
            KeyId::new(NOW, 1),
            key,
            Some(TENANT.parse().unwrap()),
            &[request.as_bytes()],
        )
    }

    async fn change(ledger: &Ledger, claim: &IdempotencyClaim) {
        let actor = Actor { by: Originator::Host, request: None, remote: None, claim: Some(claim.clone()) };
        let audit = actor.action("key.create");
        let object = AuditObject { kind: "key".into(), id: "x".into() };
        let entry = AuditEntry::new(audit, ledger.store.clock().now(), claim.tenant.clone(), object);
        ledger.history.record_audit(entry).await.unwrap();
    }

    async fn found(ledger: &Ledger, claim: &IdempotencyClaim) -> Option<(Digest, Option<String>)> {
        let found = ledger.registry.executed_request(claim).await.unwrap().0;
        found.map(|found| (found.request, found.response.map(|response| response.0)))
    }

    #[test]
    fn response_survives_restart() {
        block_on(async {
            let (folder, ledger) = open();
            let one = claim("a", "one");
            assert_eq!(found(&ledger, &one).await, None);
            change(&ledger, &one).await;
            change(&ledger, &one).await;
            assert_eq!(found(&ledger, &one).await, Some((one.request, None)), "carried out, and no response yet");
            ledger.registry.store_response(&one, Sealed("sealed".into()), false).await.unwrap();
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(found(&ledger, &claim("a", "other")).await, Some((one.request, Some("sealed".into()))));
            let stored = ledger.registry.executed_request(&one).await.unwrap().1;
            assert_eq!((stored.count, stored.bytes), (1, 6));

            // A request without a change gets no row unless the caller wants one.
            let two = claim("b", "two");
            ledger.registry.store_response(&two, Sealed("sealed".into()), false).await.unwrap();
            assert_eq!(found(&ledger, &two).await, None);
            ledger.registry.store_response(&two, Sealed("sealed".into()), true).await.unwrap();
            assert_eq!(found(&ledger, &two).await, Some((two.request, Some("sealed".into()))));
        });
    }

    #[test]
    fn expires_after_a_day() {
        block_on(async {
            let (_folder, ledger) = open();
            let one = claim("a", "one");
            change(&ledger, &one).await;
            ledger.store.clock().set(NOW.plus_millis(IDEMPOTENCY_RETENTION_MS));
            assert_eq!(found(&ledger, &one).await, None);
            // Before the sweep, an expired key can already be reused for another request.
            let other = claim("a", "other");
            change(&ledger, &other).await;
            assert_eq!(found(&ledger, &other).await, Some((other.request, None)));
            ledger.upkeep.retain(NOW.plus_millis(2 * IDEMPOTENCY_RETENTION_MS)).await.unwrap();
            assert_eq!(ledger.registry.executed_request(&one).await.unwrap().1.count, 0);
        });
    }
}
