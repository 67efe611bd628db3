//! Applies a filter's verdict to a SET.

#[cfg(test)]
mod reference_tests;

use serde_json::Value;

use super::{SetError, SetToken, check_optional, check_types, event_types, trim};
use crate::json::{JsonError, JsonLimits, Merged, Object, Patch, check_object_and, merge_patch};
use crate::verdict::{Fault, Verdict};

/// Claims that a filter must not change: issuer, time, identifier, audience and transaction.
pub const SEALED_CLAIMS: [&str; 5] = ["iss", "iat", "jti", "aud", "txn"];

/// Result of applying a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The text is identical.
    Unchanged,
    /// The SET after the filter.
    Changed(SetToken),
    /// The filter dropped the event, for this reason.
    Dropped(String),
}

/// Applies a verdict. A patch is a JSON Merge Patch (RFC 7396): members that it does not name keep their bytes. In a
/// replacement, the sealed claims get the exact text that they had before. The result is a valid SET within the depth
/// of [`JsonLimits::default`] and without duplicate keys.
///
/// `output_bytes_max` limits the filter's output and the result, in bytes.
///
/// # Errors
/// [`Fault::Output`], [`Fault::Sealed`] and [`Fault::NotASet`].
pub fn apply(before: &SetToken, verdict: Verdict, output_bytes_max: u64) -> Result<Applied, Fault> {
    match verdict {
        Verdict::Pass => Ok(Applied::Unchanged),
        Verdict::Drop(reason) => Ok(Applied::Dropped(reason)),
        Verdict::Patch(patch) => patched(before, &patch, output_bytes_max),
        Verdict::Replace(text) => replaced(before, text, output_bytes_max),
    }
}

/// Applies a patch. `before` is valid, so only members that the patch names have to be validated.
fn patched(before: &SetToken, patch: &str, output_bytes_max: u64) -> Result<Applied, Fault> {
    within(patch.len(), output_bytes_max)?;
    let merged = merge_patch(&before.text, patch).map_err(|fault| not_a_set("the patch is ", &fault))?;
    within(merged.text.len(), output_bytes_max)?;
    if merged.text == before.text {
        return Ok(Applied::Unchanged);
    }
    if !merged.text.starts_with('{') {
        return Err(not_a_set("the claims are ", &JsonError::NotAnObject));
    }
    let named = |claim| merged.named(claim).map(|named| (named.before, merged.after(claim)));
    let respelled = respelled(|claim| named(claim).unwrap_or_default())?;
    let restored = if respelled.is_empty() {
        None
    } else {
        let claims = Object::parse(&merged.text).map_err(|fault| not_a_set("the claims are ", &fault))?;
        Some(claims.with(&respelled))
    };
    within(restored.as_ref().unwrap_or(&merged.text).len(), output_bytes_max)?;
    let types = types_after(before, &merged).map_err(invalid)?;
    check_optional(|claim| merged.after(claim)).map_err(invalid)?;
    Ok(changed(before, restored.unwrap_or(merged.text), types))
}

/// The event types after a patch. An event that the patch names is an object exactly if the patch for it is one.
fn types_after(before: &SetToken, merged: &Merged<'_, '_>) -> Result<Vec<String>, SetError> {
    let Some(events) = merged.named("events") else { return Ok(before.types.clone()) };
    let changes = match &events.patch {
        Patch::Remove => return Err(SetError::Missing { claim: "events" }),
        Patch::Value(_) => return Err(SetError::EventsNotAnObject),
        Patch::Members(changes) => changes,
    };
    let changed = |name: &str| changes.iter().find(|(key, _)| key == name).map(|(_, patch)| patch);
    let kept = before.types.iter().filter_map(|name| match changed(name) {
        Some(Patch::Remove) => None,
        Some(patch) => Some((name.as_str(), matches!(patch, Patch::Members(_)))),
        None => Some((name.as_str(), true)),
    });
    let new =
        changes.iter().filter(|(key, patch)| *patch != Patch::Remove && !before.types.iter().any(|name| name == key));
    let new = new.map(|(key, patch)| (key.as_ref(), matches!(patch, Patch::Members(_))));
    check_types(&kept.chain(new).collect::<Vec<_>>())
}

