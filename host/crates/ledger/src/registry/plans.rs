//! Plans: filter chains as pinned when deliveries were created. Stored once per content, named by their digest, and
//! retained while anything refers to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use setgate_base::crypto::sha256;
use setgate_domain::filter::Plan;
use setgate_domain::id::{Digest, FilterName, TableName, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::commit::queue::Batch;
use crate::registry::blobs;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::stored;
use crate::store::Store;

/// For each filter or table: the number of deliveries that pinned each of its versions.
pub type VersionsInUse = BTreeMap<String, BTreeMap<Digest, u64>>;

/// Number of plan rows cached per batch. A longer linear search would not be faster than the index.
const PLAN_ROWS_CACHED_MAX: usize = 64;

/// Filter chains that deliveries pin, stored once per content.
#[derive(Clone)]
pub struct Plans(pub(crate) Arc<Store>);

impl Plans {
    /// Stores a plan, unless it is already stored, and returns its digest. It is retained while a delivery uses it, and
    /// for [`crate::UNUSED_RETENTION_MS`] after this call and after its first use by a delivery.
    pub async fn intern(&self, plan: &Plan) -> Result<Digest, Error> {
        let (digest, doc) = serialize(plan)?;
        self.write(HashMap::from([(digest, (plan.tenant.clone(), doc))])).await?;
        Ok(digest)
    }

    /// Like [`Plans::intern`](crate::Plans::intern) for several plans at once. Returns their digests in the same order; equal plans are
    /// stored once.
    pub async fn intern_all(&self, plans: &[Plan]) -> Result<Vec<Digest>, Error> {
        let serialized = plans.iter().map(serialize).collect::<Result<Vec<_>, _>>()?;
        let digests = serialized.iter().map(|(digest, _)| *digest).collect();
        let of = plans.iter().map(|plan| plan.tenant.clone());
        self.write(serialized.into_iter().zip(of).map(|((digest, doc), tenant)| (digest, (tenant, doc))).collect())
            .await?;
        Ok(digests)
    }

    async fn write(&self, docs: HashMap<Digest, (Option<TenantId>, String)>) -> Result<(), Error> {
        let now = self.0.clock().now();
        self.0
            .queue()
            .write_named(move |batch| {
                let conn = batch.conn;
                let mut again =
                    conn.prepare_cached("UPDATE plan SET interned_at = max(interned_at, ?2) WHERE digest = ?1")?;
                let mut new =
                    conn.prepare_cached("INSERT INTO plan (digest, refs, interned_at, doc) VALUES (?1, 0, ?2, ?3)")?;
                for (digest, (tenant, doc)) in &docs {
                    if again.execute(params![digest, now])? > 0 {
                        continue;
                    }
                    new.execute(params![digest, now, doc])?;
                    if let Some(tenant) = tenant {
                        batch.effects.add_stored_bytes(tenant, stored::bytes(doc.len()));
                    }
                }
                Ok(())
            })
            .await
    }

    /// The plan with that digest. The [`crate::PLANS_CACHED_MAX`] most recently used plans are cached in memory.
    pub async fn get(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<Arc<Plan>>, Error> {
        let digest = *digest;
        if let Some(plan) = self.0.plans().get(&digest).await {
            return Ok(Some(plan));
        }
        let doc = self
            .0
            .readers()
            .of(tenant)
            .read(move |conn| {
                Ok(conn
                    .prepare_cached("SELECT doc FROM plan WHERE digest = ?1")?
                    .query_row(params![digest], |row| row.get::<_, String>(0))
                    .optional()?)
            })
            .await?;
        let Some(doc) = doc else { return Ok(None) };
        let plan = Arc::new(parse(&digest, &doc)?);
        self.0.plans().insert(digest, Arc::clone(&plan)).await;
        Ok(Some(plan))
    }

    /// Whether an existing delivery of the tenant pinned that version of the filter. Scans all plans, so it is meant
    /// for digests that are no longer a version of the filter.
    pub async fn is_filter_version_in_use(
        &self,
        tenant: &TenantId,
        filter: &FilterName,
        digest: Digest,
    ) -> Result<bool, Error> {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                Ok(conn
                    .prepare_cached(
                        "SELECT 1 FROM plan p WHERE p.refs > 0 AND p.doc ->> '$.tenant' = ?1
                             AND EXISTS (SELECT 1 FROM json_each(p.doc, '$.steps') s
                                 WHERE s.value ->> '$.digest' = ?3 AND s.value ->> '$.binding.filter' = ?2)",
                    )?
                    .exists(params![tenant, filter.as_str(), digest.to_string()])?)
            })
            .await
    }

    /// Versions of the tenant's filters that existing deliveries pinned. Scans all plans.
    pub async fn filter_versions_in_use(&self, tenant: &TenantId) -> Result<VersionsInUse, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| in_use(conn, FILTER_VERSIONS_IN_USE, &tenant)).await
    }

    /// Versions of the tenant's tables that existing deliveries pinned. Scans all plans.
    pub async fn table_versions_in_use(&self, tenant: &TenantId) -> Result<VersionsInUse, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| in_use(conn, TABLE_VERSIONS_IN_USE, &tenant)).await
    }

    /// Like [`Plans::is_filter_version_in_use`](crate::Plans::is_filter_version_in_use), for a version of a table.
    pub async fn is_table_version_in_use(
        &self,
        tenant: &TenantId,
        table: &TableName,
        digest: Digest,
    ) -> Result<bool, Error> {
        let (tenant, table) = (tenant.clone(), table.clone());
        self.0.history_of(&tenant)
            .read(move |conn| {
                Ok(conn
                    .prepare_cached(
                        "SELECT 1 FROM plan p WHERE p.refs > 0 AND p.doc ->> '$.tenant' = ?1
                             AND EXISTS (SELECT 1 FROM json_each(p.doc, '$.tables') t WHERE t.key = ?2 AND t.value = ?3)",
                    )?
                    .exists(params![tenant, table.as_str(), digest.to_string()])?)
            })
            .await
    }
}

