//! The guests' input: the bench's events as normalized SETs.

use anyhow::Context as _;
use bytes::Bytes;
use setgate_dialects::normalize::{NormalizeInput, normalize};
use setgate_domain::id::{DeliveryId, EventId, SubscriptionId};
use setgate_domain::json::JsonLimits;
use setgate_domain::set::SetToken;
use setgate_domain::source::{Compat, Form, Proof, Source};
use setgate_domain::time::Timestamp;
use setgate_sandbox::EventView;

use crate::events::Template;

/// The tenant that owns the filter.
pub(super) const TENANT: &str = "bench";
const AT: Timestamp = Timestamp::from_millis(1_789_977_600_000);

/// An event with the act for the guest to run.
pub(super) struct Input {
    pub(super) act: &'static str,
    pub(super) set: SetToken,
    /// Without the claims, which are in `set`.
    pub(super) view: EventView,
}

impl Input {
    /// An event of about `bytes` bytes, as returned by `normalize`.
    pub(super) fn new(act: &'static str, bytes: usize) -> anyhow::Result<Self> {
        let source = Source {
            tenant: TENANT.parse()?,
            name: "idp".parse()?,
            form: Form::Wso2,
            proofs: vec![Proof::Open],
            issuer: None,
            issuers_allowed: Vec::new(),
            websub_topics: Vec::new(),
            timestamp_tolerance_s: 300,
            allow_sha1: false,
            allow_plain_event_names: false,
            replace_lone_surrogates: false,
            compat: Compat::default(),
            created_at: AT,
        };
        let (id, subscription) = (EventId::new(AT, 1), SubscriptionId::new(AT, 2));
        let body = Bytes::from(Template::of(bytes).event(1));
        let inbound = NormalizeInput { body: &body, content_type: None, delivery_id: None };
        let event = normalize(&source, inbound, AT, id, JsonLimits::default()).context("an event of the bench")?;
        let set = event.set;
        let view = EventView {
            id,
            issuer: set.issuer.clone(),
            issued_at: set.issued_at,
            accepted_at: AT,
            types: set.types.clone(),
            subject: Some(act.to_owned()),
            tenant: event.tenant,
            source: event.source,
            subscription,
            delivery: DeliveryId { event: id, subscription, run: 0 },
            claims: String::new(),
        };
        Ok(Self { act, set, view })
    }
}

#[cfg(test)]
mod tests {
    use bench_guest::acts::{ACTS, Outcome, act};
    use setgate_domain::redact::Redactor;
    use setgate_domain::set::Applied;
    use setgate_domain::verdict::Verdict;

    use super::*;

    #[test]
    fn each_act_makes_of_each_event_what_its_name_says() {
        for bytes in [800, 5_000, 50_000] {
            for name in ACTS {
                let input = Input::new(name, bytes).unwrap();
                let verdict = match act(name, &input.set.text).unwrap() {
                    Outcome::Pass => Verdict::Pass,
                    Outcome::Drop(reason) => Verdict::Drop(reason),
                    Outcome::Patch(patch) => Verdict::Patch(patch),
                    Outcome::Replace(claims) => Verdict::Replace(claims),
                };
                let applied = setgate_domain::chain::apply(&input.set, verdict, 1 << 20, &Redactor::default()).unwrap();
                match (name, applied) {
                    ("pass", Applied::Unchanged) | ("drop", Applied::Dropped(_)) => {}
                    ("patch", Applied::Changed(after)) => {
                        assert!(after.text.contains(r#""reviewed":true"#) && !after.text.contains(r#""ref""#));
                    }
                    ("replace" | "transform", Applied::Changed(after)) => assert!(after.text.contains("Desk")),
                    (name, other) => panic!("{name}: {other:?}"),
                }
            }
        }
    }
}
