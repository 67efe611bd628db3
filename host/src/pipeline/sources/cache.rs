//! Cached key sets, bounded in bytes: a limit for the host, and a share that one tenant may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::source::{KeyOrigin, Source};
use setgate_domain::time::Timestamp;
use setgate_jose::JwkSet;

/// Bytes of cached key sets of all tenants.
const KEY_SETS_BYTES_MAX: usize = 16 << 20;
/// The share of [`KEY_SETS_BYTES_MAX`] that one tenant may use.
const KEY_SETS_BYTES_PER_TENANT_MAX: usize = 2 << 20;
/// Estimated bytes of an entry without its keys.
const ENTRY_BYTES: usize = 512;

/// The entries of all sources.
#[derive(Debug)]
pub(super) struct Cache {
    tenants: HashMap<TenantId, HashMap<SourceName, Slot>>,
    bytes: usize,
    bytes_max: usize,
    per_tenant_max: usize,
    /// Number of uses so far, by which the least recently used entry is found.
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    bytes: usize,
    used: u64,
}

/// The key set of one source.
#[derive(Debug)]
pub(super) struct Entry {
    /// The origin of the keys. A source with another origin gets another entry.
    pub(super) origin: KeyOrigin,
    /// Locked while the key set is fetched, so that a source has one fetch in flight.
    pub(super) fetching: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<EntryState>,
}

#[derive(Debug, Default)]
pub(super) struct EntryState {
    /// The last key set that was fetched, and the end of its lifetime.
    pub(super) set: Option<(Arc<JwkSet>, Timestamp)>,
    /// Number of fetches that ended.
    pub(super) fetches: u64,
    /// The problem of the last fetch, and its time, if it failed.
    pub(super) failure: Option<(String, Timestamp)>,
    /// Start of the last fetch because of an unknown key.
    pub(super) refetched_at: Option<Timestamp>,
}