/// A plan without the member `tenant`, from an older version, may belong to any tenant.
macro_rules! plans_in_use {
    () => {
        "p.refs > 0 AND coalesce(p.doc ->> '$.tenant', ?1) = ?1"
    };
}
const FILTER_VERSIONS_IN_USE: &str = concat!(
    "SELECT s.value ->> '$.binding.filter', s.value ->> '$.digest', p.refs
     FROM plan p, json_each(p.doc, '$.steps') s WHERE ",
    plans_in_use!()
);
const TABLE_VERSIONS_IN_USE: &str =
    concat!("SELECT t.key, t.value, p.refs FROM plan p, json_each(p.doc, '$.tables') t WHERE ", plans_in_use!());

fn in_use(conn: &Connection, sql: &str, tenant: &TenantId) -> Result<VersionsInUse, Error> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![tenant])?;
    let mut used = VersionsInUse::new();
    while let Some(row) = rows.next()? {
        let digest = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let digest: Digest = digest
            .parse()
            .map_err(|_| Error::corrupt(format!("a plan refers to a version with the malformed digest {digest}")))?;
        *used.entry(row.get(0)?).or_default().entry(digest).or_default() += row.get::<_, i64>(2)?.cast_unsigned();
    }
    Ok(used)
}

/// The digest under which [`Plans::intern`](crate::Plans::intern) stores a plan.
///
/// # Errors
/// If the plan cannot be serialised.
pub fn plan_digest(plan: &Plan) -> Result<Digest, Error> {
    serialize(plan).map(|(digest, _)| digest)
}

