//! JSON Merge Patch (RFC 7396) on text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::object::push_quoted;
use super::{JsonError, JsonLimits, Object, check_object, is_space};

/// A merge patch for one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch<'p> {
    /// `null`: removes the member.
    Remove,
    /// Any other value that is not an object: replaces the target with this text.
    Value(&'p str),
    /// An object: changes these members in this order, and leaves the others.
    Members(Vec<(Cow<'p, str>, Patch<'p>)>),
}

/// Result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged<'t, 'p> {
    /// The patched text.
    pub text: String,
    /// The top-level members that the patch names, in the order of the patch. Empty if the patch is not an object.
    pub named: Vec<Named<'t, 'p>>,
}

/// A top-level member that the patch names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'t, 'p> {
    /// Name of the member.
    pub key: Cow<'p, str>,
    /// The patch for it.
    pub patch: Patch<'p>,
    /// Its value in the target. `None` if the target has no such member.
    pub before: Option<&'t str>,
    /// Range of its value in [`Merged::text`]. `None` if that has no such member.
    pub after: Option<Range<usize>>,
}

/// Applies an RFC 7396 merge patch. Members that the patch does not name keep their exact bytes and their position. New
/// members are appended. Values from the patch keep the text that they have there.
///
/// The target must have passed [`check`](super::check), and is parsed once. The patch is checked here with the default
/// depth limit, because the merge recurses as deep as the patch.
///
/// If the target is valid, the result is valid too. It has no duplicate keys, since a member is only added if there is
/// none of that name. Its depth is at most that of the deeper input: every value is at the same path as in the target
/// or the patch, with unchanged contents.
///
/// # Errors
/// If the target or the patch is invalid. [`JsonError::DuplicateKey`] and [`JsonError::TooDeep`] refer to the patch.
pub fn merge_patch<'t, 'p>(target: &'t str, patch: &'p str) -> Result<Merged<'t, 'p>, JsonError> {
    let limits = JsonLimits { bytes_max: usize::MAX, ..JsonLimits::default() };
    let changes = match check_object(patch.as_bytes(), limits) {
        Ok(patch) => Patch::members(patch)?,
        // A patch that is not an object replaces the target.
        Err(JsonError::NotAnObject) => {
            return Ok(Merged { text: patch.trim_matches(is_space).to_owned(), named: Vec::new() });
        }
        Err(fault) => return Err(fault),
    };
    let target = target.trim_matches(is_space);
    let target = if target.starts_with('{') { target } else { "{}" };
    let out = String::with_capacity(target.len() + patch.len());
    let mut merge = Merge { target, copied: 0, out };
    let mut reader = serde_json::Deserializer::from_str(target);
    let touched = Level { merge: &mut merge, changes: &changes, open: 0 }
        .deserialize(&mut reader)
        .and_then(|(_, touched)| reader.end().map(|()| touched))
        .map_err(|error| JsonError::malformed(&error))?;
    merge.copy_to(target.len());
    let named = changes.into_iter().zip(touched).map(|((key, patch), touched)| {
        let before = touched.before.map(|at| &target[at]);
        Named { key, patch, before, after: touched.after }
    });
    Ok(Merged { named: named.collect(), text: merge.out })
}

impl Merged<'_, '_> {
    /// A top-level member that the patch names.
    pub fn named(&self, key: &str) -> Option<&Named<'_, '_>> {
        self.named.iter().find(|named| named.key == key)
    }

    /// The value of a member after the merge, if the patch names it.
    pub fn after(&self, key: &str) -> Option<&str> {
        Some(&self.text[self.named(key)?.after.clone()?])
    }
}

