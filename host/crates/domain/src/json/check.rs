//! Validates JSON text in one pass, without building a tree.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::surrogates::first_lone_surrogate;
use super::{Object, is_space};

/// Limits of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Nesting depth of objects and arrays; `{}` has depth 1. Values above 126 are treated as 126.
    pub depth_max: usize,
    /// Length in bytes, including white space.
    pub bytes_max: usize,
}

impl Default for JsonLimits {
    /// Depth 64 and 1 MiB.
    fn default() -> Self {
        Self { depth_max: 64, bytes_max: 1 << 20 }
    }
}

/// Beyond this depth, serde_json's own recursion limit would apply, with its own error message.
const DEPTH_CEILING: usize = 126;

/// Number of keys in an object up to which duplicates are found by a linear scan. Above it, a hash set is used.
const KEYS_SCANNED_MAX: usize = 16;

/// Maximum length of a reported path, in characters.
const PATH_CHARS_MAX: usize = 200;

/// Why a text was rejected. Lines and columns start at 1; columns count bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not UTF-8.
    #[error("not UTF-8 from byte {at} on: send JSON encoded as UTF-8 (RFC 8259 section 8.1)")]
    NotUtf8 {
        /// Number of valid bytes before the first invalid one.
        at: usize,
    },
    /// The text is not JSON, or has a number out of the range of a double, which most parsers would reject.
    #[error("not valid JSON at line {line}, column {column}: {detail}")]
    Malformed {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
        /// The parser's message.
        detail: String,
    },
    /// A string contains an unpaired surrogate, which is not a valid character (RFC 8259 section 8.2). Parsers handle
    /// it in different ways.
    #[error(
        "a string has an unpaired surrogate, `{escape}`, at line {line}, column {column}: send both halves or none, or set the \
         source's `replace_lone_surrogates`, which puts U+FFFD in its place"
    )]
    LoneSurrogate {
        /// The escape sequence.
        escape: String,
        /// Line.
        line: usize,
        /// Column at which the escape sequence begins.
        column: usize,
    },
    /// An object has a duplicate key. Parsers differ in which value they use, so a filter could see another value than
    /// the receiver.
    #[error(
        "the key `{path}` occurs twice in its object, the second time before line {line}, column {column}: send it once"
    )]
    DuplicateKey {
        /// JSON Pointer (RFC 6901) to the key, truncated to 200 characters.
        path: String,
        /// Line.
        line: usize,
        /// Column after the second occurrence of the key.
        column: usize,
    },
    /// The nesting is too deep.
    #[error("nested more than {limit} levels deep at line {line}, column {column}: send a flatter body")]
    TooDeep {
        /// Maximum depth.
        limit: usize,
        /// Line.
        line: usize,
        /// Column, accurate to one.
        column: usize,
    },
    /// The text is too large.
    #[error("{bytes} bytes long: {limit} are allowed")]
    TooLarge {
        /// Length of the text in bytes.
        bytes: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The text is valid JSON, but not an object.
    #[error("not a JSON object: send one event as one object, `{{...}}`")]
    NotAnObject,
}

impl JsonError {
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        // serde_json appends the position to its message; here it has separate fields.
        let text = error.to_string();
        let detail = text.rsplit_once(" at line ").map_or(text.as_str(), |(detail, _)| detail).to_owned();
        Self::Malformed { line: error.line(), column: error.column(), detail }
    }
}

/// Checks that `bytes` are a single JSON value in UTF-8, within the limits and without duplicate keys. Returns the text
/// without surrounding white space.
///
/// # Errors
/// The first [`JsonError`] in the text. Never returns [`JsonError::NotAnObject`].
pub fn check(bytes: &[u8], limits: JsonLimits) -> Result<&str, JsonError> {
    check_text(bytes, limits, CollectKeys::Nothing).map(|(text, _)| text)
}

/// Checks like [`check`], and splits the object into members in the same pass.
///
/// # Errors
/// The first [`JsonError`] in the text. [`JsonError::NotAnObject`] if it is otherwise valid.
pub fn check_object(bytes: &[u8], limits: JsonLimits) -> Result<Object<'_>, JsonError> {
    let (text, keys) = check_text(bytes, limits, CollectKeys::Root)?;
    Object::from_keys(text, keys.root.ok_or(JsonError::NotAnObject)?)
}

