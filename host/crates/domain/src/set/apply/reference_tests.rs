//! Reference implementation of [`apply`]: each step processes whole texts and parses its result from the start.
//! [`apply`] must return the same bytes, parsed claims and error messages.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::json::{by_levels, check};

fn apply_reference(before: &SetToken, verdict: Verdict, bytes_max: u64) -> Result<Applied, Fault> {
    let after = match verdict {
        Verdict::Pass => return Ok(Applied::Unchanged),
        Verdict::Drop(reason) => return Ok(Applied::Dropped(reason)),
        Verdict::Patch(patch) => {
            within(patch.len(), bytes_max)?;
            let limits = JsonLimits { bytes_max: usize::MAX, ..JsonLimits::default() };
            let merged = check(patch.as_bytes(), limits).and_then(|patch| by_levels(Some(&before.text), patch));
            merged.map_err(|fault| not_a_set("the patch is ", &fault))?
        }
        Verdict::Replace(text) => {
            within(text.len(), bytes_max)?;
            check(text.as_bytes(), limits(bytes_max)).map_err(|fault| not_a_set("the claims are ", &fault))?;
            text
        }
    };
    within(after.len(), bytes_max)?;
    if after == before.text {
        return Ok(Applied::Unchanged);
    }
    let original = Object::parse(&before.text).unwrap();
    let claims = Object::parse(&after).map_err(|fault| not_a_set("the claims are ", &fault))?;
    for claim in SEALED_CLAIMS {
        let same = match (original.get(claim), claims.get(claim)) {
            (None, None) => true,
            (Some(before), Some(after)) => before == after || read(before) == read(after),
            _ => false,
        };
        if !same {
            return Err(Fault::Sealed { claim: claim.to_owned() });
        }
    }
    let after = claims.with(&SEALED_CLAIMS.map(|claim| (claim, original.get(claim).map(str::to_owned))));
    within(after.len(), bytes_max)?;
    let after = SetToken::parse(after, limits(bytes_max)).map_err(|fault| match fault {
        SetError::Json(fault) => not_a_set("the claims are ", &fault),
        fault => invalid(fault),
    })?;
    Ok(if after.text == before.text { Applied::Unchanged } else { Applied::Changed(after) })
}

/// A member of an object as written: key, colon with white space, value.
type Member = (&'static str, &'static str, String);
type Members = Vec<Member>;
/// An optional claim.
type Claim = BoxedStrategy<Option<Member>>;

fn object(members: &Members, space: &str) -> String {
    let members: Vec<_> = members.iter().map(|(key, colon, value)| format!("\"{key}\"{colon}{value}")).collect();
    format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
}

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", " ", "\n\t"])
}

fn colon() -> impl Strategy<Value = &'static str> {
    select(vec![":", ":", " :", ": ", "\t:\r\n"])
}

/// Removes members whose name, in any spelling, occurred before.
fn each_once(mut members: Members) -> Members {
    let mut names = Vec::new();
    members.retain(|(key, ..)| {
        let name: String = serde_json::from_str(&format!("\"{key}\"")).unwrap();
        !names.contains(&name) && (names.push(name), true).1
    });
    members
}

/// Arbitrary JSON with frequently recurring keys, and occasionally a duplicate key.
fn json() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "null",
        "null",
        "true",
        "0",
        "1.10",
        "-0.0",
        "12345678901234567890123",
        r#""""#,
        r#""\u00e9\/,""#,
        "[]",
        "{}",
        r#"[ {"a":null} , 2 ]"#,
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        let key = select(vec!["a", "b", "c", "\\u0061", "\u{e9}", "", "x\\\"y", "format", "urn:x:y"]);
        let members = proptest::collection::vec((key, colon(), inner), 0..5);
        (members, space(), 0..40)
            .prop_map(|(members, space, twice)| object(&if twice == 0 { members } else { each_once(members) }, space))
    })
}

fn objects() -> impl Strategy<Value = String> {
    json().prop_filter("an object", |text| text.starts_with('{'))
}

/// A claim with one of these values.
fn claim(key: &'static str, values: &[&'static str]) -> Claim {
    (colon(), select(values.to_vec())).prop_map(move |(colon, value)| Some((key, colon, value.to_owned()))).boxed()
}

fn perhaps(of: Claim) -> Claim {
    prop_oneof![Just(None), of].boxed()
}

fn events(event: BoxedStrategy<String>, least: usize) -> BoxedStrategy<String> {
    let key = select(vec!["urn:x:y", "urn:x:z", "urn:\\u0078:y", "https:\\/\\/e.example\\/t", "urn:x:w"]);
    (proptest::collection::vec((key, colon(), event), least..4), space())
        .prop_map(|(members, space)| object(&each_once(members), space))
        .boxed()
}

/// An object with these claims in any order.
fn claims(of: Vec<Claim>) -> impl Strategy<Value = String> {
    let shuffled = of.prop_map(|claims| claims.into_iter().flatten().collect::<Members>()).prop_shuffle();
    (shuffled, space()).prop_map(|(members, space)| object(&each_once(members), space))
}

fn named(key: &'static str, value: BoxedStrategy<String>) -> Claim {
    (colon(), value).prop_map(move |(colon, value)| Some((key, colon, value))).boxed()
}

