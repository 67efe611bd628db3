//! Counters of attempts and settlements while a batch runs: written at its end, one row per subscription, minute and hour.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::statistics::{HOUR_MS, MINUTE_MS, Statistics};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::sql_types::{Json, params};

/// Capacity of the cache of rows.
const CACHED_ROWS_MAX: usize = 1_024;

/// Counters of a batch, by subscription and minute.
#[derive(Default)]
pub(crate) struct BatchCounters(BTreeMap<(TenantId, SubscriptionId, Timestamp), Statistics>);

impl BatchCounters {
    /// Counters of the minute that contains `at`.
    pub(crate) fn of(&mut self, tenant: &TenantId, subscription: SubscriptionId, at: Timestamp) -> &mut Statistics {
        self.0.entry((tenant.clone(), subscription, bucket_start(at, MINUTE_MS))).or_default()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (key, counted) in other.0 {
            self.0.entry(key).or_default().merge(&counted);
        }
    }

    pub(crate) fn store(&self, conn: &Connection, cache: &mut StatisticsCache) -> Result<(), Error> {
        let mut hours: BTreeMap<(&TenantId, SubscriptionId, Timestamp), Statistics> = BTreeMap::new();
        for ((tenant, subscription, minute), counted) in &self.0 {
            cache.add(conn, (tenant.clone(), *subscription, MINUTE_MS, *minute), counted)?;
            hours.entry((tenant, *subscription, bucket_start(*minute, HOUR_MS))).or_default().merge(counted);
        }
        for ((tenant, subscription, hour), counted) in &hours {
            cache.add(conn, ((*tenant).clone(), *subscription, HOUR_MS, *hour), counted)?;
        }
        Ok(())
    }
}

/// Start of the bucket that contains an instant.
pub(crate) fn bucket_start(at: Timestamp, bucket_ms: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().div_euclid(bucket_ms).saturating_mul(bucket_ms))
}

/// Key of a row: tenant, subscription, bucket length in milliseconds, bucket start.
type Key = (TenantId, SubscriptionId, i64, Timestamp);

/// Write-through cache of rows, so that adding to one need not read it. Invalid after a batch that was not committed.
#[derive(Default)]
pub(crate) struct StatisticsCache(HashMap<Key, Statistics>);

impl StatisticsCache {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn add(&mut self, conn: &Connection, key: Key, counted: &Statistics) -> Result<(), Error> {
        if self.0.len() >= CACHED_ROWS_MAX && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let (tenant, subscription, bucket_ms, at) = key.clone();
        let sum = match self.0.entry(key) {
            Entry::Occupied(cached) => cached.into_mut(),
            Entry::Vacant(place) => {
                let before = conn
                    .prepare_cached(
                        "SELECT doc FROM statistic WHERE tenant = ?1 AND subscription = ?2 AND bucket_ms = ?3 AND at = ?4",
                    )?
                    .query_row(params![tenant, subscription, bucket_ms, at], |row| row.get::<_, Json<Statistics>>(0))
                    .optional()?;
                place.insert(before.map(|Json(before)| before).unwrap_or_default())
            }
        };
        sum.merge(counted);
        conn.prepare_cached(
            "INSERT INTO statistic (tenant, subscription, bucket_ms, at, doc) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET doc = ?5",
        )?
        .execute(params![tenant, subscription, bucket_ms, at, Json(&*sum)])?;
        Ok(())
    }
}
