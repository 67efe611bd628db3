//! Warnings about settings that are accepted although they have no effect. Most are mistakes, but some are intentional:
//! an event type that Setgate does not know, or host settings that will be changed later. Warnings are therefore
//! computed whenever a single document is returned, and never stored.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Serialize;
use setgate_dialects::{catalogue, form_of};
use setgate_domain::builtin_event::{PING, SUBSCRIPTION_DISABLED};
use setgate_domain::endpoint::{Destination, Endpoint};
use setgate_domain::filter::FAULT_WINDOW_CALLS;
use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::nearest::nearest_in_parts;
use setgate_domain::source::{JwsProof, KeyOrigin, Source};
use setgate_domain::subscription::{Pattern, Subscription};
use setgate_domain::tenant::{FILTER_BYTES_MAX, Quota, TABLE_BYTES_MAX, Tenant};
use setgate_egress::Egress;
use setgate_ledger::Registry;
use setgate_sandbox::TABLE_ELEMENTS_MAX;

/// Limit for the patterns of one document for which a similar known name is searched. Each search takes up to a
/// millisecond.
const SEARCHES_MAX: usize = 16;

/// A setting that has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Warning {
    /// The kind of warning.
    pub code: WarningCode,
    /// Why the setting has no effect, and the remedy.
    pub detail: String,
    /// The member of the document, as a JSON Pointer (RFC 6901).
    pub pointer: String,
}

/// A kind of warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// An event pattern matches no known event type.
    PatternMatchesNothing,
    /// The address of the endpoint, or of a key set, is not allowed, so every request to it will fail.
    EndpointRefused,
    /// A tenant's limit exceeds the host's limit, which takes precedence.
    AboveHostLimit,
}

/// Warnings for a subscription.
pub(super) fn of_subscription(subscription: &Subscription, registry: &Registry, egress: &Egress) -> Vec<Warning> {
    let mut warnings = of_events(&subscription.events, &subscription.tenant, &subscription.sources, registry);
    let origin = subscription.endpoint.as_ref().map(Endpoint::origin);
    warnings.extend(origin.and_then(|origin| egress.blocked_reason(&origin)).map(|why| Warning {
        code: WarningCode::EndpointRefused,
        detail: format!("every delivery will be refused: {why}"),
        pointer: "/endpoint/url".into(),
    }));
    warnings
}

/// Warnings for a source.
pub(super) fn of_source(source: &Source, egress: &Egress) -> Vec<Warning> {
    let Some(JwsProof { keys: KeyOrigin::JwksUrl(url), .. }) = source.signed() else { return Vec::new() };
    let blocked = Destination::parse(url).ok().and_then(|url| egress.blocked_reason(&url.origin()));
    let warning = |why| Warning {
        code: WarningCode::EndpointRefused,
        detail: format!("the keys cannot be fetched, so every SET will be refused: {why}"),
        pointer: "/proofs/0/jwks_url".into(),
    };
    blocked.map(warning).into_iter().collect()
}

/// Warnings for the `events` of a document that selects these sources. Empty selects all sources.
pub(super) fn of_events(
    events: &[Pattern],
    tenant: &TenantId,
    sources: &[SourceName],
    registry: &Registry,
) -> Vec<Warning> {
    let is_open = registry.snapshot().tenant(tenant).is_some_and(|view| {
        let mut counted = view.sources.iter().filter(|(name, _)| sources.is_empty() || sources.contains(name));
        counted.any(|(_, source)| form_of(source.value.form).accepts_any_event_type)
    });
    of_patterns(events, is_open)
}

/// Limits of this host that cap a tenant's own quota.
pub(super) struct HostLimits {
    /// `sandbox.memory_bytes_max`.
    pub(super) memory_bytes_max: u64,
    /// `data.ledger_bytes_max`. 0: unlimited.
    pub(super) ledger_bytes_max: u64,
}

/// Warnings for a tenant.
pub(super) fn of_tenant(tenant: &Tenant, host: &HostLimits) -> Vec<Warning> {
    tenant.quota.as_ref().map(|quota| of_quota(quota, host)).unwrap_or_default()
}

/// Warnings for event patterns. If `is_open` is set, one of the sources sends SETs with arbitrary event types, so an
/// unknown pattern causes a warning only if it is similar to a known type.
fn of_patterns(patterns: &[Pattern], is_open: bool) -> Vec<Warning> {
    let unknown = patterns.iter().enumerate().filter(|(_, pattern)| !matches_known(pattern) && !is_unlisted(pattern));
    let warning = |(nth, (place, pattern)): (usize, (usize, &Pattern))| {
        let meant = (nth < SEARCHES_MAX).then(|| meant(pattern)).flatten();
        if meant.is_none() && is_open {
            return None;
        }
        let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        Some(Warning {
            code: WarningCode::PatternMatchesNothing,
            detail: format!("`{}` matches no event type that Setgate knows{hint}", pattern.as_str()),
            pointer: format!("/events/{place}"),
        })
    };
    unknown.enumerate().filter_map(warning).collect()
}