fn sets() -> impl Strategy<Value = SetToken> {
    claims(vec![
        claim("iss", &[r#""i/x""#, r#""\u0069\/x""#]),
        claim("iat", &["1", "1.0", "10e-1"]),
        claim("jti", &[r#""1""#, r#""\u0031""#]),
        perhaps(claim("aud", &[r#""x""#, r#"["x"]"#, r#"[ "\u0078" ]"#])),
        perhaps(claim("txn", &[r#""t""#])),
        perhaps(claim("sub", &[r#""s""#])),
        perhaps(claim("sub_id", &[r#"{"format":"opaque","id":"u"}"#, r#"{ "id":1, "form\u0061t" : "x" }"#])),
        perhaps(claim("toe", &["1.5"])),
        perhaps(named("a", json().boxed())),
        perhaps(named("b", json().boxed())),
        named("events", events(objects().boxed(), 1)),
    ])
    .prop_filter_map("a SET", |text| SetToken::parse(text, JsonLimits::default()).ok())
}

/// Patches that mostly name claims, and rarely change the sealed ones.
fn patches() -> impl Strategy<Value = String> {
    let rarely = |key, values: &[&'static str]| prop_oneof![6 => Just(None), 1 => claim(key, values)].boxed();
    let event = prop_oneof![4 => objects(), 1 => Just("null".to_owned()), 1 => json()].boxed();
    let members = claims(vec![
        rarely("iss", &[r#""i/x""#, r#""i\/x""#, r#""j""#, "null", "{}"]),
        rarely("i\\u0061t", &["1", "1.0", "1e0", "2"]),
        rarely("jti", &[r#""1""#, r#""\u0031""#, "1"]),
        rarely("aud", &[r#""x""#, r#"["x"]"#, r#"{"x":1}"#, "null"]),
        rarely("txn", &[r#""t""#, r#""\u0074""#, "null"]),
        rarely("sub", &[r#""u""#, r#""""#, "null", "7", "{}"]),
        rarely(
            "sub_id",
            &["null", "{}", r#"{"format":null}"#, r#"{"format":"x"}"#, r#"{"format":{}}"#, r#"{"id":2}"#, "[]"],
        ),
        rarely("toe", &["2", "null", r#""2""#]),
        prop_oneof![
            4 => Just(None),
            4 => named("events", events(event, 0)),
            1 => claim("events", &["null", "{}", "[]", r#"{"no URI":{}}"#, r#"{"urn:x:y":{},"urn:x:q":{}}"#]),
        ]
        .boxed(),
        perhaps(named("a", json().boxed())),
        perhaps(named("\\u0062", json().boxed())),
        rarely("c", &["null", "1"]),
    ]);
    prop_oneof![20 => members, 1 => json(), 1 => members_cut()]
}

/// Invalid JSON.
fn members_cut() -> impl Strategy<Value = String> {
    objects().prop_map(|text| text[..text.len() - 1].to_owned())
}

fn bytes_max() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(1 << 20), 1 => 0..400_u64]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn patch_matches_reference(before in sets(), patch in patches(), bytes_max in bytes_max()) {
        let verdict = Verdict::Patch(patch);
        prop_assert_eq!(apply(&before, verdict.clone(), bytes_max), apply_reference(&before, verdict, bytes_max));
    }

    #[test]
    fn replacement_matches_reference(
        before in sets(), patch in patches(), whole in any::<bool>(), around in space(), bytes_max in bytes_max(),
    ) {
        // A patched text is similar to the claims; the patch itself is arbitrary.
        let text = by_levels(Some(&before.text), &patch).ok().filter(|_| !whole).unwrap_or(patch);
        let verdict = Verdict::Replace(format!("{around}{text}{around}"));
        prop_assert_eq!(apply(&before, verdict.clone(), bytes_max), apply_reference(&before, verdict, bytes_max));
    }

    #[test]
    fn consecutive_patches_match_reference(before in sets(), first in patches(), second in patches()) {
        let Ok(Applied::Changed(before)) = apply(&before, Verdict::Patch(first), 1 << 20) else { return Ok(()) };
        let verdict = Verdict::Patch(second);
        prop_assert_eq!(apply(&before, verdict.clone(), 1 << 20), apply_reference(&before, verdict, 1 << 20));
    }
}

#[test]
fn deepest_patch_does_not_exceed_depth_limit() {
    let nested = |levels: usize, end: &str| format!("{}{end}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let set = |extra: &str| format!(r#"{{"iss":"i","iat":1,"jti":"1","events":{{"urn:x:y":{{}}}},"a":{extra}}}"#);
    let before = SetToken::parse(set(&nested(63, "1")), JsonLimits::default()).unwrap();
    for (patch, taken) in
        [(nested(64, "2"), true), (nested(63, "[2]"), true), (nested(65, "2"), false), (nested(64, "[]"), false)]
    {
        let verdict = Verdict::Patch(patch);
        let applied = apply(&before, verdict.clone(), 1 << 20);
        assert_eq!(matches!(applied, Ok(Applied::Changed(_))), taken, "{applied:?}");
        assert_eq!(applied, apply_reference(&before, verdict, 1 << 20));
    }
}
