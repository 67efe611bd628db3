//! One level of a JSON object, and edits that preserve all other bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::check::Key;
use super::{JsonError, is_space};

/// One level of a JSON object: the members in their order, with each value as a slice of the text.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    text: &'a str,
    members: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Object<'a> {
    /// Parses one level. The text should have passed [`check`](super::check). If it has a duplicate key,
    /// [`get`](Self::get) returns the first value.
    ///
    /// # Errors
    /// [`JsonError::NotAnObject`] and [`JsonError::Malformed`].
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        let text = text.trim_matches(is_space);
        if !text.starts_with('{') {
            return Err(JsonError::NotAnObject);
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = reader
            .deserialize_map(MembersVisitor)
            .and_then(|members| reader.end().map(|()| members))
            .map_err(|error| JsonError::malformed(&error))?;
        Ok(Self { text, members })
    }

    /// Builds the object from keys that were already parsed, in order. `text` must be valid and without surrounding
    /// white space, and keys without escapes must be slices of it.
    pub(super) fn from_keys(text: &'a str, keys: Vec<Cow<'a, str>>) -> Result<Self, JsonError> {
        if keys.iter().any(|key| matches!(key, Cow::Owned(_))) {
            // The position of a key with escapes is unknown, because it is not a slice of the text.
            return Self::parse(text);
        }
        let start_of = |key: &str| key.as_ptr().addr() - text.as_ptr().addr();
        let mut members: Vec<(Cow<'a, str>, &'a str)> = Vec::with_capacity(keys.len());
        // Backwards: a value ends before the quote of the next key, or before the closing brace.
        let mut end = text.len() - 1;
        for key in keys.into_iter().rev() {
            let start = start_of(&key);
            let value = text[start + key.len() + 1..end].trim_start_matches(is_space).trim_start_matches(':');
            let value = value.trim_matches(is_space).trim_end_matches(',').trim_end_matches(is_space);
            members.push((key, value));
            end = start - 1;
        }
        members.reverse();
        Ok(Self { text, members })
    }

    /// The text, without surrounding white space.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The value of a member, as text.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.members.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The unescaped value of a string member. `None` if there is no such member or it is not a string.
    pub fn string(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.get(key)?).ok()
    }

    /// The value of a member that is an object. `None` if there is no such member or it is not an object.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Object::parse(self.get(key)?).ok()
    }

    /// The members in their order, with their values as text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    pub(super) fn into_members(self) -> Vec<(Cow<'a, str>, &'a str)> {
        self.members
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the object has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Changes some members: `Some` replaces the value of the member, or appends it if there is no such member. `None`
    /// removes the member. All other bytes are preserved, including white space and escapes in keys. The new values
    /// must be valid JSON.
    pub fn with(&self, edits: &[(&str, Option<String>)]) -> String {
        if edits.is_empty() {
            return self.text.to_owned();
        }
        let mut open: BTreeMap<&str, Option<&str>> = edits.iter().map(|(key, text)| (*key, text.as_deref())).collect();
        let mut out = String::with_capacity(self.text.len() + 64);
        out.push('{');
        let mut first = true;
        for (index, (key, value)) in self.members.iter().enumerate() {
            let text = match open.remove(key.as_ref()) {
                None => value,
                Some(Some(text)) => text,
                Some(None) => continue,
            };
            out.push_str(self.lead(index, first));
            out.push_str(text);
            first = false;
        }
        for (key, _) in edits {
            let Some(Some(text)) = open.remove(key) else { continue };
            if !first {
                out.push(',');
            }
            push_quoted(&mut out, key);
            out.push(':');
            out.push_str(text);
            first = false;
        }
        out.push_str(&self.text[self.members.last().map_or(1, |(_, value)| self.end_of(value))..]);
        out
    }

    /// The text between the previous value and this one: comma, white space, key and colon. Without the comma if this
    /// is now the first member.
    fn lead(&self, index: usize, first: bool) -> &'a str {
        let from = if index == 0 { 1 } else { self.end_of(self.members[index - 1].1) };
        let lead = &self.text[from..self.start_of(self.members[index].1)];
        if first && index > 0 { lead.trim_start_matches(is_space).trim_start_matches(',') } else { lead }
    }

    /// A value is a slice of the text, so its position follows from the pointers.
    fn start_of(&self, value: &str) -> usize {
        value.as_ptr().addr() - self.text.as_ptr().addr()
    }

    fn end_of(&self, value: &str) -> usize {
        self.start_of(value) + value.len()
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // The typical number of members of a SET or of a login event.
        let mut members = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry::<_, &'de RawValue>()? {
            members.push((key, value.get()));
        }
        Ok(members)
    }
}

