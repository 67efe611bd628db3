//! One pass over a text that says whether it is sound; no tree is built.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::surrogates::first_lone;
use super::{Object, is_space};

/// How large a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Levels of objects and arrays inside one another; `{}` has one. More than 126 is read as 126.
    pub depth_max: usize,
    /// Bytes, white space included.
    pub bytes_max: usize,
}

impl Default for JsonLimits {
    /// 64 levels and 1 MiB.
    fn default() -> Self {
        Self { depth_max: 64, bytes_max: 1 << 20 }
    }
}

/// Past this serde_json's own guard against deep nesting would answer, in words of its own.
const DEPTH_CEILING: usize = 126;

/// Keys of one object up to which a new one is held against each of them; more are looked up.
const KEYS_SCANNED_MAX: usize = 16;

/// Characters of a path that are shown.
const PATH_CHARS_MAX: usize = 200;

/// Why a text is not taken. Lines and columns start at 1; a column counts bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Some bytes are not UTF-8.
    #[error("not UTF-8 from byte {at} on: send JSON encoded as UTF-8 (RFC 8259 section 8.1)")]
    NotUtf8 {
        /// How many bytes before it are.
        at: usize,
    },
    /// Not JSON; a number that no double can hold is refused too, since most readers would.
    #[error("not valid JSON at line {line}, column {column}: {detail}")]
    Malformed {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
        /// The reader's words.
        detail: String,
    },
    /// A text has half of a surrogate pair, which stands for no character (RFC 8259 section 8.2): readers differ in what they
    /// make of it.
    #[error(
        "a text has half of a surrogate pair, `{escape}`, at line {line}, column {column}: send both halves or none, or set the \
         source's `replace_lone_surrogates`, which puts U+FFFD in its place"
    )]
    LoneSurrogate {
        /// The escape.
        escape: String,
        /// Line.
        line: usize,
        /// Column at which the escape begins.
        column: usize,
    },
    /// One object has one key twice. Readers differ in which they take, so a filter could see another value than the
    /// receiver.
    #[error(
        "the key `{path}` stands twice in its object, the second time before line {line}, column {column}: send it once"
    )]
    DuplicateKey {
        /// JSON Pointer (RFC 6901) to the key, cut to 200 characters.
        path: String,
        /// Line.
        line: usize,
        /// Column, just after the second key.
        column: usize,
    },
    /// Objects and arrays are nested too deeply.
    #[error("nested more than {limit} levels deep at line {line}, column {column}: send a flatter body")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
        /// Line.
        line: usize,
        /// Column, give or take one.
        column: usize,
    },
    /// The text is too long.
    #[error("{bytes} bytes long: {limit} are allowed")]
    TooLarge {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The text is JSON, but an array or a single value.
    #[error("not a JSON object: send one event as one object, `{{...}}`")]
    NotAnObject,
}

impl JsonFault {
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        // serde_json writes the position behind its words; here it has fields of its own.
        let text = error.to_string();
        let detail = text.rsplit_once(" at line ").map_or(text.as_str(), |(detail, _)| detail).to_owned();
        Self::Malformed { line: error.line(), column: error.column(), detail }
    }
}

/// Checks that `bytes` are one JSON value in UTF-8, within the limits and with no key twice in any object, and gives
/// the text without the white space around it.
///
/// # Errors
/// The first [`JsonFault`] from the left; never [`JsonFault::NotAnObject`].
pub fn check(bytes: &[u8], limits: JsonLimits) -> Result<&str, JsonFault> {
    sound(bytes, limits, Keep::Nothing).map(|(text, _)| text)
}

/// Checks as [`check`] does, and takes the object apart in the same walk.
///
/// # Errors
/// The first [`JsonFault`] from the left; [`JsonFault::NotAnObject`] where all else is as it should be.
pub fn check_object(bytes: &[u8], limits: JsonLimits) -> Result<Object<'_>, JsonFault> {
    let (text, keys) = sound(bytes, limits, Keep::Root)?;
    Object::of_keys(text, keys.root.ok_or(JsonFault::NotAnObject)?)
}

/// Checks as [`check`] does, and takes the object apart in the same walk; so too its member `inner`, where that is an
/// object.
///
/// # Errors
/// Those of [`check_object`].
pub fn check_object_and<'a>(
    inner: &'static str,
    bytes: &'a [u8],
    limits: JsonLimits,
) -> Result<(Object<'a>, Option<Object<'a>>), JsonFault> {
    let (text, keys) = sound(bytes, limits, Keep::RootAnd(inner))?;
    let object = Object::of_keys(text, keys.root.ok_or(JsonFault::NotAnObject)?)?;
    let inner = match (object.get(inner), keys.inner) {
        (Some(text), Some(keys)) => Some(Object::of_keys(text, keys)?),
        _ => None,
    };
    Ok((object, inner))
}

