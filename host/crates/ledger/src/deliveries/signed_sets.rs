//! Signed SETs: each delivery's token is stored before it is first sent, so that every retry sends the same bytes.

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::attempt::SentSet;
use setgate_domain::delivery::{DeliverySeq, DueDelivery};
use setgate_domain::id::{DeliveryId, TenantId};

use crate::Error;
use crate::commit::queue::Batch;
use crate::deliveries::Deliveries;
use crate::deliveries::outbox::due_by_seq;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::stored;

/// A signed SET of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedSet {
    /// `kid` of the key that signed it.
    pub kid: String,
    /// `jti` of the SET.
    pub jti: String,
    /// The compact JWS.
    pub token: String,
}

impl Deliveries {
    /// The signed SET of a delivery, if it was signed before.
    pub async fn signed_set(&self, tenant: &TenantId, delivery: DeliverySeq) -> Result<Option<SignedSet>, Error> {
        self.0.readers().of(tenant).read(move |conn| find(conn, delivery)).await
    }

    /// The due deliveries among these, each with its signed SET, in the same order. `None` for one that is not due or not
    /// signed.
    pub async fn due_by_ids(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
    ) -> Result<Vec<Option<(DueDelivery, SentSet)>>, Error> {
        let owner = tenant.clone();
        let read = move |conn: &Connection| ids.iter().map(|id| due_and_signed(conn, &owner, *id)).collect();
        self.0.readers().of(tenant).read(read).await
    }

    /// Stores the signed SET of a delivery and returns the stored one, which is an earlier one if there is one. `None` if
    /// the delivery is gone. Durable when this returns.
    pub async fn store_signed_set(
        &self,
        tenant: &TenantId,
        delivery: DeliverySeq,
        set: SignedSet,
    ) -> Result<Option<SignedSet>, Error> {
        let tenant = tenant.clone();
        self.0.queue().write(move |batch| store(batch, &tenant, delivery, set)).await
    }
}

fn store(
    batch: &mut Batch<'_>,
    tenant: &TenantId,
    delivery: DeliverySeq,
    set: SignedSet,
) -> Result<Option<SignedSet>, Error> {
    let exists = batch.conn.prepare_cached("SELECT 1 FROM delivery WHERE seq = ?1")?.exists(params![delivery])?;
    if !exists {
        return Ok(None);
    }
    if let Some(before) = find(batch.conn, delivery)? {
        return Ok(Some(before));
    }
    batch
        .conn
        .prepare_cached("INSERT INTO signed_set (delivery, kid, jti, token) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![delivery, set.kid, set.jti, set.token])?;
    batch.effects.add_stored_bytes(tenant, stored::of_signed_set(batch.conn, delivery)?);
    Ok(Some(set))
}

fn find(conn: &Connection, delivery: DeliverySeq) -> Result<Option<SignedSet>, Error> {
    let row = conn
        .prepare_cached("SELECT kid, jti, token FROM signed_set WHERE delivery = ?1")?
        .query_row(params![delivery], |row| Ok(SignedSet { kid: row.get(0)?, jti: row.get(1)?, token: row.get(2)? }))
        .optional()?;
    Ok(row)
}

fn due_and_signed(
    conn: &Connection,
    tenant: &TenantId,
    id: DeliveryId,
) -> Result<Option<(DueDelivery, SentSet)>, Error> {
    let seq: Option<DeliverySeq> = conn
        .prepare_cached(
            "SELECT seq FROM delivery WHERE event_seq = (SELECT seq FROM event WHERE id = ?1) AND subscription = ?2 AND run = ?3
                 AND tenant = ?4",
        )?
        .query_row(params![id.event, id.subscription, id.run, tenant], |row| row.column(0))
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    let (Some(due), Some(set)) = (due_by_seq(conn, seq)?, find(conn, seq)?) else { return Ok(None) };
    Ok(Some((due, SentSet { kid: set.kid, jti: set.jti })))
}

/// Deletes the signed SET of a delivery, if there is one.
pub(crate) fn delete(batch: &mut Batch<'_>, delivery: DeliverySeq) -> Result<(), Error> {
    let bytes = stored::of_signed_set(batch.conn, delivery)?;
    if bytes > 0 {
        let tenant: TenantId = batch
            .conn
            .prepare_cached("SELECT tenant FROM delivery WHERE seq = ?1")?
            .query_row(params![delivery], |row| row.column(0))?;
        batch.effects.add_stored_bytes(&tenant, -bytes);
        batch.conn.prepare_cached("DELETE FROM signed_set WHERE delivery = ?1")?.execute(params![delivery])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, block_on, due_one, open, reopen};

    fn set(kid: &str) -> SignedSet {
        SignedSet { kid: kid.to_owned(), jti: "dlv_1".to_owned(), token: format!("{kid}.b.c") }
    }

    #[test]
    fn first_signature_is_kept() {
        block_on(async {
            let (folder, ledger) = open();
            let (tenant, due) = (TENANT.parse().unwrap(), due_one(&ledger).await);
            assert_eq!(ledger.deliveries.signed_set(&tenant, due.seq).await.unwrap(), None);
            let stored = ledger.deliveries.store_signed_set(&tenant, due.seq, set("one")).await.unwrap();
            assert_eq!(stored, Some(set("one")));
            let again = ledger.deliveries.store_signed_set(&tenant, due.seq, set("two")).await.unwrap();
            assert_eq!(again, Some(set("one")), "retries send the same bytes");
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.deliveries.signed_set(&tenant, due.seq).await.unwrap(), Some(set("one")));
            let gone = ledger.deliveries.store_signed_set(&tenant, DeliverySeq(999), set("three")).await.unwrap();
            assert_eq!(gone, None);
        });
    }

    #[test]
    fn signed_set_is_removed_with_its_delivery() {
        block_on(async {
            let (folder, ledger) = open();
            let (tenant, due) = (TENANT.parse().unwrap(), due_one(&ledger).await);
            ledger.deliveries.store_signed_set(&tenant, due.seq, set("one")).await.unwrap();
            let dead = setgate_domain::delivery::Step::Dead { attempt: None, reason: "refused".into() };
            let settlement = setgate_domain::delivery::Settlement::new(due.seq, NOW, dead);
            ledger.deliveries.settle(settlement).await.unwrap();
            let stored = |name: &str| {
                let found = crate::inspect(folder.path()).unwrap();
                found.checks.into_iter().find(|check| check.name == name).unwrap().faults
            };
            assert_eq!(stored("stored"), 0, "its bytes are counted");
            ledger.upkeep.retain(NOW.plus_millis(40 * 24 * 3_600_000)).await.unwrap();
            assert_eq!(ledger.deliveries.signed_set(&tenant, due.seq).await.unwrap(), None);
            assert_eq!(stored("stored"), 0);
        });
    }
}