/// Writes an object with these members in order. The values must be JSON text and are copied verbatim.
pub fn write_object(pairs: &[(&str, &str)]) -> String {
    // Two quotes, a colon and a comma for each.
    let bytes = pairs.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>();
    let mut out = String::with_capacity(bytes + 2);
    out.push('{');
    for (key, value) in pairs {
        if out.len() > 1 {
            out.push(',');
        }
        push_quoted(&mut out, key);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// Encodes a string as JSON.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Appends a string encoded as JSON. Fast path for strings without escapes, which are nearly all keys and ids.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    // The characters that must be escaped (RFC 8259 section 7).
    if text.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_and_text() {
        let object = Object::parse(" {\"b\" : 1.10, \"\\u0061\":[ 1 ], \"c\":\"x\\/y\"} ").unwrap();
        let members: Vec<_> = object.iter().collect();
        assert_eq!(members, [("b", "1.10"), ("a", "[ 1 ]"), ("c", "\"x\\/y\"")]);
        assert_eq!(object.string("c").as_deref(), Some("x/y"));
        assert_eq!(object.string("b"), None);
        assert_eq!(Object::parse("[]").unwrap_err(), JsonError::NotAnObject);
        assert!(matches!(Object::parse("{} x").unwrap_err(), JsonError::Malformed { .. }));
    }

    #[test]
    fn edits_preserve_all_other_bytes() {
        let text = "{ \"a\" : 1.10 ,\n  \"\\u0062\":2,\n  \"c\" : 3e0\n}";
        let object = Object::parse(text).unwrap();
        let set = |key, value: Option<&str>| object.with(&[(key, value.map(str::to_owned))]);
        assert_eq!(object.with(&[]), text);
        assert_eq!(set("b", Some("true")), text.replace(":2,", ":true,"));
        assert_eq!(set("a", None), "{\n  \"\\u0062\":2,\n  \"c\" : 3e0\n}");
        assert_eq!(set("b", None), "{ \"a\" : 1.10,\n  \"c\" : 3e0\n}");
        assert_eq!(set("c", None), "{ \"a\" : 1.10 ,\n  \"\\u0062\":2\n}");
        assert_eq!(set("d", None), text);
        assert_eq!(set("d\"", Some("{}")), text.replace("3e0", "3e0,\"d\\\"\":{}"));
        assert_eq!(Object::parse("{ }").unwrap().with(&[("a", Some("1".into()))]), "{\"a\":1 }");
        assert_eq!(Object::parse("{\"a\":1}").unwrap().with(&[("a", None), ("b", Some("2".into()))]), "{\"b\":2}");
    }

    #[test]
    fn written_object_parses_back() {
        let text = write_object(&[("iss", "\"x\""), ("iat", "1.0"), ("é\n", "{}")]);
        assert_eq!(text, "{\"iss\":\"x\",\"iat\":1.0,\"é\\n\":{}}");
        assert_eq!(Object::parse(&text).unwrap().len(), 3);
        assert_eq!(write_object(&[]), "{}");
    }

    #[test]
    fn quote_matches_serde_json() {
        for character in (0..0x800).chain([0x2028, 0xffff, 0x1f600]).filter_map(char::from_u32) {
            let text = format!("a{character}");
            assert_eq!(quote(&text), serde_json::Value::from(text).to_string());
        }
    }
}
