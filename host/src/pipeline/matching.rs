//! Selects the subscriptions that match an event. Tenants write the patterns and senders write the types, so the work
//! is bounded (`quota.patterns_max`, `quota.patterns_bytes_max`), estimated in advance, and charged to its tenant. A
//! match that would take more than [`ON_THE_SPOT_NS_MAX`] is scheduled fairly between tenants and runs on a blocking
//! thread.

use std::borrow::Cow;
use std::sync::Arc;

use setgate_base::fair::{AcquireError, FairLimits, FairSemaphore};
use setgate_dialects::catalogue;
use setgate_domain::builtin_event::PING;
use setgate_domain::id::{SourceName, SubscriptionId, TenantId};
use setgate_domain::subscription::{Pattern, Subscription};
use setgate_ledger::TenantView;

/// Large matches that run at the same time on this host.
const MATCHES_MAX: usize = 1;
/// Longest estimated match, in nanoseconds, that runs on the calling thread.
pub(super) const ON_THE_SPOT_NS_MAX: u64 = 1_000_000;
/// Cost charged for a large match before its estimate is known, in microseconds.
const MATCH_COST_US: u64 = 1_000;
/// Nanoseconds for one comparison of a pattern with an empty type. Each byte of the type adds one nanosecond.
const PAIR_NS: u64 = 32;

/// The types of one event, each with its short name in the catalogue.
pub(super) struct Types<'a>(Vec<(&'a str, Option<Cow<'static, str>>)>);

impl<'a> Types<'a> {
    pub(super) fn of(types: &'a [String]) -> Self {
        Self(types.iter().map(|uri| (uri.as_str(), catalogue::short_name(uri))).collect())
    }

    /// Whether one of the patterns matches one of the types.
    pub(super) fn any(&self, patterns: &[Pattern]) -> bool {
        self.0
            .iter()
            .any(|(uri, short_name)| patterns.iter().any(|pattern| pattern.matches(uri, short_name.as_deref())))
    }

    /// Upper estimate in nanoseconds for matching that many patterns against the types.
    pub(super) fn work_ns(&self, patterns: u64) -> u64 {
        let length =
            |(uri, short): &(&str, Option<Cow<'_, str>>)| uri.len() + short.as_ref().map_or(0, |name| name.len());
        let each: u64 = self.0.iter().map(|names| 2 * PAIR_NS + length(names) as u64).sum();
        patterns.saturating_mul(each)
    }

    fn owned(&self) -> Vec<String> {
        self.0.iter().map(|(uri, _)| (*uri).to_owned()).collect()
    }
}

/// Whether the subscription matches an event of that source and of those types. Setgate's own events go only to
/// subscriptions that name their source. A ping event never matches, because its single delivery is created together
/// with it.
pub(super) fn wants(subscription: &Subscription, source: &SourceName, types: &Types<'_>) -> bool {
    let named = subscription.sources.contains(source);
    let all = subscription.sources.is_empty();
    let is_ping = || types.0.iter().any(|(uri, _)| *uri == PING);
    let from = if source.is_setgate() { named && !is_ping() } else { named || all };
    from && types.any(&subscription.events)
}

fn wanting<'v>(view: &'v TenantView, source: &SourceName, types: &Types<'_>) -> impl Iterator<Item = &'v Subscription> {
    view.subscriptions.values().map(|entry| &entry.value).filter(move |one| wants(one, source, types))
}

/// Matches events with subscriptions. Clones share the schedule of large matches.
#[derive(Clone)]
pub(super) struct Matcher {
    /// Admits large matches.
    large: FairSemaphore,
}

impl Matcher {
    /// `queued_per_tenant_max` limits the large matches of one tenant that are queued.
    pub(super) fn new(queued_per_tenant_max: usize) -> Self {
        let large = FairSemaphore::new(FairLimits {
            permits: MATCHES_MAX,
            per_tenant_max: MATCHES_MAX,
            reserve_for_idle_tenants: false,
            queued_per_tenant_max,
            estimated_cost: MATCH_COST_US,
        });
        Self { large }
    }

    /// The subscriptions of a tenant that match an event of that source and of those types. If `bounded` is set and the
    /// tenant's queue is full, the match is refused instead of queued.
    pub(super) async fn wanting<'v>(
        &self,
        view: &'v Arc<TenantView>,
        source: &SourceName,
        types: &[String],
        bounded: bool,
    ) -> Result<Vec<&'v Subscription>, AcquireError> {
        let of = Types::of(types);
        let work_ns = of.work_ns(view.document_usage.patterns.unsigned_abs());
        if work_ns <= ON_THE_SPOT_NS_MAX {
            return Ok(wanting(view, source, &of).collect());
        }
        let (theirs, from, types) = (view.clone(), source.clone(), of.owned());
        let tenant = &view.tenant.value.id;
        let ids = self.run(tenant, work_ns, bounded, move || {
            let of = Types::of(&types);
            wanting(&theirs, &from, &of).map(|subscription| subscription.id).collect::<Vec<SubscriptionId>>()
        });
        let ids = ids.await?;
        Ok(ids.iter().filter_map(|id| view.subscriptions.get(id)).map(|entry| &entry.value).collect())
    }

    /// Runs a large match on a blocking thread once the tenant is admitted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        work_ns: u64,
        bounded: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AcquireError> {
        let place = if bounded { self.large.acquire_bounded(tenant).await } else { self.large.acquire(tenant).await };
        let place = place?;
        // The place moves into the work, because the caller may be cancelled before the work ends.
        let done = tokio::task::spawn_blocking(move || {
            let matched = work();
            place.release(work_ns / 1_000);
            matched
        });
        // The task fails only if the host shuts down.
        done.await.map_err(|_| AcquireError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::try_from((*text).to_owned()).unwrap()).collect()
    }

    #[test]
    fn one_type_that_one_pattern_matches_is_enough() {
        let types =
            ["urn:one".to_owned(), "https://schemas.identity.wso2.org/events/login/event-type/loginFailed".into()];
        let of = Types::of(&types);
        assert!(of.any(&patterns(&["urn:two", "wso2/login/*"])), "by its short name");
        assert!(of.any(&patterns(&["one"])));
        assert!(!of.any(&patterns(&["two", "login"])));
        assert!(!of.any(&[]));
    }

    #[test]
    fn the_work_grows_with_the_patterns_and_with_the_text() {
        let (short, long) = (["urn:a".to_owned()], vec!["a".repeat(1_000); 16]);
        let (short, long) = (Types::of(&short), Types::of(&long));
        assert_eq!(short.work_ns(2), 2 * short.work_ns(1));
        assert!(long.work_ns(1) > 16 * short.work_ns(1));
        assert!(short.work_ns(1_000) <= ON_THE_SPOT_NS_MAX, "an ordinary event of a tenant with a thousand patterns");
        assert!(long.work_ns(64) > ON_THE_SPOT_NS_MAX, "the longest event and as many patterns as a subscription has");
    }
}
