//! Merge patches (RFC 7396) on text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{JsonFault, JsonLimits, Object, check};

/// Applies an RFC 7396 merge patch. Members that the patch does not name keep their exact bytes and their place; new
/// ones are appended; what the patch gives is taken over in the patch's own text.
///
/// The target is expected to have gone through [`check`] before. The patch is checked here, with the default limits
/// in depth: the merge goes down as far as the patch does.
///
/// # Errors
/// Where one of them is not sound; [`JsonFault::DuplicateKey`] and [`JsonFault::TooDeep`] speak of the patch.
pub fn merge_patch(target: &str, patch: &str) -> Result<String, JsonFault> {
    let patch = check(patch.as_bytes(), JsonLimits { bytes_max: usize::MAX, ..JsonLimits::default() })?;
    merge(Some(target), patch)
}

fn merge(target: Option<&str>, patch: &str) -> Result<String, JsonFault> {
    let patch = match Object::parse(patch) {
        Ok(patch) => patch,
        Err(JsonFault::NotAnObject) => return Ok(patch.to_owned()),
        Err(fault) => return Err(fault),
    };
    let target = match target.map(Object::parse) {
        Some(Ok(target)) => target,
        Some(Err(JsonFault::NotAnObject)) | None => Object::parse("{}")?,
        Some(Err(fault)) => return Err(fault),
    };
    // An index rather than `get`: both sides may have a hundred thousand members.
    let members: BTreeMap<&str, &RawValue> = target.iter().collect();
    let mut edits = Vec::with_capacity(patch.len());
    for (key, value) in patch.iter() {
        let text = match value.get() {
            "null" => None,
            text => Some(merge(members.get(key).map(|value| value.get()), text)?),
        };
        edits.push((key, text));
    }
    Ok(target.with(&edits))
}

/// The pseudocode of RFC 7396 section 2, over values: what the above is held against.
#[cfg(any(fuzzing, test))]
pub(crate) fn reference(target: serde_json::Value, patch: &serde_json::Value) -> serde_json::Value {
    use serde_json::{Map, Value};
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = if let Value::Object(target) = target { target } else { Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            let merged = reference(target.get(name).cloned().unwrap_or(Value::Null), value);
            target.insert(name.clone(), merged);
        }
    }
    Value::Object(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_examples_of_rfc_7396_appendix_a() {
        for (original, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merge_patch(original, patch).unwrap(), result, "{original} + {patch}");
        }
    }

    #[test]
    fn what_the_patch_does_not_name_keeps_its_bytes() {
        let target =
            "{\n  \"n\": 1.10, \"big\": 12345678901234567890123,\n  \"in\": { \"a\" : \"\\u00e9\\/\", \"b\": 2 }\n}";
        let merged = merge_patch(target, r#"{"in":{"b":null,"c":1.0},"big":null,"z":{"x":null,"y":0.10}}"#).unwrap();
        assert_eq!(merged, "{\n  \"n\": 1.10,\n  \"in\": { \"a\" : \"\\u00e9\\/\",\"c\":1.0 },\"z\":{\"y\":0.10}\n}");
    }

    #[test]
    fn a_patch_is_checked() {
        assert!(matches!(merge_patch("{}", r#"{"a":1,"a":2}"#), Err(JsonFault::DuplicateKey { .. })));
        let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        assert!(matches!(merge_patch("{}", &deep), Err(JsonFault::TooDeep { .. })));
        assert!(matches!(merge_patch("{", "{}"), Err(JsonFault::Malformed { .. })));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"\\\\\u{e9}\n]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-d\"\u{e9}]{0,1}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merges_as_the_reference_does_in_the_same_order(target in json(), patch in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&target) } else { serde_json::to_string(&target) };
            let merged = merge_patch(&text.unwrap(), &patch.to_string()).unwrap();
            let read: Value = serde_json::from_str(&merged).unwrap();
            prop_assert_eq!(read.to_string(), reference(target, &patch).to_string());
        }
    }
}
