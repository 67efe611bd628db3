use std::cell::OnceCell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Result, Verdict, matches};

/// A security event token (SET, RFC 8417) that is about to be delivered to one subscription.
///
/// Properties that the host has extracted already ([`types`](Event::types), [`subject`](Event::subject), …) cost
/// nothing to read. The claims are parsed at the first call that needs them.
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) id: String,
    pub(crate) issuer: String,
    pub(crate) issued_at: u64,
    pub(crate) accepted_at: u64,
    pub(crate) types: Vec<String>,
    pub(crate) subject: Option<String>,
    pub(crate) tenant: String,
    pub(crate) source: String,
    pub(crate) subscription: String,
    pub(crate) delivery: String,
    pub(crate) text: String,
    pub(crate) claims: OnceCell<Value>,
}

impl Event {
    /// The event's id on this host, `evt_` and 26 characters. Not the SET's `jti`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The SET's `iss` claim.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The SET's `iat` claim, in whole seconds since 1970-01-01T00:00:00Z.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When the host accepted the event, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn accepted_at(&self) -> u64 {
        self.accepted_at
    }

    /// The event type URIs: the member names of the `events` claim, in their order.
    pub fn types(&self) -> &[String] {
        &self.types
    }

    /// The first event type URI. Empty if there is none, which cannot happen on a host.
    pub fn event_type(&self) -> &str {
        self.types.first().map_or("", String::as_str)
    }

    /// Whether one of the event's types matches a pattern, as defined by [`matches()`].
    pub fn is(&self, pattern: &str) -> bool {
        self.types.iter().any(|uri| matches(pattern, uri))
    }

    /// The subject of the event, if the host could determine it: a user id, otherwise another stable name.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The tenant that owns the event.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The source that sent it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The subscription it is delivered to, `sub_` and 26 characters.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The delivery's id, the same over retries and restarts.
    pub fn delivery(&self) -> &str {
        &self.delivery
    }

    /// The whole claims set as JSON text, as passed by the host.
    pub fn claims_text(&self) -> &str {
        &self.text
    }

    /// The whole claims set, parsed at the first call.
    ///
    /// # Panics
    /// If the text is not valid JSON. The host guarantees that it is; a panic is a fault and triggers the binding's
    /// fault policy.
    pub fn claims(&self) -> &Value {
        self.claims.get_or_init(|| serde_json::from_str(&self.text).expect("the host hands over valid JSON"))
    }

    /// The value at a JSON pointer (RFC 6901) in the claims, such as `/sub_id/email`.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.claims().pointer(pointer)
    }

    /// The value of the first member of `events`: the product's own description of the event. `null` if there is none.
    pub fn body(&self) -> &Value {
        &self.claims()["events"][self.event_type()]
    }

    /// Deserialises the [`body`](Event::body).
    pub fn body_as<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(T::deserialize(self.body())?)
    }

    /// The first non-empty text at one of several locations in the body. Each location is a JSON pointer; this is how
    /// one filter supports products that store the same data in different places.
    ///
    /// ```
    /// # use setgate_sdk::{json, testing};
    /// let event = testing::event_of("https://example.com/created", json!({"data": {"id": "u1"}}));
    /// assert_eq!(event.text(["/user/id", "/data/id"]), Some("u1"));
    /// ```
    pub fn text<'a>(&self, places: impl IntoIterator<Item = &'a str>) -> Option<&str> {
        let body = self.body();
        places.into_iter().find_map(|place| body.pointer(place)?.as_str().filter(|text| !text.is_empty()))
    }

    /// A verdict that merges `patch` (RFC 7396) into the [`body`](Event::body): members that it names are set, `null`
    /// removes a member, and everything else keeps its exact bytes.
    pub fn patch_body(&self, patch: impl Serialize) -> Result<Verdict> {
        let body = Map::from_iter([(self.event_type().to_owned(), serde_json::to_value(patch)?)]);
        Verdict::patch(json!({ "events": body }))
    }

    /// A verdict for the changes that `change` makes to the claims: [`Pass`](Verdict::Pass) if there are none,
    /// otherwise a patch. If no merge patch can express a change (a new `null`), the verdict replaces all claims.
    ///
    /// ```
    /// # use setgate_sdk::{Verdict, json, testing};
    /// let event = testing::event_of("https://example.com/created", json!({"users": [{"name": "Jane"}], "by": null}));
    /// let verdict = event.edit(|claims| claims["events"]["https://example.com/created"]["users"][0]["name"] = json!("J."));
    /// let patch = r#"{"events":{"https://example.com/created":{"users":[{"name":"J."}]}}}"#;
    /// assert_eq!(verdict, Ok(Verdict::Patch(patch.to_owned())));
    /// ```
    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<Verdict> {
        let before = self.claims();
        let mut after = before.clone();
        change(&mut after);
        if after == *before {
            return Ok(Verdict::Pass);
        }
        match patch_between(before, &after) {
            Some(patch) => Verdict::patch(patch),
            None => Verdict::replace(after),
        }
    }
}

/// The RFC 7396 patch from `before` to `after`. `None` if there is no such patch, or if one of them is not an object.
fn patch_between(before: &Value, after: &Value) -> Option<Value> {
    let (before, after) = (before.as_object()?, after.as_object()?);
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => continue,
            Some(other) if other.is_object() && value.is_object() => {
                patch.insert(name.clone(), patch_between(other, value)?);
            }
            _ if has_null(value) => return None,
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

/// Whether a patch with this value would remove a member instead of setting it. Arrays are not searched, because a
/// merge patch replaces them as a whole.
fn has_null(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|members| members.values().any(has_null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(after: Value, expected: Result<Verdict>) {
        let event = testing::event_of("urn:e", json!({"a": {"b": 1, "n": null}, "list": [1]}));
        let verdict = event.edit(|claims| claims["events"]["urn:e"] = after.clone());
        assert_eq!(verdict, expected);
        let claims = testing::apply(&event, &verdict.expect("it is as expected")).expect("it is not dropped");
        assert_eq!(claims["events"]["urn:e"], after);
    }

    #[test]
    fn an_edit_is_the_least_verdict() {
        check(json!({"a": {"b": 1, "n": null}, "list": [1]}), Ok(Verdict::Pass));
        check(json!({"a": {"b": 2, "n": null}, "list": [1]}), patch(json!({"a": {"b": 2}})));
        check(json!({"a": {"b": 1}, "list": [1]}), patch(json!({"a": {"n": null}})));
        check(json!({"a": {"b": 1, "n": null}, "list": [null]}), patch(json!({"list": [null]})));
        check(json!({"a": 1, "list": {"c": {}}}), patch(json!({"a": 1, "list": {"c": {}}})));
    }

    #[test]
    fn what_no_patch_can_say_replaces() {
        for after in [json!({"a": null, "list": [1]}), json!({"a": {}, "list": {"new": {"n": null}}})] {
            let event = testing::event_of("urn:e", json!({"a": {}, "list": [1]}));
            let verdict = event.edit(|claims| claims["events"]["urn:e"] = after.clone());
            assert!(matches!(verdict, Ok(Verdict::Replace(_))), "{verdict:?}");
        }
    }

    fn patch(body: Value) -> Result<Verdict> {
        Verdict::patch(json!({"events": {"urn:e": body}}))
    }
}