impl Entry {
    fn new(origin: KeyOrigin) -> Self {
        Self { origin, fetching: Arc::default(), state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, EntryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> usize {
        let (KeyOrigin::JwksUrl(text) | KeyOrigin::Jwks(text)) = &self.origin;
        ENTRY_BYTES + text.len() + self.state().set.as_ref().map_or(0, |(set, _)| set.bytes())
    }

    /// Entries with a running fetch are not evicted: there would be a second fetch for the same source.
    fn is_fetching(&self) -> bool {
        self.fetching.try_lock().is_err()
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(KEY_SETS_BYTES_MAX, KEY_SETS_BYTES_PER_TENANT_MAX)
    }
}

impl Cache {
    fn new(bytes_max: usize, per_tenant_max: usize) -> Self {
        Self { tenants: HashMap::new(), bytes: 0, bytes_max, per_tenant_max, uses: 0 }
    }

    /// The entry of a source. It is new if the source has none, or if the origin of its keys has changed.
    pub(super) fn entry(&mut self, source: &Source, origin: &KeyOrigin) -> Arc<Entry> {
        self.uses += 1;
        let slot = self.tenants.get_mut(&source.tenant).and_then(|slots| slots.get_mut(&source.name));
        if let Some(slot) = slot.filter(|slot| slot.entry.origin == *origin) {
            slot.used = self.uses;
            return Arc::clone(&slot.entry);
        }
        let entry = Arc::new(Entry::new(origin.clone()));
        self.put(source, &entry);
        entry
    }

    /// Accounts for a new key set in an entry, unless the entry was evicted or replaced meanwhile.
    pub(super) fn weigh(&mut self, source: &Source, entry: &Arc<Entry>) {
        let slot = self.tenants.get(&source.tenant).and_then(|slots| slots.get(&source.name));
        if slot.is_some_and(|slot| Arc::ptr_eq(&slot.entry, entry)) {
            self.put(source, entry);
        }
    }

    /// Stores an entry, and evicts others if they take too much memory: first of the same tenant, then of the tenant with
    /// the most bytes, and of each the least recently used.
    fn put(&mut self, source: &Source, entry: &Arc<Entry>) {
        let slot = Slot { entry: Arc::clone(entry), bytes: entry.bytes(), used: self.uses };
        self.bytes += slot.bytes;
        let slots = self.tenants.entry(source.tenant.clone()).or_default();
        let before = slots.insert(source.name.clone(), slot);
        self.bytes -= before.map_or(0, |slot| slot.bytes);
        while self.tenants.get(&source.tenant).is_some_and(|slots| bytes_of(slots) > self.per_tenant_max) {
            if !self.evict_from(&source.tenant.clone()) {
                break;
            }
        }
        while self.bytes > self.bytes_max {
            let largest =
                self.tenants.iter().max_by_key(|(_, slots)| bytes_of(slots)).map(|(tenant, _)| tenant.clone());
            if !largest.is_some_and(|tenant| self.evict_from(&tenant)) {
                break;
            }
        }
    }

    /// Evicts the least recently used entry of a tenant. False if all of them have a running fetch.
    fn evict_from(&mut self, tenant: &TenantId) -> bool {
        let Some(slots) = self.tenants.get_mut(tenant) else { return false };
        let idle = slots.iter().filter(|(_, slot)| !slot.entry.is_fetching());
        let Some(name) = idle.min_by_key(|(_, slot)| slot.used).map(|(name, _)| name.clone()) else { return false };
        self.bytes -= slots.remove(&name).map_or(0, |slot| slot.bytes);
        if slots.is_empty() {
            self.tenants.remove(tenant);
        }
        true
    }
}

fn bytes_of(slots: &HashMap<SourceName, Slot>) -> usize {
    slots.values().map(|slot| slot.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::sources::testing::source;

    fn url(text: &str) -> KeyOrigin {
        KeyOrigin::JwksUrl(text.to_owned())
    }

    #[test]
    fn key_sets_stay_within_the_share_of_their_tenant_and_the_host() {
        // Each entry takes a little more than `ENTRY_BYTES`.
        let mut cache = Cache::new(8 * ENTRY_BYTES, 4 * ENTRY_BYTES);
        let names = |cache: &Cache, tenant: &str| {
            let slots = cache.tenants.get(&tenant.parse::<TenantId>().unwrap());
            let mut names: Vec<_> = slots.into_iter().flatten().map(|(name, _)| name.to_string()).collect();
            names.sort();
            names
        };
        let origin = url("https://idp.example/jwks");
        let first = cache.entry(&source("acme", "a"), &origin);
        for name in ["b", "c", "a", "d"] {
            cache.entry(&source("acme", name), &origin);
        }
        assert_eq!(names(&cache, "acme"), ["a", "c", "d"], "the least recently used one is evicted");
        assert!(Arc::ptr_eq(&first, &cache.entry(&source("acme", "a"), &origin)));
        for name in ["a", "b", "c"] {
            cache.entry(&source("zeta", name), &origin);
        }
        assert_eq!((names(&cache, "acme").len(), names(&cache, "zeta").len()), (3, 3));
        for name in ["a", "b"] {
            cache.entry(&source("beta", name), &origin);
        }
        assert_eq!(names(&cache, "beta"), ["a", "b"], "the tenants with the most make room");
        assert_eq!(names(&cache, "acme").len() + names(&cache, "zeta").len(), 5);
        assert!(cache.bytes <= cache.bytes_max);
    }

    #[test]
    fn entry_with_a_running_fetch_is_not_evicted() {
        let mut cache = Cache::new(usize::MAX, 2 * ENTRY_BYTES);
        let origin = url("https://idp.example/jwks");
        let running = cache.entry(&source("acme", "a"), &origin);
        let guard = running.fetching.try_lock().unwrap();
        cache.entry(&source("acme", "b"), &origin);
        assert!(Arc::ptr_eq(&running, &cache.entry(&source("acme", "a"), &origin)));
        drop(guard);
        cache.entry(&source("acme", "c"), &origin);
        assert!(!Arc::ptr_eq(&running, &cache.entry(&source("acme", "a"), &origin)));
    }

    #[test]
    fn another_origin_makes_another_entry() {
        let mut cache = Cache::default();
        let idp = source("acme", "idp");
        let first = cache.entry(&idp, &url("https://idp.example/1"));
        let second = cache.entry(&idp, &url("https://idp.example/2"));
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(cache.bytes, second.bytes(), "the old one is replaced");
    }
}