fn serialize(plan: &Plan) -> Result<(Digest, String), Error> {
    let doc =
        serde_json::to_string(plan).map_err(|e| Error::Engine(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
    Ok((Digest(sha256(doc.as_bytes())), doc))
}

/// Row id of a plan that a delivery is about to use. `refs` is only updated at the end of the batch, so `interned_at`
/// protects an unused plan from a sweep in the same batch. The row therefore exists until the batch ends and can be
/// cached.
pub(crate) fn plan_row(batch: &mut Batch<'_>, digest: &Digest, now: Timestamp) -> Result<i64, Error> {
    if let Some((_, id)) = batch.plans.iter().find(|(known, _)| known == digest) {
        return Ok(*id);
    }
    let conn = batch.conn;
    let (id, refs, interned_at): (i64, i64, Timestamp) = conn
        .prepare_cached("SELECT id, refs, interned_at FROM plan WHERE digest = ?1")?
        .query_row(params![digest], |row| Ok((row.get(0)?, row.get(1)?, row.column(2)?)))
        .optional()?
        .ok_or(Error::UnknownPlan(*digest))?;
    // Once per plan and batch, not per delivery, since the row contains the whole chain.
    if refs == 0 && interned_at < now {
        conn.prepare_cached("UPDATE plan SET interned_at = ?2 WHERE id = ?1")?.execute(params![id, now])?;
    }
    if batch.plans.len() < PLAN_ROWS_CACHED_MAX {
        batch.plans.push((*digest, id));
    }
    Ok(id)
}

/// Deletes plans and blobs that are unreferenced and were last stored before `before`. Returns how many of each.
pub(crate) fn delete_unused(batch: &mut Batch<'_>, before: Timestamp) -> Result<(u64, u64), Error> {
    let (conn, snapshot) = (batch.conn, batch.snapshot);
    let swept: Vec<(Option<TenantId>, i64)> = conn
        .prepare_cached(
            "DELETE FROM plan WHERE refs = 0 AND interned_at < ?1 RETURNING
                 CASE WHEN json_valid(doc) THEN doc ->> '$.tenant' END, octet_length(doc)",
        )?
        .query_map(params![before], |row| Ok((row.column(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let plans = swept.len();
    for (tenant, bytes) in swept {
        tenant.iter().for_each(|tenant| batch.effects.add_stored_bytes(tenant, -bytes));
    }
    let mut unused: Vec<Digest> = conn
        .prepare_cached("SELECT digest FROM blob WHERE stored_at < ?1")?
        .query_map(params![before], |row| row.column(0))?
        .collect::<Result<_, _>>()?;
    let mut used: std::collections::BTreeSet<Digest> = snapshot
        .tenants
        .values()
        .flat_map(|view| {
            let versions = view.filters.values().flat_map(|filter| filter.value.versions.iter().map(|v| v.digest));
            versions.chain(view.tables.values().flat_map(|table| table.value.digests()))
        })
        .collect();
    unused.retain(|digest| !used.contains(digest));
    if !unused.is_empty() {
        let mut statement = conn.prepare_cached("SELECT digest, doc FROM plan")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let plan = parse(&row.column(0)?, &row.get::<_, String>(1)?)?;
            used.extend(plan.steps.iter().map(|step| step.digest));
            used.extend(plan.tables.values());
        }
        unused.retain(|digest| !used.contains(digest));
    }
    for digest in &unused {
        blobs::delete(batch, digest)?;
    }
    blobs::delete_abandoned_uploads(batch, before)?;
    Ok((plans as u64, unused.len() as u64))
}

pub(crate) fn parse(digest: &Digest, doc: &str) -> Result<Plan, Error> {
    serde_json::from_str(doc).map_err(|e| Error::corrupt(format!("plan {digest} cannot be decoded: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{block_on, open, tenant};

    #[test]
    fn plans_are_stored_once() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = Plan::default();
            let digest = ledger.plans.intern(&plan).await.unwrap();
            assert_eq!(ledger.plans.intern(&plan).await.unwrap(), digest);
            assert!(ledger.plans.get(&tenant().id, &digest).await.unwrap().unwrap().steps.is_empty());
            assert!(ledger.plans.get(&tenant().id, &Digest([0; 32])).await.unwrap().is_none());
        });
    }

    #[test]
    fn versions_in_use_are_per_tenant() {
        use crate::FanOut;
        use crate::tests::{TENANT, event, new_delivery, with_events};
        use setgate_domain::event::EventSeq;
        use setgate_domain::filter::{Binding, PlanStep, empty_object};

        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 1).await;
            let (component, rows) = (Digest([4; 32]), Digest([5; 32]));
            let binding = Binding {
                filter: "redact".parse().unwrap(),
                config: empty_object(),
                secrets: Default::default(),
                grants: Default::default(),
                on_fault: Default::default(),
                reuse: None,
            };
            let plan = Plan {
                tenant: Some(TENANT.parse().unwrap()),
                steps: vec![PlanStep { binding, digest: component }],
                tables: [("apps".parse().unwrap(), rows)].into(),
                ..Plan::default()
            };
            let plan = ledger.plans.intern(&plan).await.unwrap();
            let ran = async |tenant: &str, filter: &str, digest| {
                ledger
                    .plans
                    .is_filter_version_in_use(&tenant.parse().unwrap(), &filter.parse().unwrap(), digest)
                    .await
                    .unwrap()
            };
            let saw = async |tenant: &str, table: &str, digest| {
                ledger
                    .plans
                    .is_table_version_in_use(&tenant.parse().unwrap(), &table.parse().unwrap(), digest)
                    .await
                    .unwrap()
            };
            assert!(!ran(TENANT, "redact", component).await, "a plan that no delivery runs opens nothing");
            let deliveries = vec![new_delivery(1, 1, plan)];
            ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            assert_eq!(event(1).tenant.as_str(), TENANT);
            assert!(ran(TENANT, "redact", component).await && saw(TENANT, "apps", rows).await);
            assert!(!ran("another", "redact", component).await && !saw("another", "apps", rows).await);
            assert!(!ran(TENANT, "other", component).await && !saw(TENANT, "other", rows).await);
            assert!(!ran(TENANT, "redact", rows).await && !saw(TENANT, "apps", component).await);
            let used = async |tenant: &str| {
                let tenant = tenant.parse().unwrap();
                let filters = ledger.plans.filter_versions_in_use(&tenant).await.unwrap();
                (filters, ledger.plans.table_versions_in_use(&tenant).await.unwrap())
            };
            let one = |name: &str, digest| VersionsInUse::from([(name.to_owned(), [(digest, 1)].into())]);
            assert_eq!(used(TENANT).await, (one("redact", component), one("apps", rows)));
            assert_eq!(used("another").await, Default::default());
        });
    }
}