fn sound(bytes: &[u8], limits: JsonLimits, keep: Keep) -> Result<(&str, Kept<'_>), JsonFault> {
    if bytes.len() > limits.bytes_max {
        return Err(JsonFault::TooLarge { bytes: bytes.len(), limit: limits.bytes_max });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| JsonFault::NotUtf8 { at: error.valid_up_to() })?;
    let depth_max = limits.depth_max.min(DEPTH_CEILING);
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut seen = Seen { depth_max, found: None, keys: Vec::new(), keep, kept: Kept::default() };
    let root = Place { parent: None, step: Step::Root, depth: 0 };
    let walked = Walk { place: &root, seen: &mut seen }.deserialize(&mut reader);
    match walked.and_then(|()| reader.end()) {
        Ok(()) => Ok((text.trim_matches(is_space), seen.kept)),
        Err(error) => Err(match seen.found {
            Some(Found::Duplicate(path)) => {
                JsonFault::DuplicateKey { path, line: error.line(), column: error.column() }
            }
            Some(Found::TooDeep) => JsonFault::TooDeep { limit: depth_max, line: error.line(), column: error.column() },
            None => lone_surrogate(text, &error).unwrap_or_else(|| JsonFault::malformed(&error)),
        }),
    }
}

/// The fault, if it is an escape of half a surrogate pair at which the reader stopped.
fn lone_surrogate(text: &str, error: &serde_json::Error) -> Option<JsonFault> {
    let at = first_lone(text)?;
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    // Anything that is wrong before it is what the reader means.
    ((line, column) <= (error.line(), error.column())).then(|| JsonFault::LoneSurrogate {
        escape: text[at..].chars().take(6).collect(),
        line,
        column,
    })
}

/// What the walk has seen.
struct Seen<'de> {
    depth_max: usize,
    found: Option<Found>,
    /// The keys of all objects that the walk is inside of, as far as it has come: one list for all levels, so that a
    /// level costs no allocation of its own.
    keys: Vec<Cow<'de, str>>,
    keep: Keep,
    kept: Kept<'de>,
}

/// Of which objects the keys are kept.
#[derive(Clone, Copy)]
enum Keep {
    Nothing,
    Root,
    /// And of this member of the root.
    RootAnd(&'static str),
}

/// Keys in their order; none where the value is no object.
#[derive(Default)]
struct Kept<'de> {
    root: Option<Vec<Cow<'de, str>>>,
    inner: Option<Vec<Cow<'de, str>>>,
}

/// What the walk found that serde has no word for.
enum Found {
    Duplicate(String),
    TooDeep,
}

/// Where the walk is: a list on the stack, so that a sound text costs no allocation for its paths.
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
    depth: usize,
}

enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut place = Some(self);
        while let Some(at) = place {
            match at.step {
                Step::Root => {}
                Step::Key(key) => steps.push(key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => steps.push(index.to_string()),
            }
            place = at.parent;
        }
        let pointer: String = steps.iter().rev().flat_map(|step| ["/", step]).collect();
        pointer.chars().take(PATH_CHARS_MAX).collect()
    }
}

struct Walk<'w, 'de> {
    place: &'w Place<'w>,
    seen: &'w mut Seen<'de>,
}

impl Walk<'_, '_> {
    /// The depth inside the value that starts here.
    fn enter<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        let depth = self.place.depth + 1;
        if depth > self.seen.depth_max {
            self.seen.found = Some(Found::TooDeep);
            return Err(E::custom("too deep"));
        }
        Ok(depth)
    }

    /// The object that was begun when there were `begun` keys is at its end.
    fn leave(self, begun: usize) {
        let kept = match (self.seen.keep, &self.place.step) {
            (Keep::Root | Keep::RootAnd(_), Step::Root) => &mut self.seen.kept.root,
            (Keep::RootAnd(inner), Step::Key(key)) if self.place.depth == 1 && *key == inner => {
                &mut self.seen.kept.inner
            }
            _ => return self.seen.keys.truncate(begun),
        };
        *kept = Some(self.seen.keys.split_off(begun));
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
            let place = Place { parent: Some(self.place), step: Step::Index(index), depth };
            if items.next_element_seed(Walk { place: &place, seen: &mut *self.seen })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let begun = self.seen.keys.len();
        let mut many = HashSet::new();
        while let Some(Key(key)) = members.next_key()? {
            let place = Place { parent: Some(self.place), step: Step::Key(&key), depth };
            let own = &self.seen.keys[begun..];
            let twice = if own.len() <= KEYS_SCANNED_MAX { own.contains(&key) } else { many.contains(&key) };
            if twice {
                self.seen.found = Some(Found::Duplicate(place.pointer()));
                return Err(A::Error::custom("duplicate key"));
            }
            members.next_value_seed(Walk { place: &place, seen: &mut *self.seen })?;
            self.seen.keys.push(key);
            let own = &self.seen.keys[begun..];
            if own.len() > KEYS_SCANNED_MAX {
                let new = if many.is_empty() { own } else { &own[own.len() - 1..] };
                many.extend(new.iter().cloned());
            }
        }
        self.leave(begun);
        Ok(())
    }
}

