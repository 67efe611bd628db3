//! Glob patterns, compiled when they are parsed and matched in time linear in the length of the text.
//!
//! Tenants write the patterns, senders choose the event types, and each event is matched against all patterns of a
//! tenant. So the cost of a match must not be the product of both lengths: the parts between two `*` are searched with
//! the two-way algorithm (`memchr::memmem`), which does not backtrack.

use std::hash::{Hash, Hasher};

use memchr::memmem::{self, Finder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum length of a pattern in characters.
pub const PATTERN_CHARS_MAX: usize = 256;

/// Maximum number of `*` in a pattern.
pub const PATTERN_STARS_MAX: usize = 4;

/// Number of separators after which a match is attempted. Type URIs have about ten; the limit bounds the cost of
/// hostile ones.
const SEGMENTS_MAX: usize = 32;

/// A pattern for event types: `*` matches any run of characters, every other character matches itself.
///
/// It is matched against the event type URI and against the catalogue's short name (`wso2/login/loginSuccess`). A match
/// may start at the beginning or after any `/` or `:`, and must extend to the end: `loginSuccess`, `login/*` and the
/// whole URI all match that event. The filter SDK's `Event::is` uses the same rules.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = PATTERN_CHARS_MAX, "pattern" = r"^[^\s*]*(\*[^\s*]*){0,4}$"))]
#[schemars(rename = "EventPattern")]
#[schemars(with = "String")]
pub struct Pattern {
    text: Box<str>,
    /// Number of bytes before the first `*` and after the last. `None` if there is no `*`.
    ends: Option<(usize, usize)>,
    /// The non-empty parts between two `*`.
    between: Box<[Finder<'static>]>,
}

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches an event type, given its URI and its short name in the catalogue.
    pub fn matches(&self, uri: &str, short_name: Option<&str>) -> bool {
        self.finds(uri.as_bytes()) || short_name.is_some_and(|name| self.finds(name.as_bytes()))
    }

    /// Whether the pattern matches all of `text`, or everything after one of its first [`SEGMENTS_MAX`] `/` or `:`.
    fn finds(&self, text: &[u8]) -> bool {
        let pattern = self.text.as_bytes();
        let Some((head, tail)) = self.ends else {
            let Some(start) = text.len().checked_sub(pattern.len()) else { return false };
            return &text[start..] == pattern && starts(text).any(|at| at == start);
        };
        // The earliest match of the head is sufficient: the `*` after it can match everything up to a later one.
        let (head, tail) = (&pattern[..head], &pattern[pattern.len() - tail..]);
        // An empty head matches at the beginning.
        let Some(start) = starts(text).find(|at| text[*at..].starts_with(head)) else { return false };
        between_ends(&text[start + head.len()..], self.between.iter().map(Needle::Compiled), tail)
    }
}

/// Positions at which a match may start.
fn starts(text: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(memchr::memchr2_iter(b'/', b':', text).take(SEGMENTS_MAX).map(|at| at + 1))
}

/// A part to search for.
enum Needle<'n> {
    Compiled(&'n Finder<'static>),
    Once(&'n [u8]),
}

impl Needle<'_> {
    /// Index after its first occurrence.
    fn end_in(&self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Compiled(finder) => Some(finder.find(text)? + finder.needle().len()),
            Self::Once(needle) => Some(memmem::find(text, needle)? + needle.len()),
        }
    }
}

/// Whether the needles occur in `text` in this order, with `tail` after them at the end. Takes the first occurrence of
/// each, which leaves the most text to the rest.
fn between_ends<'n>(mut text: &[u8], needles: impl Iterator<Item = Needle<'n>>, tail: &[u8]) -> bool {
    for needle in needles {
        let Some(end) = needle.end_in(text) else { return false };
        text = &text[end..];
    }
    text.ends_with(tail)
}

