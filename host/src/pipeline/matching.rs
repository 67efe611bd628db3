//! Matching: which subscriptions want an event. Tenants write the patterns and senders write the types, so that the work is
//! bounded (`quota.patterns_max`, `quota.patterns_bytes_max`), counted before it is done, and paid for by its tenant: more than
//! a moment of it is done in turns between tenants, on a thread that no request and no writer waits for.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::catalogue;
use crate::domain::id::{SourceName, SubscriptionId, TenantId};
use crate::domain::subscription::{Pattern, Subscription};
use crate::fair::{Bounds, Gate, Refused};
use crate::ledger::TenantView;

use super::Pipeline;

/// Large matches at once, of the whole host.
pub(super) const MATCHES_MAX: usize = 1;
/// Nanoseconds, as estimated, up to which a match is done on the spot.
pub(super) const ON_THE_SPOT_NS_MAX: u64 = 1_000_000;
/// What a large match costs before its estimate is known, in microseconds.
const MATCH_COST_US: u64 = 1_000;
/// Nanoseconds for a pattern and a type of no length; each byte of the type takes one more.
const PAIR_NS: u64 = 32;

/// Turns at large matches.
pub(super) fn gate(waiting_per_tenant_max: usize) -> Gate {
    Gate::new(Bounds {
        places: MATCHES_MAX,
        per_tenant_max: MATCHES_MAX,
        leaves_free: false,
        waiting_per_tenant_max,
        cost: MATCH_COST_US,
    })
}

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

    /// Nanoseconds that it takes to hold so many patterns against them, at the most.
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

/// Whether the subscription wants an event of that source and of those types. Setgate's own events are for those who name
/// their source; a test has its delivery from the beginning and gets no other.
pub(super) fn wants(subscription: &Subscription, source: &SourceName, types: &Types<'_>) -> bool {
    let named = subscription.sources.contains(source);
    let all = subscription.sources.is_empty();
    let is_ping = || types.0.iter().any(|(uri, _)| *uri == catalogue::PING);
    let from = if source.is_setgate() { named && !is_ping() } else { named || all };
    from && types.any(&subscription.events)
}

fn wanting<'v>(view: &'v TenantView, source: &SourceName, types: &Types<'_>) -> impl Iterator<Item = &'v Subscription> {
    view.subscriptions.values().map(|entry| &entry.value).filter(move |one| wants(one, source, types))
}

impl Pipeline {
    /// The subscriptions of a tenant that want an event of that source and of those types. `bounded`: rather refused than one
    /// more in the tenant's line, where as many wait as may.
    pub(super) async fn wanting<'v>(
        &self,
        view: &'v Arc<TenantView>,
        source: &SourceName,
        types: &[String],
        bounded: bool,
    ) -> Result<Vec<&'v Subscription>, Refused> {
        let of = Types::of(types);
        let work_ns = of.work_ns(view.weight.patterns.unsigned_abs());
        if work_ns <= ON_THE_SPOT_NS_MAX {
            return Ok(wanting(view, source, &of).collect());
        }
        let (theirs, from, types) = (view.clone(), source.clone(), of.owned());
        let tenant = &view.tenant.value.id;
        let ids = self.match_in_turn(tenant, work_ns, bounded, move || {
            let of = Types::of(&types);
            wanting(&theirs, &from, &of).map(|subscription| subscription.id).collect::<Vec<SubscriptionId>>()
        });
        let ids = ids.await?;
        Ok(ids.iter().filter_map(|id| view.subscriptions.get(id)).map(|entry| &entry.value).collect())
    }

    /// Does a large match in its tenant's turn, on another thread.
    pub(super) async fn match_in_turn<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        work_ns: u64,
        bounded: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let place = if bounded { self.matches.enter_bounded(tenant).await } else { self.matches.enter(tenant).await };
        let place = place?;
        // The place goes with the work: who asked may be gone before its end.
        let done = tokio::task::spawn_blocking(move || {
            let matched = work();
            place.give_back(work_ns / 1_000);
            matched
        });
        // It ends otherwise only with the host.
        done.await.map_err(|_| Refused::Closed)
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