/// URI and short name of each known type, from the catalogue and from Setgate itself.
static KNOWN: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let own = [PING, SUBSCRIPTION_DISABLED];
    let uris = catalogue::event_types().map(|entry| entry.uri.as_str()).chain(own);
    uris.map(|uri| (uri, catalogue::short_name(uri).unwrap_or_default().into_owned())).collect()
});

/// Common patterns for the known types: each of their names, and all types of a product or category.
static USUAL: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut usual = BTreeSet::new();
    for (uri, short_name) in KNOWN.iter() {
        usual.insert((*uri).to_owned());
        for (start, _) in std::iter::once((0, "")).chain(short_name.match_indices('/').map(|(at, _)| (at + 1, ""))) {
            usual.insert(short_name[start..].to_owned());
            let ends = short_name[start..].match_indices('/');
            usual.extend(ends.map(|(end, _)| format!("{}/*", &short_name[start..start + end])));
        }
        if let Some((category, _)) = uri.split_once("/event-type/") {
            usual.insert(format!("{category}/*"));
            usual.insert(format!("{category}/event-type/*"));
        }
    }
    usual
});

fn matches_known(pattern: &Pattern) -> bool {
    KNOWN.iter().any(|(uri, short_name)| pattern.matches(uri, Some(short_name)))
}

/// Whether a pattern is for event types that a known product sends but that are not in the catalogue. These are in the
/// category `other`.
fn is_unlisted(pattern: &Pattern) -> bool {
    let text = pattern.as_str();
    text.starts_with("other/") || text.contains("/other/")
}

/// A suggestion for a pattern that matches no known type.
fn meant(pattern: &Pattern) -> Option<String> {
    let text = pattern.as_str();
    let all_below = format!("{}/*", text.trim_end_matches('/'));
    if USUAL.contains(&all_below) {
        return Some(all_below);
    }
    // The catalogue has several spellings of some names.
    let name = text.rsplit('/').next().unwrap_or(text);
    let spelled = || catalogue::by_any_name(name).map(|entry| entry.name);
    nearest_in_parts(text, USUAL.iter().map(String::as_str)).or_else(spelled).map(str::to_owned)
}