impl<'p> Patch<'p> {
    fn members(patch: Object<'p>) -> Result<Vec<(Cow<'p, str>, Self)>, JsonError> {
        let read = |text: &'p str| match text {
            "null" => Ok(Self::Remove),
            object if object.starts_with('{') => Self::members(Object::parse(object)?).map(Self::Members),
            text => Ok(Self::Value(text)),
        };
        patch.into_members().into_iter().map(|(key, value)| Ok((key, read(value)?))).collect()
    }

    /// Writes the result of applying the patch to a target that is not an object.
    fn write(&self, out: &mut String) {
        match self {
            Self::Remove => {}
            Self::Value(text) => out.push_str(text),
            Self::Members(members) => {
                out.push('{');
                for (place, (key, patch)) in members.iter().filter(|(_, patch)| *patch != Self::Remove).enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    push_quoted(out, key);
                    out.push(':');
                    patch.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// State of a merge. Unchanged text is copied lazily, in one piece.
struct Merge<'t> {
    target: &'t str,
    /// Number of bytes of the target that were copied or skipped.
    copied: usize,
    out: String,
}

impl Merge<'_> {
    fn copy_to(&mut self, to: usize) {
        self.out.push_str(&self.target[self.copied..to]);
        self.copied = to;
    }

    /// `slice` is part of the target, so its range follows from the pointers.
    fn range_of(&self, slice: &RawValue) -> Range<usize> {
        let start = slice.get().as_ptr().addr() - self.target.as_ptr().addr();
        start..start + slice.get().len()
    }

    /// Index of the first byte at or after `at` that is not white space.
    fn skip_whitespace(&self, at: usize) -> usize {
        let rest = self.target.as_bytes().get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| is_space(char::from(**byte))).count()
    }

    /// Start of the value after a key, if that is an object.
    fn object_after(&self, key: &RawValue) -> Option<usize> {
        let colon = self.skip_whitespace(self.range_of(key).end);
        let start = self.skip_whitespace(colon + 1);
        (self.target.as_bytes().get(start) == Some(&b'{')).then_some(start)
    }
}

/// One object of the target, with the changes to its members.
struct Level<'m, 't, 'p> {
    merge: &'m mut Merge<'t>,
    changes: &'m [(Cow<'p, str>, Patch<'p>)],
    /// Index of its opening brace.
    open: usize,
}

/// Range of a changed member in the target, and in the output.
#[derive(Clone, Default)]
struct ChangedRange {
    before: Option<Range<usize>>,
    after: Option<Range<usize>>,
}

/// Returns the index after the object, and the ranges of each member that the patch names.
impl<'de> DeserializeSeed<'de> for Level<'_, 'de, '_> {
    type Value = (usize, Vec<ChangedRange>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, 'de, '_> {
    type Value = (usize, Vec<ChangedRange>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Self { merge, changes, open } = self;
        // Build an index, because both sides may have a hundred thousand members.
        let index: BTreeMap<&str, usize> =
            changes.iter().enumerate().map(|(at, (key, _))| (key.as_ref(), at)).collect();
        let mut touched = vec![ChangedRange::default(); changes.len()];
        // `end`: after the brace or the last value. `bare`: all members so far were removed. `kept`: at least one
        // member was retained.
        let (mut end, mut bare, mut kept) = (open + 1, false, false);
        while let Some(key) = members.next_key::<&RawValue>()? {
            let at = index.get(name(key).map_err(A::Error::custom)?.as_ref()).copied();
            if let Some(at) = at.filter(|at| changes[*at].1 == Patch::Remove) {
                // Removes the separator before it too.
                merge.copy_to(end);
                let place = merge.range_of(members.next_value()?);
                (end, bare) = (place.end, !kept);
                merge.copied = end;
                touched[at].before = Some(place);
                continue;
            }
            if bare {
                // This is now the first member, so skip the comma.
                merge.copied = merge.skip_whitespace(end) + 1;
                bare = false;
            }
            kept = true;
            let Some(at) = at else {
                end = merge.range_of(members.next_value()?).end;
                continue;
            };
            let (start, written) = match (&changes[at].1, merge.object_after(key)) {
                (Patch::Members(changes), Some(start)) => {
                    merge.copy_to(start);
                    let written = merge.out.len();
                    (end, _) = members.next_value_seed(Level { merge: &mut *merge, changes, open: start })?;
                    merge.copy_to(end);
                    (start, written)
                }
                (patch, _) => {
                    let place = merge.range_of(members.next_value()?);
                    merge.copy_to(place.start);
                    let written = merge.out.len();
                    patch.write(&mut merge.out);
                    end = place.end;
                    merge.copied = end;
                    (place.start, written)
                }
            };
            touched[at] = ChangedRange { before: Some(start..end), after: Some(written..merge.out.len()) };
        }
        for ((key, patch), touched) in changes.iter().zip(&mut touched) {
            if *patch == Patch::Remove || touched.before.is_some() {
                continue;
            }
            merge.copy_to(end);
            if kept {
                merge.out.push(',');
            }
            kept = true;
            push_quoted(&mut merge.out, key);
            merge.out.push(':');
            let written = merge.out.len();
            patch.write(&mut merge.out);
            touched.after = Some(written..merge.out.len());
        }
        Ok((merge.skip_whitespace(end) + 1, touched))
    }
}

/// Unquotes and unescapes a key.
fn name(key: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let text = key.get();
    if text.contains('\\') {
        return serde_json::from_str(text).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(&text[1..text.len() - 1]))
}

/// The pseudocode of RFC 7396 section 2 over values: the oracle of tests and fuzz targets.
#[doc(hidden)]
pub fn merge_reference(target: serde_json::Value, patch: &serde_json::Value) -> serde_json::Value {
    use serde_json::{Map, Value};
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = if let Value::Object(target) = target { target } else { Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            let merged = merge_reference(target.get(name).cloned().unwrap_or(Value::Null), value);
            target.insert(name.clone(), merged);
        }
    }
    Value::Object(target)
}

