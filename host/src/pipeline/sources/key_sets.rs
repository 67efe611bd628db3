//! The public keys of issuers: given with the source, or fetched and cached.
//!
//! A fetched key set is used until its lifetime ends, and then fetched again by the next SET. A token with an unknown key
//! causes a fetch before that, at most one in [`REFETCH_PAUSE_MS`] for each source. Each source has one fetch in flight, for
//! which all its SETs wait. If a fetch fails and no usable key set is cached, the sender has to retry: the signature is
//! neither right nor wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use setgate_base::clock::Clock;
use setgate_base::fair::{FairLimits, FairSemaphore};
use setgate_base::telemetry::{LogThrottle, metric};
use setgate_domain::id::TenantId;
use setgate_domain::source::{KeyOrigin, Source};
use setgate_domain::time::Timestamp;
use setgate_egress::Egress;
use setgate_jose::JwkSet;
use tokio::sync::OwnedMutexGuard;

use super::cache::{Cache, Entry, EntryState};
use super::fetch::fetch;

/// Shortest time between two fetches of one source because of unknown keys, in milliseconds.
const REFETCH_PAUSE_MS: i64 = 30_000;
/// How long a failed fetch is not repeated if there is no usable key set, in milliseconds.
const FAILURE_PAUSE_MS: i64 = 5_000;
/// Fetches in flight.
const FETCHES_MAX: usize = 32;
/// The share of [`FETCHES_MAX`] that one tenant may use.
const FETCHES_PER_TENANT_MAX: usize = 4;
/// Fetches of one tenant that may be queued, each of another source.
const FETCHES_QUEUED_PER_TENANT_MAX: usize = 64;

/// Tokens of strangers may cause fetches, so the log line is rate-limited.
static FAILED: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// The keys of a source are not available now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysUnavailable {
    /// The last fetch failed. Carries the problem.
    #[error("the JWKS of this source cannot be fetched: {0}")]
    Failed(String),
    /// Too many fetches of the tenant are queued.
    #[error("{FETCHES_QUEUED_PER_TENANT_MAX} key sets of tenant `{0}` are queued to be fetched")]
    Busy(TenantId),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    Closed,
}

/// A key set of a source.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) set: Arc<JwkSet>,
    entry: Arc<Entry>,
    /// Number of fetches of the entry when the set was read.
    fetches: u64,
    /// Whether the set was fetched for this request, so that another fetch would not find more.
    is_new: bool,
}

/// Provides the keys of sources. Cheap to clone.
#[derive(Clone)]
pub(in crate::pipeline) struct KeySets(Arc<Shared>);

struct Shared {
    egress: Egress,
    clock: Clock,
    cache: Mutex<Cache>,
    turns: FairSemaphore,
}

impl KeySets {
    pub(in crate::pipeline) fn new(egress: Egress, clock: Clock) -> Self {
        let turns = FairSemaphore::new(FairLimits {
            permits: FETCHES_MAX,
            per_tenant_max: FETCHES_PER_TENANT_MAX,
            // A fetch lasts for as long as the issuer takes to respond.
            reserve_for_idle_tenants: true,
            queued_per_tenant_max: FETCHES_QUEUED_PER_TENANT_MAX,
            estimated_cost: 1,
        });
        Self(Arc::new(Shared { egress, clock, cache: Mutex::default(), turns }))
    }