/// Warnings for a tenant's own quota.
fn of_quota(quota: &Quota, host: &HostLimits) -> Vec<Warning> {
    let ledger = if host.ledger_bytes_max == 0 { u64::MAX } else { host.ledger_bytes_max };
    let limits = [
        ("memory_bytes_max", quota.memory_bytes_max, "sandbox.memory_bytes_max", host.memory_bytes_max),
        ("table_elements_max", quota.table_elements_max, "table_elements_max", TABLE_ELEMENTS_MAX),
        ("filter_bytes_max", quota.filter_bytes_max, "filter_bytes_max", FILTER_BYTES_MAX),
        ("table_bytes_max", quota.table_bytes_max, "table_bytes_max", TABLE_BYTES_MAX),
        ("filters_bytes_max", quota.filters_bytes_max, "data.ledger_bytes_max", ledger),
        ("tables_bytes_max", quota.tables_bytes_max, "data.ledger_bytes_max", ledger),
        ("documents_bytes_max", quota.documents_bytes_max, "data.ledger_bytes_max", ledger),
    ];
    let above = limits.into_iter().filter(|(_, wanted, _, most)| wanted > most);
    let faults = (quota.filter_faults_max > FAULT_WINDOW_CALLS).then(|| Warning {
        code: WarningCode::AboveHostLimit,
        detail: format!(
            "{} is above {FAULT_WINDOW_CALLS}, the number of calls that are counted, which decides: lower it; 0 never suspends \
             a filter",
            quota.filter_faults_max
        ),
        pointer: "/quota/filter_faults_max".to_owned(),
    });
    let warning = |(key, wanted, setting, most): (&str, u64, &str, u64)| Warning {
        code: WarningCode::AboveHostLimit,
        detail: format!(
            "{wanted} is above this host's `{setting}`, which is {most} and decides: lower it{}",
            if setting.contains('.') { ", or raise that" } else { "" }
        ),
        pointer: format!("/quota/{key}"),
    };
    above.map(warning).chain(faults).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::try_from((*text).to_owned()).unwrap()).collect()
    }

    fn said(text: &str, is_open: bool) -> Option<String> {
        of_patterns(&patterns(&[text]), is_open).pop().map(|warning| warning.detail)
    }

    #[test]
    fn a_pattern_that_is_nearly_a_known_one_gets_it_suggested() {
        for (given, meant) in [
            ("wso2/login/loginSucess", "wso2/login/loginSuccess"),
            ("LoginSuccess", "loginSuccess"),
            ("wso2/logn/*", "wso2/login/*"),
            ("lgoin/*", "login/*"),
            ("wso3/login/*", "wso2/login/*"),
            ("session", "session/*"),
            ("wso2", "wso2/*"),
            ("User.Create", "User.Created"),
            ("PostSignin", "PostSignIn"),
            ("USER_LOGIN", "user.login"),
            ("user.signup", "user.created"),
            ("operations/subscription-disable", "operations/subscription-disabled"),
            (
                "https://schemas.openid.net/secevent/caep/event-type/session-revokd",
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
            ),
            (
                "https://schemas.identity.wso2.com/events/login/event-type/loginFailed",
                "https://schemas.identity.wso2.org/events/login/event-type/loginFailed",
            ),
            ("https://schemas.identity.wso2.org/events/logn/*", "https://schemas.identity.wso2.org/events/login/*"),
        ] {
            for is_open in [false, true] {
                let detail = said(given, is_open).unwrap_or_else(|| panic!("{given}"));
                assert!(detail.contains(&format!("did you mean `{meant}`")), "{given}: {detail}");
            }
            assert_eq!(said(meant, false), None, "{meant}");
        }
    }

    #[test]
    fn a_pattern_near_to_nothing_is_suspicious_unless_a_source_sends_what_others_define() {
        for given in ["https://events.example.com/stock/taken", "parcel/*", "*weather*"] {
            let detail = said(given, false).unwrap_or_else(|| panic!("{given}"));
            assert!(!detail.contains("did you mean"), "{given}: {detail}");
            assert_eq!(said(given, true), None, "{given}");
        }
    }

    #[test]
    fn patterns_for_known_types_and_for_those_of_the_category_other_are_fine() {
        let all = ["*", "loginFailed", "*/login/*", "test/ping", "*Failed", "logto/other/*", "other/User.Renamed"];
        assert_eq!(of_patterns(&patterns(&all), false), []);
        let usual: Vec<&str> = USUAL.iter().map(String::as_str).collect();
        assert_eq!(of_patterns(&patterns(&usual), false), []);
    }

    #[test]
    fn each_pattern_is_named_by_its_place_and_the_search_is_bounded() {
        let warnings = of_patterns(&patterns(&["*", "loginFaild", "loginFailed", "userCreatd"]), true);
        assert_eq!(warnings.iter().map(|w| w.pointer.as_str()).collect::<Vec<_>>(), ["/events/1", "/events/3"]);
        let many = patterns(&["loginFaild"; SEARCHES_MAX + 2]);
        let hints = of_patterns(&many, false).iter().map(|w| w.detail.contains("did you mean")).collect::<Vec<_>>();
        assert_eq!(hints.iter().filter(|hint| **hint).count(), SEARCHES_MAX);
        assert_eq!(hints.len(), many.len());
    }

    #[test]
    fn a_limit_above_the_host_s_names_the_setting() {
        let mut host = HostLimits { memory_bytes_max: 256 << 20, ledger_bytes_max: 0 };
        assert_eq!(of_quota(&Quota::default(), &host), []);
        host.ledger_bytes_max = 1 << 30;
        let most = u64::MAX;
        let quota = Quota {
            memory_bytes_max: host.memory_bytes_max + 1,
            table_elements_max: most,
            filter_bytes_max: most,
            table_bytes_max: most,
            filters_bytes_max: most,
            tables_bytes_max: 1 << 30,
            documents_bytes_max: (1 << 30) + 1,
            filter_faults_max: FAULT_WINDOW_CALLS + 1,
            ..Quota::default()
        };
        let mut warnings = of_quota(&quota, &host);
        let last = warnings.pop().unwrap();
        let found: Vec<_> =
            warnings.iter().map(|w| (w.pointer.as_str(), w.detail.split('`').nth(1).unwrap())).collect();
        assert_eq!(
            found,
            [
                ("/quota/memory_bytes_max", "sandbox.memory_bytes_max"),
                ("/quota/table_elements_max", "table_elements_max"),
                ("/quota/filter_bytes_max", "filter_bytes_max"),
                ("/quota/table_bytes_max", "table_bytes_max"),
                ("/quota/filters_bytes_max", "data.ledger_bytes_max"),
                ("/quota/documents_bytes_max", "data.ledger_bytes_max"),
            ]
        );
        assert_eq!(last.pointer, "/quota/filter_faults_max");
        assert!(last.detail.contains("above 100"), "{}", last.detail);
    }
}