/// A key, borrowed from the text where it has no escapes.
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

    fn fault(text: &str) -> JsonFault {
        check(text.as_bytes(), JsonLimits::default()).unwrap_err()
    }

    #[test]
    fn a_sound_text_comes_back_without_the_space_around_it() {
        let text = " \r\n{\"a\": [1.10, 12345678901234567890, \"\\u00e9\", null, true]}\t";
        assert_eq!(check(text.as_bytes(), JsonLimits::default()).unwrap(), text.trim());
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_place() {
        assert_eq!(
            fault("{\"a\":1,\n \"b\":[{\"x/y\":1,\"x\\/y\":2}]}"),
            JsonFault::DuplicateKey { path: "/b/0/x~1y".to_owned(), line: 2, column: 21 },
        );
        assert!(matches!(fault(r#"{"a":1,"\u0061":2}"#), JsonFault::DuplicateKey { path, .. } if path == "/a"));
        assert!(check(br#"{"a":{"a":1},"b":{"a":1}}"#, JsonLimits::default()).is_ok(), "siblings share keys");
    }

    #[test]
    fn a_key_is_found_again_among_any_number() {
        for others in [0, 1, KEYS_SCANNED_MAX - 1, KEYS_SCANNED_MAX, KEYS_SCANNED_MAX + 1, 100] {
            for first in 0..=others {
                let mut keys: Vec<_> = (0..others).map(|n| format!("\"k{n}\":{{\"again\":[]}}")).collect();
                keys.insert(first, "\"again\":{}".to_owned());
                let once = format!("{{{}}}", keys.join(","));
                assert!(check(once.as_bytes(), JsonLimits::default()).is_ok(), "{once}");
                keys.push("\"ag\\u0061in\":1".to_owned());
                let twice = fault(&format!("{{{}}}", keys.join(",")));
                assert!(matches!(&twice, JsonFault::DuplicateKey { path, .. } if path == "/again"), "{twice}");
            }
        }
    }

    #[test]
    fn one_walk_checks_and_takes_apart() {
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
        assert_eq!(taken("[{\"in\":{}}]").unwrap_err(), JsonFault::NotAnObject);
        assert!(matches!(taken("[{\"a\":1,\"a\":2}]"), Err(JsonFault::DuplicateKey { .. })), "soundness comes first");
    }

    #[test]
    fn depth_is_counted_over_objects_and_arrays() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check(nested(64).as_bytes(), JsonLimits::default()).is_ok());
        assert!(matches!(fault(&nested(65)), JsonFault::TooDeep { limit: 64, line: 1, column: 65 | 66 }));
        assert!(matches!(fault(&nested(100_000)), JsonFault::TooDeep { .. }));
        let lax = JsonLimits { depth_max: usize::MAX, ..JsonLimits::default() };
        assert!(check(nested(126).as_bytes(), lax).is_ok());
        assert!(matches!(check(nested(127).as_bytes(), lax), Err(JsonFault::TooDeep { limit: 126, .. })));
    }

    #[test]
    fn what_is_not_json_is_told_with_line_and_column() {
        assert_eq!(
            fault("{\"a\":1,\n}"),
            JsonFault::Malformed { line: 2, column: 1, detail: "trailing comma".to_owned() }
        );
        for bad in ["", "{} {}", "nul", "{\"a\":01}", "[1e999]", "{'a':1}", "\u{feff}{}"] {
            assert!(matches!(fault(bad), JsonFault::Malformed { .. }), "{bad}");
        }
        for (bad, escape, line, column) in [
            ("\"\\ud800\"", "\\ud800", 1, 2),
            ("{\"a\":1,\n \"b\\uDC00\": 2}", "\\uDC00", 2, 4),
            ("[\"\\ud83d\\ud83d\\ude00\"]", "\\ud83d", 1, 3),
        ] {
            let lone = JsonFault::LoneSurrogate { escape: escape.to_owned(), line, column };
            assert_eq!(fault(bad), lone, "{bad}");
        }
        // What is wrong before it is what the reader means.
        assert!(matches!(fault("[nope, \"\\ud800\"]"), JsonFault::Malformed { .. }));
        assert_eq!(check(b"{\"a\":\"\xff\"}", JsonLimits::default()), Err(JsonFault::NotUtf8 { at: 6 }));
        let small = JsonLimits { bytes_max: 2, ..JsonLimits::default() };
        assert_eq!(check(b"{ }", small), Err(JsonFault::TooLarge { bytes: 3, limit: 2 }));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_takes_what_serde_refuses(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = check(&bytes, JsonLimits::default()) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
            }
        }
    }
}
