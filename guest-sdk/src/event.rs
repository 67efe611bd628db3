use std::cell::OnceCell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Result, Verdict, matches};

/// One security event token (SET, RFC 8417) on its way to one subscription.
///
/// What the host already knows ([`types`](Event::types), [`subject`](Event::subject), …) costs nothing to ask for.
/// The claims are parsed at the first call that needs them.
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
    /// The event's id at this host, `evt_` and 26 characters. Not the SET's `jti`.
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

    /// The first event type URI; empty where there is none, which the host does not let happen.
    pub fn event_type(&self) -> &str {
        self.types.first().map_or("", String::as_str)
    }

    /// Whether one of the event's types matches a pattern, as [`matches()`] says.
    pub fn is(&self, pattern: &str) -> bool {
        self.types.iter().any(|uri| matches(pattern, uri))
    }

    /// Whom the event is about, where the host could tell: a user id, else another stable name.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The tenant whose event this is.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The source that sent it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The subscription it is on its way to, `sub_` and 26 characters.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The delivery's id, the same over retries and restarts.
    pub fn delivery(&self) -> &str {
        &self.delivery
    }

    /// The whole claims set as the JSON text the host handed over.
    pub fn claims_text(&self) -> &str {
        &self.text
    }

    /// The whole claims set, parsed at the first call.
    ///
    /// # Panics
    /// Where the text is no JSON. The contract has the host check that before it calls a filter; a panic is a fault
    /// and follows the binding's fault policy.
    pub fn claims(&self) -> &Value {
        self.claims.get_or_init(|| serde_json::from_str(&self.text).expect("the host hands over valid JSON"))
    }

    /// The value at a JSON pointer (RFC 6901) in the claims, such as `/sub_id/email`.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.claims().pointer(pointer)
    }

    /// The value of the first member of `events`: what the product said about the event, in the product's own form.
    /// `null` where there is none.
    pub fn body(&self) -> &Value {
        &self.claims()["events"][self.event_type()]
    }

    /// [`body`](Event::body) as a type of one's own.
    pub fn body_as<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(T::deserialize(self.body())?)
    }

    /// The first of several places in the body that holds a text which is not empty. Each place is a JSON pointer;
    /// this is how one filter serves products that put the same fact in different places.
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

    /// The verdict that merges `patch` (RFC 7396) into the [`body`](Event::body): members it names are set, `null`
    /// removes one, and everything else keeps its exact bytes.
    pub fn patch_body(&self, patch: impl Serialize) -> Result<Verdict> {
        let body = Map::from_iter([(self.event_type().to_owned(), serde_json::to_value(patch)?)]);
        Verdict::patch(json!({ "events": body }))
    }

    /// The verdict that makes the claims what `change` makes of them: [`Pass`](Verdict::Pass) where nothing changed, a
    /// patch of what did, or, for the rare change that no merge patch can say (a new `null`), all of it.
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

/// The RFC 7396 patch that makes `after` of `before`; none where there is no such patch. Both have to be objects.
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

/// Whether a patch with this value would remove a member where it should set it. Arrays are taken as they are.
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