    /// The keys of a source, fetched if none are cached.
    pub(super) async fn current(&self, source: &Source, origin: &KeyOrigin) -> Result<Keys, KeysUnavailable> {
        let entry = self.0.cache().entry(source, origin);
        let now = self.0.clock.now();
        if let KeyOrigin::Jwks(text) = origin
            && entry.state().set.is_none()
        {
            // It was checked when it was stored.
            let set = JwkSet::parse(text.as_bytes()).unwrap_or_default();
            entry.state().set = Some((Arc::new(set), Timestamp::from_millis(i64::MAX)));
            self.0.weigh(source, &entry);
        }
        let seen = {
            let state = entry.state();
            if let Some(set) = state.usable(now) {
                return Ok(Keys { set, fetches: state.fetches, is_new: false, entry: entry.clone() });
            }
            if let Some((problem, at)) = &state.failure
                && now.since(*at) < FAILURE_PAUSE_MS
            {
                return Err(KeysUnavailable::Failed(problem.clone()));
            }
            state.fetches
        };
        let turn = entry.fetching.clone().lock_owned().await;
        if entry.state().fetches == seen {
            self.fetch(source, &entry, turn).await?;
        }
        // Otherwise another request has fetched it meanwhile.
        self.newly_fetched(&entry)
    }

    /// A newer version of a key set that lacks a key. `None` if a fetch would find no other version, or is not allowed
    /// yet.
    pub(super) async fn newer(&self, source: &Source, known: &Keys) -> Result<Option<Keys>, KeysUnavailable> {
        let entry = &known.entry;
        if known.is_new || matches!(entry.origin, KeyOrigin::Jwks(_)) {
            return Ok(None);
        }
        // Waits for a running fetch, which may find the key.
        let turn = entry.fetching.clone().lock_owned().await;
        let is_newer = {
            let mut state = entry.state();
            let now = self.0.clock.now();
            let is_newer = state.fetches != known.fetches;
            if !is_newer && state.refetched_at.is_some_and(|at| now.since(at) < REFETCH_PAUSE_MS) {
                return match &state.failure {
                    Some((problem, _)) => Err(KeysUnavailable::Failed(problem.clone())),
                    None => Ok(None),
                };
            }
            if !is_newer {
                state.refetched_at = Some(now);
            }
            is_newer
        };
        if !is_newer {
            self.fetch(source, entry, turn).await?;
        }
        self.newly_fetched(entry).map(Some)
    }

    /// The result of the last fetch.
    fn newly_fetched(&self, entry: &Arc<Entry>) -> Result<Keys, KeysUnavailable> {
        let state = entry.state();
        match (&state.failure, state.usable(self.0.clock.now())) {
            (None, Some(set)) => Ok(Keys { set, fetches: state.fetches, is_new: true, entry: Arc::clone(entry) }),
            (Some((problem, _)), _) => Err(KeysUnavailable::Failed(problem.clone())),
            (None, None) => Err(KeysUnavailable::Failed("it was not fetched in time".to_owned())),
        }
    }