/// Checks like [`check`], and splits the object into members in the same pass. Does the same for its member `inner`, if
/// that is an object.
///
/// # Errors
/// See [`check_object`].
pub fn check_object_and<'a>(
    inner: &'static str,
    bytes: &'a [u8],
    limits: JsonLimits,
) -> Result<(Object<'a>, Option<Object<'a>>), JsonError> {
    let (text, keys) = check_text(bytes, limits, CollectKeys::RootAnd(inner))?;
    let object = Object::from_keys(text, keys.root.ok_or(JsonError::NotAnObject)?)?;
    let inner = match (object.get(inner), keys.inner) {
        (Some(text), Some(keys)) => Some(Object::from_keys(text, keys)?),
        _ => None,
    };
    Ok((object, inner))
}

fn check_text(bytes: &[u8], limits: JsonLimits, keep: CollectKeys) -> Result<(&str, CollectedKeys<'_>), JsonError> {
    if bytes.len() > limits.bytes_max {
        return Err(JsonError::TooLarge { bytes: bytes.len(), limit: limits.bytes_max });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
    let depth_max = limits.depth_max.min(DEPTH_CEILING);
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut state = WalkState { depth_max, found: None, keys: Vec::new(), keep, kept: CollectedKeys::default() };
    let root = Path { parent: None, segment: PathSegment::Root, depth: 0 };
    let walked = Walk { path: &root, state: &mut state }.deserialize(&mut reader);
    match walked.and_then(|()| reader.end()) {
        Ok(()) => Ok((text.trim_matches(is_space), state.kept)),
        Err(error) => Err(match state.found {
            Some(WalkError::Duplicate(path)) => {
                JsonError::DuplicateKey { path, line: error.line(), column: error.column() }
            }
            Some(WalkError::TooDeep) => {
                JsonError::TooDeep { limit: depth_max, line: error.line(), column: error.column() }
            }
            None => lone_surrogate(text, &error).unwrap_or_else(|| JsonError::malformed(&error)),
        }),
    }
}

/// The fault, if the parser stopped at an unpaired surrogate.
fn lone_surrogate(text: &str, error: &serde_json::Error) -> Option<JsonError> {
    let at = first_lone_surrogate(text)?;
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    // The parser stops at the first error, so an unpaired surrogate after its position is not the cause.
    ((line, column) <= (error.line(), error.column())).then(|| JsonError::LoneSurrogate {
        escape: text[at..].chars().take(6).collect(),
        line,
        column,
    })
}

/// State of the pass.
struct WalkState<'de> {
    depth_max: usize,
    found: Option<WalkError>,
    /// Keys of all objects that enclose the current position. One stack for all levels, so that a level needs no
    /// allocation of its own.
    keys: Vec<Cow<'de, str>>,
    keep: CollectKeys,
    kept: CollectedKeys<'de>,
}

/// Of which objects the keys are returned.
#[derive(Clone, Copy)]
enum CollectKeys {
    Nothing,
    Root,
    /// Also of this member of the root.
    RootAnd(&'static str),
}

/// Keys in their order. `None` if the value is not an object.
#[derive(Default)]
struct CollectedKeys<'de> {
    root: Option<Vec<Cow<'de, str>>>,
    inner: Option<Vec<Cow<'de, str>>>,
}

/// Errors that serde cannot represent.
enum WalkError {
    Duplicate(String),
    TooDeep,
}

/// The current path, as a linked list on the call stack, so that a valid text needs no allocations for paths.
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    segment: PathSegment<'p>,
    depth: usize,
}

enum PathSegment<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl Path<'_> {
    fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut path = Some(self);
        while let Some(at) = path {
            match at.segment {
                PathSegment::Root => {}
                PathSegment::Key(key) => steps.push(key.replace('~', "~0").replace('/', "~1")),
                PathSegment::Index(index) => steps.push(index.to_string()),
            }
            path = at.parent;
        }
        let pointer: String = steps.iter().rev().flat_map(|step| ["/", step]).collect();
        pointer.chars().take(PATH_CHARS_MAX).collect()
    }
}

