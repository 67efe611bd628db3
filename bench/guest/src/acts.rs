//! The bench filter's function without its WebAssembly interface: the same source is compiled into the component, into
//! the bench itself and into the plug-in for the peers.

use serde_json::{Value, json};

/// The names of all acts.
pub const ACTS: [&str; 5] = ["pass", "drop", "patch", "replace", "transform"];

/// The patch: removes one member and adds one.
const PATCH: &str = r#"{"events":{"https://schemas.identity.wso2.org/events/login/event-type/loginSuccess":{"user":{"ref":null},"reviewed":true}}}"#;
/// The member that a replacement changes, before and after.
const BEFORE: &str = r#""name":"Till""#;
const AFTER: &str = r#""name":"Desk""#;

/// The result of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The claims are unchanged.
    Pass,
    /// Do not deliver, with the reason.
    Drop(String),
    /// A merge patch.
    Patch(String),
    /// Whole claims.
    Replace(String),
}

/// Runs an act: `pass`, `drop` and `patch` (a constant) do not read the claims, `replace` edits them as text, and
/// `transform` parses and serialises them.
///
/// # Errors
/// If there is no such act, or the claims are not those of the bench.
pub fn act(name: &str, claims: &str) -> Result<Outcome, String> {
    match name {
        "pass" => Ok(Outcome::Pass),
        "drop" => Ok(Outcome::Drop("nobody asked for it".to_owned())),
        "patch" => Ok(Outcome::Patch(PATCH.to_owned())),
        "replace" => {
            let (before, after) = claims.split_once(BEFORE).ok_or("the claims have no such member")?;
            Ok(Outcome::Replace([before, AFTER, after].concat()))
        }
        "transform" => {
            let mut claims: Value = serde_json::from_str(claims).map_err(|error| error.to_string())?;
            let events = claims.get_mut("events").and_then(Value::as_object_mut).ok_or("no events")?;
            let body = events.values_mut().next().ok_or("no event")?;
            body["application"]["name"] = json!("Desk");
            Ok(Outcome::Replace(claims.to_string()))
        }
        other => Err(format!("there is no act `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = r#"{"iss":"i","events":{"urn:x:y":{"application":{"id":"1","name":"Till"}}}}"#;

    #[test]
    fn a_replacement_and_a_transformation_come_to_the_same() {
        let after = CLAIMS.replace("Till", "Desk");
        assert_eq!(act("replace", CLAIMS), Ok(Outcome::Replace(after.clone())));
        assert_eq!(act("transform", CLAIMS), Ok(Outcome::Replace(after)));
    }

    #[test]
    fn only_what_has_to_look_at_the_claims_does() {
        for name in ["pass", "drop", "patch"] {
            assert!(act(name, "not JSON").is_ok(), "{name}");
        }
        for name in ["replace", "transform", "something"] {
            assert!(act(name, "not JSON").is_err(), "{name}");
        }
        assert!(serde_json::from_str::<Value>(PATCH).is_ok());
    }
}