    /// Fetches a key set, in a task of its own: it completes even if the request is cancelled, because others wait for it.
    async fn fetch(
        &self,
        source: &Source,
        entry: &Arc<Entry>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<(), KeysUnavailable> {
        let KeyOrigin::JwksUrl(url) = entry.origin.clone() else { return Ok(()) };
        let (this, source, entry) = (self.clone(), source.clone(), Arc::clone(entry));
        let task = tokio::spawn(async move {
            use setgate_base::fair::AcquireError::{Closed, QueueFull};
            let tenant = &source.tenant;
            let _permit = this.0.turns.acquire_bounded(tenant).await.map_err(|error| {
                // No fetch took place.
                entry.state().refetched_at = None;
                match error {
                    QueueFull => KeysUnavailable::Busy(tenant.clone()),
                    Closed => KeysUnavailable::Closed,
                }
            })?;
            let fetched = fetch(&this.0.egress, tenant, &url).await;
            let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
            counter!(metric::JWKS_FETCHES, "tenant" => tenant.to_string(), "outcome" => outcome).increment(1);
            if let Err(problem) = &fetched
                && let Some(unsaid) = FAILED.allow()
            {
                tracing::warn!(%tenant, source = %source.name, unsaid, "JWKS of a source cannot be fetched: {problem}");
            }
            let now = this.0.clock.now();
            {
                let mut state = entry.state();
                state.fetches += 1;
                match fetched {
                    Ok(fetched) => {
                        state.failure = None;
                        state.set = Some((Arc::new(fetched.set), now.plus_millis(fetched.lifetime_ms)));
                    }
                    Err(problem) => state.failure = Some((problem, now)),
                }
            }
            this.0.weigh(&source, &entry);
            drop(turn);
            Ok(())
        });
        task.await.unwrap_or(Err(KeysUnavailable::Closed))
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accounts for a new key set. The state of the entry must not be locked.
    fn weigh(&self, source: &Source, entry: &Arc<Entry>) {
        self.cache().weigh(source, entry);
    }
}

impl EntryState {
    /// The key set, if its lifetime has not ended.
    fn usable(&self, now: Timestamp) -> Option<Arc<JwkSet>> {
        self.set.as_ref().filter(|(_, until)| now < *until).map(|(set, _)| Arc::clone(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::sources::testing::{Issuer, egress, jwks, source};

    fn key_sets() -> (Clock, KeySets) {
        let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
        (clock.clone(), KeySets::new(egress(&clock), clock))
    }

    fn pass(clock: &Clock, millis: i64) {
        clock.set(clock.now().plus_millis(millis));
    }

    fn kid(keys: &Keys) -> String {
        keys.set.keys().iter().filter_map(|key| key.kid()).collect::<Vec<_>>().join(",")
    }

    #[tokio::test]
    async fn key_set_is_used_until_its_lifetime_ends() {
        let (clock, sets) = key_sets();
        let (issuer, idp) = (Issuer::start().await, source("acme", "idp"));
        issuer.serve("a");
        for _ in 0..2 {
            assert_eq!(kid(&sets.current(&idp, &issuer.origin).await.unwrap()), "a");
        }
        issuer.serve("b");
        pass(&clock, 299_999);
        assert_eq!(kid(&sets.current(&idp, &issuer.origin).await.unwrap()), "a");
        assert_eq!(issuer.hits(), 1);
        pass(&clock, 1);
        assert_eq!(kid(&sets.current(&idp, &issuer.origin).await.unwrap()), "b");
        assert_eq!(issuer.hits(), 2);
    }

    #[tokio::test]
    async fn unknown_key_causes_one_fetch_in_a_pause() {
        let (clock, sets) = key_sets();
        let (issuer, idp) = (Issuer::start().await, source("acme", "idp"));
        issuer.serve("a");
        let new = sets.current(&idp, &issuer.origin).await.unwrap();
        assert!(sets.newer(&idp, &new).await.unwrap().is_none(), "it was fetched for this request");
        let known = sets.current(&idp, &issuer.origin).await.unwrap();
        issuer.serve("b");
        let newer = sets.newer(&idp, &known).await.unwrap().unwrap();
        assert_eq!((kid(&newer).as_str(), issuer.hits()), ("b", 2));
        assert_eq!(kid(&sets.newer(&idp, &known).await.unwrap().unwrap()), "b", "an older version gets the newer one");
        let known = sets.current(&idp, &issuer.origin).await.unwrap();
        pass(&clock, REFETCH_PAUSE_MS - 1);
        assert!(sets.newer(&idp, &known).await.unwrap().is_none());
        assert_eq!(issuer.hits(), 2);
        pass(&clock, 1);
        assert!(sets.newer(&idp, &known).await.unwrap().is_some());
        assert_eq!(issuer.hits(), 3);
    }

    #[tokio::test]
    async fn concurrent_requests_share_a_fetch() {
        let (_, sets) = key_sets();
        let (issuer, idp) = (Issuer::start().await, source("acme", "idp"));
        issuer.serve("a");
        let all = |issuer: &Issuer| {
            let (sets, idp, origin) = (sets.clone(), idp.clone(), issuer.origin.clone());
            let one = move || {
                let (sets, idp, origin) = (sets.clone(), idp.clone(), origin.clone());
                async move {
                    let known = sets.current(&idp, &origin).await.unwrap();
                    if kid(&known) == "a" { sets.newer(&idp, &known).await.unwrap().unwrap_or(known) } else { known }
                }
            };
            futures_util::future::join_all((0..50).map(move |_| tokio::spawn(one())))
        };
        all(&issuer).await;
        assert_eq!(issuer.hits(), 1);
        issuer.serve("b");
        let found = all(&issuer).await;
        assert!(
            found.into_iter().all(|keys| kid(&keys.unwrap()) == "b"),
            "those that wait for the fetch get its result"
        );
        assert_eq!(issuer.hits(), 2);
    }

    #[tokio::test]
    async fn failed_fetch_is_no_key_set() {
        let (clock, sets) = key_sets();
        let (issuer, idp) = (Issuer::start().await, source("acme", "idp"));
        let good = jwks("a");
        for (status, content_type, body, part) in [
            ("500 X", "application/json", good.as_str(), "the status 500"),
            ("302 X", "application/json", "", "the status 302"),
            ("200 OK", "text/html", &good, "content type"),
            ("200 OK", "application/json", "<html>", "JWKS"),
            ("200 OK", "application/json", &" ".repeat((256 << 10) + 1), "larger than 262144 bytes"),
        ] {
            issuer.respond(status, content_type, body);
            let why = sets.current(&idp, &issuer.origin).await.unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
            let hits = issuer.hits();
            assert_eq!(sets.current(&idp, &issuer.origin).await.unwrap_err().to_string(), why, "within the pause");
            assert_eq!(issuer.hits(), hits);
            pass(&clock, FAILURE_PAUSE_MS);
        }
        issuer.serve("a");
        let new = sets.current(&idp, &issuer.origin).await.unwrap();
        assert_eq!(kid(&new), "a", "it recovers");
        // A usable key set stays usable, but a missing key is neither known nor unknown.
        issuer.respond("500 X", "application/json", "");
        let known = sets.current(&idp, &issuer.origin).await.unwrap();
        for _ in 0..2 {
            assert!(sets.newer(&idp, &known).await.is_err());
            assert_eq!(kid(&sets.current(&idp, &issuer.origin).await.unwrap()), "a");
        }
        pass(&clock, 300_000);
        assert!(sets.current(&idp, &issuer.origin).await.is_err(), "its lifetime has ended");
    }

    #[tokio::test]
    async fn key_set_of_a_document_is_never_fetched() {
        let (clock, sets) = key_sets();
        let (idp, origin) = (source("acme", "idp"), KeyOrigin::Jwks(jwks("a")));
        pass(&clock, 86_400_000);
        let known = sets.current(&idp, &origin).await.unwrap();
        assert_eq!(kid(&known), "a");
        assert!(sets.newer(&idp, &known).await.unwrap().is_none());
        let changed = KeyOrigin::Jwks(jwks("b"));
        assert_eq!(kid(&sets.current(&idp, &changed).await.unwrap()), "b", "the document was changed");
    }

    #[tokio::test]
    async fn hanging_issuers_of_a_tenant_leave_fetches_to_others() {
        let (_, sets) = key_sets();
        let (hanging, good) = (Issuer::start().await, Issuer::start().await);
        good.serve("a");
        let begin = |number: usize| {
            let (sets, origin) = (sets.clone(), hanging.origin.clone());
            let source = source("acme", &format!("idp-{number}"));
            tokio::spawn(async move { sets.current(&source, &origin).await.map(drop) })
        };
        let queued = FETCHES_PER_TENANT_MAX + FETCHES_QUEUED_PER_TENANT_MAX;
        let waiting: Vec<_> = (0..queued).map(begin).collect();
        while hanging.hits() < FETCHES_PER_TENANT_MAX {
            tokio::task::yield_now().await;
        }
        let busy = KeysUnavailable::Busy("acme".parse().unwrap());
        assert_eq!(begin(queued).await.unwrap(), Err(busy), "the queue of the tenant is full");
        assert_eq!(kid(&sets.current(&source("zeta", "idp"), &good.origin).await.unwrap()), "a");
        assert_eq!(hanging.hits(), FETCHES_PER_TENANT_MAX);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