/// Applies a replacement. It is parsed once, while it is validated; before that, only the positions of the claims are
/// needed.
fn replaced(before: &SetToken, mut text: String, output_bytes_max: u64) -> Result<Applied, Fault> {
    within(text.len(), output_bytes_max)?;
    let unsound = |fault: JsonError| not_a_set("the claims are ", &fault);
    let (claims, events) = check_object_and("events", text.as_bytes(), limits(output_bytes_max)).map_err(unsound)?;
    if claims.text() == before.text {
        return Ok(Applied::Unchanged);
    }
    let original = Object::parse(&before.text).map_err(unsound)?;
    let respelled = respelled(|claim| (original.get(claim), claims.get(claim)))?;
    let restored = if respelled.is_empty() { None } else { Some(claims.with(&respelled)) };
    within(restored.as_ref().map_or(claims.text().len(), String::len), output_bytes_max)?;
    let types = event_types(claims.get("events"), events.as_ref()).map_err(invalid)?;
    check_optional(|claim| claims.get(claim)).map_err(invalid)?;
    let text = restored.unwrap_or_else(|| {
        trim(&mut text);
        text
    });
    Ok(changed(before, text, types))
}

/// Sealed claims that have the same value with a different spelling, with the text to restore. `values` returns the old
/// and the new text of a claim. Values are compared, so another spelling of the same string is not a change, but adding
/// or removing a claim is.
fn respelled<'c>(
    values: impl Fn(&'static str) -> (Option<&'c str>, Option<&'c str>),
) -> Result<Vec<(&'static str, Option<String>)>, Fault> {
    let mut respelled = Vec::new();
    for claim in SEALED_CLAIMS {
        match values(claim) {
            (before, after) if before == after => {}
            (Some(before), Some(after)) if read(before) == read(after) => {
                respelled.push((claim, Some(before.to_owned())));
            }
            _ => return Err(Fault::Sealed { claim: claim.to_owned() }),
        }
    }
    Ok(respelled)
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// The result for valid claims. `iss`, `iat` and `jti` are sealed, so their parsed values are retained.
fn changed(before: &SetToken, text: String, types: Vec<String>) -> Applied {
    if text == before.text {
        return Applied::Unchanged;
    }
    let (issuer, jti) = (before.issuer.clone(), before.jti.clone());
    Applied::Changed(SetToken { text, issuer, jti, issued_at: before.issued_at, types })
}

fn limits(output_bytes_max: u64) -> JsonLimits {
    JsonLimits { bytes_max: usize::try_from(output_bytes_max).unwrap_or(usize::MAX), ..JsonLimits::default() }
}

fn within(bytes: usize, limit: u64) -> Result<(), Fault> {
    let bytes = bytes as u64;
    if bytes > limit { Err(Fault::Output { bytes, limit }) } else { Ok(()) }
}

fn invalid(fault: SetError) -> Fault {
    Fault::NotASet { detail: fault.to_string() }
}

fn not_a_set(what: &str, fault: &JsonError) -> Fault {
    // The message for a duplicate key already has a subject.
    let what = if matches!(fault, JsonError::DuplicateKey { .. }) { "" } else { what };
    Fault::NotASet { detail: format!("{what}{fault}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "{ \"iss\":\"https:\\/\\/idp.example\", \"jti\":\"1\", \"iat\": 1520364019.0,\n  \
        \"events\":{\"urn:x:login\":{\"ip\":\"192.0.2.1\",\"score\":1.10}}, \"extra\": 12345678901234567890123 }";

    fn before() -> SetToken {
        SetToken::parse(BEFORE.to_owned(), JsonLimits::default()).unwrap()
    }

    fn patch(text: &str) -> Result<Applied, Fault> {
        apply(&before(), Verdict::Patch(text.to_owned()), 4096)
    }

    fn replace(text: &str) -> Result<Applied, Fault> {
        apply(&before(), Verdict::Replace(text.to_owned()), 4096)
    }

    #[test]
    fn patch_changes_only_named_members() {
        let Applied::Changed(after) = patch(r#"{"events":{"urn:x:login":{"ip":null}},"note":1.0}"#).unwrap() else {
            panic!("a change")
        };
        let expected = BEFORE.replace("\"ip\":\"192.0.2.1\",", "").replace("0123 }", "0123,\"note\":1.0 }");
        assert_eq!(after.text, expected);
    }

    #[test]
    fn types_follow_the_claims() {
        let Applied::Changed(after) = patch(r#"{"events":{"urn:x:login":null,"urn:x:other":{}}}"#).unwrap() else {
            panic!("a change")
        };
        assert_eq!(after.types, ["urn:x:other"]);
    }

    #[test]
    fn no_op_verdict_is_unchanged() {
        assert_eq!(patch("{}"), Ok(Applied::Unchanged));
        assert_eq!(replace(BEFORE), Ok(Applied::Unchanged));
        assert_eq!(replace(&format!("{BEFORE}\n")), Ok(Applied::Unchanged));
        assert_eq!(patch(r#"{"iss":"https://idp.example"}"#), Ok(Applied::Unchanged), "same value, other spelling");
        assert_eq!(apply(&before(), Verdict::Pass, 0), Ok(Applied::Unchanged));
        assert_eq!(apply(&before(), Verdict::Drop("no".into()), 0), Ok(Applied::Dropped("no".into())));
    }

    #[test]
    fn sealed_claims_cannot_be_changed() {
        for (text, claim) in [
            (r#"{"iss":"https://evil.example"}"#, "iss"),
            (r#"{"iat":1}"#, "iat"),
            (r#"{"iat":null}"#, "iat"),
            (r#"{"jti":null}"#, "jti"),
            (r#"{"aud":"me"}"#, "aud"),
            (r#"{"txn":"1"}"#, "txn"),
        ] {
            assert_eq!(patch(text), Err(Fault::Sealed { claim: claim.into() }), "{text}");
        }
        assert_eq!(replace(r#"{"events":{"urn:x":{}}}"#), Err(Fault::Sealed { claim: "iss".into() }));
    }

    #[test]
    fn replacement_keeps_original_text_of_sealed_claims() {
        let given = r#"{"events":{"urn:x:y":{}},"iat":1520364019.0,"jti":"\u0031","iss":"https://idp.example"}"#;
        let Applied::Changed(after) = replace(given).unwrap() else { panic!("a change") };
        assert_eq!(
            after.text,
            r#"{"events":{"urn:x:y":{}},"iat":1520364019.0,"jti":"1","iss":"https:\/\/idp.example"}"#
        );
    }

    #[test]
    fn result_is_valid_set_or_fault() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
        for (result, part) in [
            (patch("nul"), "the patch is not valid JSON at line 1"),
            (patch(r#"{"a":1,"a":2}"#), "the key `/a` occurs twice"),
            (patch(&deep), "nested more than 64 levels"),
            (patch("[]"), "not a JSON object"),
            (patch(r#"{"events":null}"#), "`events` is missing"),
            (patch(r#"{"events":{"urn:x:login":null}}"#), "`events` is empty"),
            (patch(r#"{"sub":7}"#), "`sub` has to be a string"),
            (replace("true"), "not a JSON object"),
            (replace(r#"{"iss":"a","iss":"b"}"#), "the key `/iss` occurs twice"),
            (replace("{"), "the claims are not valid JSON"),
        ] {
            let Err(Fault::NotASet { detail }) = result else { panic!("{result:?} should have said {part}") };
            assert!(detail.contains(part), "{detail} should say {part}");
        }
    }

    #[test]
    fn output_limit_applies_before_and_after() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
        let verdict = || Verdict::Patch(long.clone());
        assert_eq!(apply(&before(), verdict(), 50), Err(Fault::Output { bytes: 108, limit: 50 }));
        let total = BEFORE.len() as u64 + 107;
        assert_eq!(apply(&before(), verdict(), total - 1), Err(Fault::Output { bytes: total, limit: total - 1 }));
        assert!(matches!(apply(&before(), verdict(), total), Ok(Applied::Changed(_))));
    }
}