struct Walk<'w, 'de> {
    path: &'w Path<'w>,
    state: &'w mut WalkState<'de>,
}

impl Walk<'_, '_> {
    /// Returns the depth inside the object or array that starts here.
    fn enter<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        let depth = self.path.depth + 1;
        if depth > self.state.depth_max {
            self.state.found = Some(WalkError::TooDeep);
            return Err(E::custom("too deep"));
        }
        Ok(depth)
    }

    /// Ends an object, whose keys start at index `begun`.
    fn leave(self, begun: usize) {
        let kept = match (self.state.keep, &self.path.segment) {
            (CollectKeys::Root | CollectKeys::RootAnd(_), PathSegment::Root) => &mut self.state.kept.root,
            (CollectKeys::RootAnd(inner), PathSegment::Key(key)) if self.path.depth == 1 && *key == inner => {
                &mut self.state.kept.inner
            }
            _ => return self.state.keys.truncate(begun),
        };
        *kept = Some(self.state.keys.split_off(begun));
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        for index in 0.. {
            let path = Path { parent: Some(self.path), segment: PathSegment::Index(index), depth };
            if items.next_element_seed(Walk { path: &path, state: &mut *self.state })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let begun = self.state.keys.len();
        let mut many = HashSet::new();
        while let Some(Key(key)) = members.next_key()? {
            let path = Path { parent: Some(self.path), segment: PathSegment::Key(&key), depth };
            let own = &self.state.keys[begun..];
            let twice = if own.len() <= KEYS_SCANNED_MAX { own.contains(&key) } else { many.contains(&key) };
            if twice {
                self.state.found = Some(WalkError::Duplicate(path.pointer()));
                return Err(A::Error::custom("duplicate key"));
            }
            members.next_value_seed(Walk { path: &path, state: &mut *self.state })?;
            self.state.keys.push(key);
            let own = &self.state.keys[begun..];
            if own.len() > KEYS_SCANNED_MAX {
                let new = if many.is_empty() { own } else { &own[own.len() - 1..] };
                many.extend(new.iter().cloned());
            }
        }
        self.leave(begun);
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> JsonError {
        check(text.as_bytes(), JsonLimits::default()).unwrap_err()
    }

    #[test]
    fn valid_text_is_returned_trimmed() {
        let text = " \r\n{\"a\": [1.10, 12345678901234567890, \"\\u00e9\", null, true]}\t";
        assert_eq!(check(text.as_bytes(), JsonLimits::default()).unwrap(), text.trim());
    }

    #[test]
    fn duplicate_key_is_reported_with_path() {
        assert_eq!(
            fault("{\"a\":1,\n \"b\":[{\"x/y\":1,\"x\\/y\":2}]}"),
            JsonError::DuplicateKey { path: "/b/0/x~1y".to_owned(), line: 2, column: 21 },
        );
        assert!(matches!(fault(r#"{"a":1,"\u0061":2}"#), JsonError::DuplicateKey { path, .. } if path == "/a"));
        assert!(
            check(br#"{"a":{"a":1},"b":{"a":1}}"#, JsonLimits::default()).is_ok(),
            "siblings may have the same keys"
        );
    }

    #[test]
    fn duplicate_key_is_found_in_large_objects() {
        for others in [0, 1, KEYS_SCANNED_MAX - 1, KEYS_SCANNED_MAX, KEYS_SCANNED_MAX + 1, 100] {
            for first in 0..=others {
                let mut keys: Vec<_> = (0..others).map(|n| format!("\"k{n}\":{{\"again\":[]}}")).collect();
                keys.insert(first, "\"again\":{}".to_owned());
                let once = format!("{{{}}}", keys.join(","));
                assert!(check(once.as_bytes(), JsonLimits::default()).is_ok(), "{once}");
                keys.push("\"ag\\u0061in\":1".to_owned());
                let twice = fault(&format!("{{{}}}", keys.join(",")));
                assert!(matches!(&twice, JsonError::DuplicateKey { path, .. } if path == "/again"), "{twice}");
            }
        }
    }

    #[test]
    fn check_object_returns_members_in_one_pass() {
        let limits = JsonLimits::default();
        let taken = |text: &'static str| check_object_and("in", text.as_bytes(), limits);
        let texts = |object: &Object<'_>| object.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(";");
        for text in [
            "{}",
            " { } \n",
            r#"{"":[{"in":{"x":1}}],"in":{}}"#,
            "{ \"a\" :\n1.10 ,\"in\": { \"\" : \",\" , \"b\":[ 1 , 2 ] }\t, \"c\" : \":{\" \r}",
            "{\"\\u0061\": 1, \"in\":{\"in\":{\"q\":2},\"\\n\": \"\\\"\" , \"z\":true } }",
            r#"{"in":[{"a":1}],"a":null}"#,
            r#"{"\u0069n":{"a":1}}"#,
        ] {
            let (object, inner) = taken(text).unwrap();
            assert_eq!(texts(&check_object(text.as_bytes(), limits).unwrap()), texts(&object));
            let parsed = Object::parse(text).unwrap();
            assert_eq!((object.text(), texts(&object)), (parsed.text(), texts(&parsed)), "{text}");
            let parsed = parsed.object("in");
            assert_eq!(inner.as_ref().map(texts), parsed.as_ref().map(texts), "{text}");
            assert_eq!(inner.map(|inner| inner.text()), parsed.map(|parsed| parsed.text()), "{text}");
        }
        assert_eq!(taken("[{\"in\":{}}]").unwrap_err(), JsonError::NotAnObject);
        assert!(matches!(taken("[{\"a\":1,\"a\":2}]"), Err(JsonError::DuplicateKey { .. })), "syntax is checked first");
    }

    #[test]
    fn depth_counts_objects_and_arrays() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check(nested(64).as_bytes(), JsonLimits::default()).is_ok());
        assert!(matches!(fault(&nested(65)), JsonError::TooDeep { limit: 64, line: 1, column: 65 | 66 }));
        assert!(matches!(fault(&nested(100_000)), JsonError::TooDeep { .. }));
        let lax = JsonLimits { depth_max: usize::MAX, ..JsonLimits::default() };
        assert!(check(nested(126).as_bytes(), lax).is_ok());
        assert!(matches!(check(nested(127).as_bytes(), lax), Err(JsonError::TooDeep { limit: 126, .. })));
    }

    #[test]
    fn invalid_json_is_reported_with_line_and_column() {
        assert_eq!(
            fault("{\"a\":1,\n}"),
            JsonError::Malformed { line: 2, column: 1, detail: "trailing comma".to_owned() }
        );
        for bad in ["", "{} {}", "nul", "{\"a\":01}", "[1e999]", "{'a':1}", "\u{feff}{}"] {
            assert!(matches!(fault(bad), JsonError::Malformed { .. }), "{bad}");
        }
        for (bad, escape, line, column) in [
            ("\"\\ud800\"", "\\ud800", 1, 2),
            ("{\"a\":1,\n \"b\\uDC00\": 2}", "\\uDC00", 2, 4),
            ("[\"\\ud83d\\ud83d\\ude00\"]", "\\ud83d", 1, 3),
        ] {
            let lone = JsonError::LoneSurrogate { escape: escape.to_owned(), line, column };
            assert_eq!(fault(bad), lone, "{bad}");
        }
        // An earlier error takes precedence.
        assert!(matches!(fault("[nope, \"\\ud800\"]"), JsonError::Malformed { .. }));
        assert_eq!(check(b"{\"a\":\"\xff\"}", JsonLimits::default()), Err(JsonError::NotUtf8 { at: 6 }));
        let small = JsonLimits { bytes_max: 2, ..JsonLimits::default() };
        assert_eq!(check(b"{ }", small), Err(JsonError::TooLarge { bytes: 3, limit: 2 }));
    }

    proptest! {
        #[test]
        fn never_panics_and_is_no_laxer_than_serde(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = check(&bytes, JsonLimits::default()) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
            }
        }
    }
}
