//! Requests with an `Idempotency-Key`, and their answers.
//!
//! # Invariants
//!
//! 1. A row is written in the transaction that carries its request out (`audit.rs`): a request without a row has changed
//!    nothing, so it may be carried out, and one with a row is never carried out again.
//! 2. The answer comes after that, sealed. A row without one is a request whose host was killed in between.
//! 3. A row ends [`ANSWERS_KEPT_MS`] after it was written.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Ledger};
use crate::domain::id::{Digest, TenantId};
use crate::domain::idempotency::Claim;
use crate::domain::secret::Sealed;
use crate::domain::time::Timestamp;

/// Milliseconds for which a request is known by its key: a day.
pub const ANSWERS_KEPT_MS: i64 = 24 * 3_600 * 1_000;

/// A request that was carried out.
#[derive(Debug, Clone)]
pub struct CarriedOut {
    /// What was asked for.
    pub request: Digest,
    /// What was answered; none if the host was killed before it knew.
    pub answer: Option<Sealed>,
}

/// What is stored for a tenant, or for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswersStored {
    /// Requests.
    pub count: u64,
    /// Bytes of their answers.
    pub bytes: u64,
}

impl Ledger {
    /// The request of this claim, if it was carried out, and what else is stored for its tenant.
    pub async fn carried_out(&self, claim: &Claim) -> Result<(Option<CarriedOut>, AnswersStored), Error> {
        let (claim, since) = (claim.clone(), self.clock().now().plus_millis(-ANSWERS_KEPT_MS));
        self.readers()
            .read(move |conn| {
                let found = conn
                    .prepare_cached("SELECT request, answer FROM idempotency WHERE claim = ?1 AND at > ?2")?
                    .query_row(params![claim.id, since], |row| {
                        Ok(CarriedOut { request: row.get(0)?, answer: row.get::<_, Option<String>>(1)?.map(Sealed) })
                    })
                    .optional()?;
                let stored = conn
                    .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM idempotency WHERE tenant = ?1")?
                    .query_row([owner(claim.tenant.as_ref())], |row| {
                        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                        Ok(AnswersStored { count: number(0)?, bytes: number(1)? })
                    })?;
                Ok((found, stored))
            })
            .await
    }

    /// Stores the answer of a request that was carried out. If it has changed nothing, there is no row of it: then one is
    /// made if `in_any_case`, and else nothing is stored.
    pub async fn store_answer(&self, claim: &Claim, answer: Sealed, in_any_case: bool) -> Result<(), Error> {
        let (claim, at) = (claim.clone(), self.clock().now());
        self.queue()
            .write(move |batch| {
                if in_any_case {
                    write(batch.conn, &claim, at)?;
                }
                batch
                    .conn
                    .prepare_cached("UPDATE idempotency SET answer = ?2, bytes = ?3 WHERE claim = ?1")?
                    .execute(params![claim.id, answer.0, answer.0.len() as i64])?;
                Ok(())
            })
            .await
    }
}

/// Writes a request down. One that is carried out in several transactions is written down by the first of them.
pub(super) fn write(conn: &Connection, claim: &Claim, at: Timestamp) -> Result<(), Error> {
    conn.prepare_cached(
        "INSERT INTO idempotency (claim, tenant, at, request, bytes) VALUES (?1, ?2, ?3, ?4, 0)
         ON CONFLICT (claim) DO UPDATE SET at = ?3, request = ?4, bytes = 0, answer = NULL WHERE at <= ?5",
    )?
    .execute(params![
        claim.id,
        owner(claim.tenant.as_ref()),
        at,
        claim.request,
        at.plus_millis(-ANSWERS_KEPT_MS)
    ])?;
    Ok(())
}

/// Deletes the requests whose time is over.
pub(super) fn sweep(conn: &Connection, now: Timestamp) -> Result<(), Error> {
    conn.execute("DELETE FROM idempotency WHERE at <= ?1", [now.plus_millis(-ANSWERS_KEPT_MS)])?;
    Ok(())
}

/// Deletes what belongs to a tenant that is removed.
pub(super) fn forget(conn: &Connection, tenant: &TenantId) -> Result<(), Error> {
    conn.execute("DELETE FROM idempotency WHERE tenant = ?1", [tenant])?;
    Ok(())
}

/// The operator's have no tenant.
fn owner(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, TENANT, block_on, open, reopen};
    use super::*;
    use crate::domain::audit::{Actor, By, Deed, Entry, Object};
    use crate::domain::id::KeyId;

    fn claim(key: &str, request: &str) -> Claim {
        Claim::new(KeyId::new(NOW, 1), key, Some(TENANT.parse().unwrap()), &[request.as_bytes()])
    }

    async fn change(ledger: &Ledger, claim: &Claim) {
        let actor = Actor { by: By::Host, request: None, remote: None, claim: Some(claim.clone()) };
        let deed = Deed { actor, action: Some("key.create"), note: None };
        let object = Object { kind: "key".into(), id: "x".into() };
        let entry = Entry::of(deed, ledger.clock().now(), claim.tenant.clone(), object);
        ledger.record(entry).await.unwrap();
    }

    async fn found(ledger: &Ledger, claim: &Claim) -> Option<(Digest, Option<String>)> {
        let found = ledger.carried_out(claim).await.unwrap().0;
        found.map(|found| (found.request, found.answer.map(|answer| answer.0)))
    }

    #[test]
    fn a_request_is_known_from_its_change_on_and_its_answer_over_a_restart() {
        block_on(async {
            let (folder, ledger) = open();
            let one = claim("a", "one");
            assert_eq!(found(&ledger, &one).await, None);
            change(&ledger, &one).await;
            change(&ledger, &one).await;
            assert_eq!(found(&ledger, &one).await, Some((one.request, None)), "carried out, and no answer yet");
            ledger.store_answer(&one, Sealed("sealed".into()), false).await.unwrap();
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(found(&ledger, &claim("a", "other")).await, Some((one.request, Some("sealed".into()))));
            let stored = ledger.carried_out(&one).await.unwrap().1;
            assert_eq!((stored.count, stored.bytes), (1, 6));

            // Without a change there is nothing, unless it is asked for.
            let two = claim("b", "two");
            ledger.store_answer(&two, Sealed("sealed".into()), false).await.unwrap();
            assert_eq!(found(&ledger, &two).await, None);
            ledger.store_answer(&two, Sealed("sealed".into()), true).await.unwrap();
            assert_eq!(found(&ledger, &two).await, Some((two.request, Some("sealed".into()))));
        });
    }

    #[test]
    fn a_request_is_forgotten_after_a_day() {
        block_on(async {
            let (_folder, ledger) = open();
            let one = claim("a", "one");
            change(&ledger, &one).await;
            ledger.clock().set(NOW.plus_millis(ANSWERS_KEPT_MS));
            assert_eq!(found(&ledger, &one).await, None);
            // Before it is swept, the key is free for another request.
            let other = claim("a", "other");
            change(&ledger, &other).await;
            assert_eq!(found(&ledger, &other).await, Some((other.request, None)));
            ledger.retain(NOW.plus_millis(2 * ANSWERS_KEPT_MS)).await.unwrap();
            assert_eq!(ledger.carried_out(&one).await.unwrap().1.count, 0);
        });
    }
}