/// The merge with a parser and a writer for each level: slow but simple. The single pass must match it byte for byte.
/// Both texts must have passed [`check`](super::check).
#[cfg(test)]
pub(crate) fn by_levels(target: Option<&str>, patch: &str) -> Result<String, JsonError> {
    let patch = match Object::parse(patch) {
        Err(JsonError::NotAnObject) => return Ok(patch.to_owned()),
        patch => patch?,
    };
    let target = match Object::parse(target.unwrap_or("{}")) {
        Err(JsonError::NotAnObject) => Object::parse("{}")?,
        target => target?,
    };
    let mut edits = Vec::with_capacity(patch.len());
    for (key, value) in patch.iter() {
        edits.push((key, if value == "null" { None } else { Some(by_levels(target.get(key), value)?) }));
    }
    Ok(target.with(&edits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn matches_rfc_7396_appendix_a() {
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
            assert_eq!(merge_patch(original, patch).unwrap().text, result, "{original} + {patch}");
        }
    }

    #[test]
    fn unpatched_members_keep_their_bytes() {
        let target =
            "{\n  \"n\": 1.10, \"big\": 12345678901234567890123,\n  \"in\": { \"a\" : \"\\u00e9\\/\", \"b\": 2 }\n}";
        let merged = merge_patch(target, r#"{"in":{"b":null,"c":1.0},"big":null,"z":{"x":null,"y":0.10}}"#).unwrap();
        assert_eq!(
            merged.text,
            "{\n  \"n\": 1.10,\n  \"in\": { \"a\" : \"\\u00e9\\/\",\"c\":1.0 },\"z\":{\"y\":0.10}\n}"
        );
    }

    #[test]
    fn invalid_patch_is_refused() {
        assert!(matches!(merge_patch("{}", r#"{"a":1,"a":2}"#), Err(JsonError::DuplicateKey { .. })));
        let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        assert!(matches!(merge_patch("{}", &deep), Err(JsonError::TooDeep { .. })));
        for broken in ["{", "{\"a\"", "{\"a\"\u{e9}\u{e9}", "{\"a\" x{}", "{\"a\":{", "{\"a\":{}", "{\"a\":{}} x"] {
            for patch in ["{}", r#"{"a":{"b":1}}"#, r#"{"a":null}"#] {
                assert!(matches!(merge_patch(broken, patch), Err(JsonError::Malformed { .. })), "{broken} + {patch}");
            }
        }
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
        fn matches_reference_merge_and_member_order(target in json(), patch in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&target) } else { serde_json::to_string(&target) };
            let (text, patch_text) = (text.unwrap(), patch.to_string());
            let merged = merge_patch(&text, &patch_text).unwrap();
            prop_assert_eq!(&merged.text, &by_levels(Some(&text), &patch_text).unwrap());
            for named in &merged.named {
                let (before, after) = (Object::parse(&text).ok(), Object::parse(&merged.text).unwrap());
                prop_assert_eq!(named.before, before.and_then(|before| before.get(&named.key)));
                prop_assert_eq!(merged.after(&named.key), after.get(&named.key));
            }
            let read: Value = serde_json::from_str(&merged.text).unwrap();
            prop_assert_eq!(read.to_string(), merge_reference(target, &patch).to_string());
        }
    }
}