/// Whether `pattern` matches all of `text`, with `*` as any run of characters. For patterns that are rarely used. To
/// match a pattern against each event, use [`Pattern`].
pub fn glob(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let Some((head, rest)) = pattern.split_once('*') else { return pattern.as_bytes() == text };
    let (between, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let needles = between.split('*').map(|part| Needle::Once(part.as_bytes()));
    text.strip_prefix(head.as_bytes()).is_some_and(|text| between_ends(text, needles, tail.as_bytes()))
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(given: String) -> Result<Self, String> {
        if given.is_empty() || given.chars().count() > PATTERN_CHARS_MAX || given.contains(char::is_whitespace) {
            return Err(format!("an event pattern is 1 to {PATTERN_CHARS_MAX} characters without white space"));
        }
        if given.matches('*').count() > PATTERN_STARS_MAX {
            return Err(format!("an event pattern has at most {PATTERN_STARS_MAX} `*`"));
        }
        let (mut ends, mut between) = (None, Vec::new());
        if let Some((head, rest)) = given.split_once('*') {
            let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
            ends = Some((head.len(), tail.len()));
            let parts = middle.split('*').filter(|part| !part.is_empty());
            between.extend(parts.map(|part| Finder::new(part).into_owned()));
        }
        Ok(Self { text: given.into(), ends, between: between.into() })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text.into()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn glob_matches_whole_text() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*/login/*", "wso2/login/loginSuccess", true),
            ("a*b*c", "aXbYbZc", true),
            ("a**b", "ab", true),
            ("ab*ba", "aba", false),
            ("a*b*b", "ab", false),
            ("", "a", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn pattern_matches_uri_and_short_name_from_any_segment() {
        let uri = "https://schemas.identity.wso2.org/events/login/event-type/loginFailed";
        let matches = |text: &str| pattern(text).matches(uri, Some("wso2/login/loginFailed"));
        for pattern in ["*", "loginFailed", "login/*", "wso2/login/*", "*Failed", uri, "https://*/login/*"] {
            assert!(matches(pattern), "{pattern}");
        }
        for pattern in ["login", "Failed", "wso2", "loginSuccess", "https://schemas.identity.wso2.org/events"] {
            assert!(!matches(pattern), "{pattern}");
        }
    }

    #[test]
    fn patterns_are_compared_by_text() {
        let text = "a*b*c";
        assert_eq!(pattern(text), pattern(text));
        assert_eq!(serde_json::to_string(&pattern(text)).unwrap(), "\"a*b*c\"");
        assert!(serde_json::from_str::<Pattern>("\"a*b*c*d*e*\"").is_err());
    }

    /// Reference implementation with backtracking: slow but simple.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| by_definition(rest, &text[at..])),
            Some((first, rest)) => {
                text.split_first().is_some_and(|(byte, text)| byte == first && by_definition(rest, text))
            }
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_definition(text in "[ab/:]{0,14}", given in "[ab/*]{1,7}") {
            let expected = by_definition(given.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(&given, &text), expected);
            let Ok(pattern) = Pattern::try_from(given.clone()) else { return Ok(()) };
            let mut starts = std::iter::once(0).chain(text.match_indices(['/', ':']).map(|(at, _)| at + 1));
            let expected = starts.any(|at| by_definition(given.as_bytes(), &text.as_bytes()[at..]));
            prop_assert_eq!(pattern.matches(&text, None), expected);
        }
    }

    /// CPU time of this thread in nanoseconds, which does not depend on the load of the machine.
    fn computed_ns() -> i128 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    }

    /// With text and pattern 16 times as long, a quadratic algorithm would take 256 times as long.
    #[test]
    fn matching_is_linear_in_text_length() {
        let work = |length: usize| {
            let (needle, text) = ("a".repeat(length / 4), "a".repeat(length));
            let (glob_of, texts) = (format!("a*{needle}b{needle}*a"), format!("{text}b{text}"));
            let least = (0..5).map(|_| {
                let begun = computed_ns();
                assert!(glob(&glob_of, &texts) && !glob(&glob_of, &text));
                computed_ns() - begun
            });
            least.min().unwrap().max(1)
        };
        let (short, long) = (work(20_000), work(320_000));
        assert!(long < short * 100, "16 times the text took {short} ns, then {long} ns");
    }
}
