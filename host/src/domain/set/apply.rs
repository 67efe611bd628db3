//! What a filter's verdict makes of a SET.

use serde_json::Value;

use super::{SetFault, SetToken};
use crate::domain::json::{JsonFault, JsonLimits, Object, check, merge_patch};
use crate::domain::verdict::{Fault, Verdict};

/// The claims that a filter cannot change: who speaks, when, under which name, to whom, within what.
pub const SEALED: [&str; 5] = ["iss", "iat", "jti", "aud", "txn"];

/// What a verdict made of a SET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Not a byte is different.
    Unchanged,
    /// The claims after the filter.
    Changed(SetToken),
    /// Not to be delivered, and the filter's reason.
    Dropped(String),
}

/// Applies a verdict. A patch is an RFC 7396 merge patch: what it does not name keeps its bytes. In a replacement the
/// sealed claims stand in the exact text they had before. What comes out is a valid SET again, as deep as
/// [`JsonLimits::default`] allows and without a key twice.
///
/// `output_bytes_max` bounds what the filter returned and what came of it.
///
/// # Errors
/// [`Fault::Output`], [`Fault::Sealed`] and [`Fault::NotASet`].
pub fn apply(before: &SetToken, verdict: Verdict, output_bytes_max: u64) -> Result<Applied, Fault> {
    let after = match verdict {
        Verdict::Pass => return Ok(Applied::Unchanged),
        Verdict::Drop(reason) => return Ok(Applied::Dropped(reason)),
        Verdict::Patch(patch) => {
            within(patch.len(), output_bytes_max)?;
            merge_patch(&before.text, &patch).map_err(|fault| not_a_set("the patch is ", &fault))?
        }
        Verdict::Replace(text) => {
            within(text.len(), output_bytes_max)?;
            check(text.as_bytes(), limits(output_bytes_max)).map_err(|fault| not_a_set("the claims are ", &fault))?;
            text
        }
    };
    within(after.len(), output_bytes_max)?;
    if after == before.text {
        return Ok(Applied::Unchanged);
    }
    sealed_change(before, &after).map_err(|claim| Fault::Sealed { claim })?;
    let after = with_sealed_text(before, &after).map_err(|fault| not_a_set("the claims are ", &fault))?;
    within(after.len(), output_bytes_max)?;
    let after = SetToken::parse(after, limits(output_bytes_max)).map_err(|fault| match fault {
        SetFault::Json(fault) => not_a_set("the claims are ", &fault),
        fault => Fault::NotASet { detail: fault.to_string() },
    })?;
    Ok(if after.text == before.text { Applied::Unchanged } else { Applied::Changed(after) })
}

/// Whether a sealed claim differs between a SET and what is to become of it. Compared are the values, so another
/// spelling of the same string is no change; a claim that appears or goes is one. Where `after` is no object at all,
/// nothing is said here.
///
/// # Errors
/// The first sealed claim that differs.
pub fn sealed_change(before: &SetToken, after: &str) -> Result<(), String> {
    let (Ok(before), Ok(after)) = (Object::parse(&before.text), Object::parse(after)) else { return Ok(()) };
    for claim in SEALED {
        let same = match (before.get(claim), after.get(claim)) {
            (None, None) => true,
            (Some(before), Some(after)) => before.get() == after.get() || read(before.get()) == read(after.get()),
            _ => false,
        };
        if !same {
            return Err(claim.to_owned());
        }
    }
    Ok(())
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Equal values may still be spelled differently; the sealed ones keep the spelling they came in.
fn with_sealed_text(before: &SetToken, after: &str) -> Result<String, JsonFault> {
    let (before, after) = (Object::parse(&before.text)?, Object::parse(after)?);
    let sealed = SEALED.map(|claim| (claim, before.get(claim).map(|value| value.get().to_owned())));
    Ok(after.with(&sealed))
}

fn limits(output_bytes_max: u64) -> JsonLimits {
    JsonLimits { bytes_max: usize::try_from(output_bytes_max).unwrap_or(usize::MAX), ..JsonLimits::default() }
}

fn within(bytes: usize, limit: u64) -> Result<(), Fault> {
    let bytes = bytes as u64;
    if bytes > limit { Err(Fault::Output { bytes, limit }) } else { Ok(()) }
}

fn not_a_set(what: &str, fault: &JsonFault) -> Fault {
    // Two of the sentences bring their own subject along.
    let what = if matches!(fault, JsonFault::DuplicateKey { .. }) { "" } else { what };
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
    fn a_patch_changes_what_it_names_and_no_other_byte() {
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
    fn nothing_changed_is_said_so() {
        assert_eq!(patch("{}"), Ok(Applied::Unchanged));
        assert_eq!(replace(BEFORE), Ok(Applied::Unchanged));
        assert_eq!(replace(&format!("{BEFORE}\n")), Ok(Applied::Unchanged));
        assert_eq!(patch(r#"{"iss":"https://idp.example"}"#), Ok(Applied::Unchanged), "same value, other spelling");
        assert_eq!(apply(&before(), Verdict::Pass, 0), Ok(Applied::Unchanged));
        assert_eq!(apply(&before(), Verdict::Drop("no".into()), 0), Ok(Applied::Dropped("no".into())));
    }

    #[test]
    fn sealed_claims_stay() {
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
    fn a_replacement_carries_the_sealed_text_of_before() {
        let given = r#"{"events":{"urn:x:y":{}},"iat":1520364019.0,"jti":"\u0031","iss":"https://idp.example"}"#;
        let Applied::Changed(after) = replace(given).unwrap() else { panic!("a change") };
        assert_eq!(
            after.text,
            r#"{"events":{"urn:x:y":{}},"iat":1520364019.0,"jti":"1","iss":"https:\/\/idp.example"}"#
        );
    }

    #[test]
    fn what_comes_back_is_a_valid_set_or_a_fault() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
        for (result, part) in [
            (patch("nul"), "the patch is not valid JSON at line 1"),
            (patch(r#"{"a":1,"a":2}"#), "the key `/a` stands twice"),
            (patch(&deep), "nested more than 64 levels"),
            (patch("[]"), "not a JSON object"),
            (patch(r#"{"events":null}"#), "`events` is missing"),
            (patch(r#"{"events":{"urn:x:login":null}}"#), "`events` is empty"),
            (patch(r#"{"sub":7}"#), "`sub` has to be a string"),
            (replace("true"), "not a JSON object"),
            (replace(r#"{"iss":"a","iss":"b"}"#), "the key `/iss` stands twice"),
            (replace("{"), "the claims are not valid JSON"),
        ] {
            let Err(Fault::NotASet { detail }) = result else { panic!("{result:?} should have said {part}") };
            assert!(detail.contains(part), "{detail} should say {part}");
        }
    }

    #[test]
    fn output_is_bounded_before_and_after() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
        let verdict = || Verdict::Patch(long.clone());
        assert_eq!(apply(&before(), verdict(), 50), Err(Fault::Output { bytes: 108, limit: 50 }));
        let total = BEFORE.len() as u64 + 107;
        assert_eq!(apply(&before(), verdict(), total - 1), Err(Fault::Output { bytes: total, limit: total - 1 }));
        assert!(matches!(apply(&before(), verdict(), total), Ok(Applied::Changed(_))));
    }
}
