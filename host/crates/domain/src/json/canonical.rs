//! A canonical text of JSON, to compare values that were serialised differently.

use std::borrow::Cow;

use super::object::push_quoted;

/// The canonical text of a JSON value: no white space, members sorted by name, and each string with the fewest escapes.
/// Numbers keep their spelling, so `1.0` and `1` differ. Members of the outermost object that are named in `without` are
/// left out.
///
/// Takes linear time, apart from the sorting of members. The text must have passed [`check`](super::check), which also
/// limits its depth. The result for any other text is unspecified.
pub fn canonical(text: &str, without: &[&str]) -> String {
    let mut root = Reader { text, at: 0 }.value();
    if let Node::Object(members) = &mut root {
        members.retain(|(name, _)| !without.contains(&name.as_ref()));
    }
    let mut out = String::with_capacity(text.len());
    root.write(&mut out);
    out
}

/// A value. Only objects with members need a node of their own, because only these are reordered.
enum Node<'a> {
    /// One or several values, separated by commas, without any object that has members.
    Flat(&'a str),
    Array(Vec<Node<'a>>),
    /// Sorted by name.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Skips white space and separators, whose order was checked before, and returns the next byte.
    fn next(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let skipped = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':'));
        self.at += skipped.unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self) -> Node<'a> {
        match self.next() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => Node::Flat(self.string()),
            _ => Node::Flat(self.scalar()),
        }
    }

    fn object(&mut self) -> Node<'a> {
        let start = self.at;
        self.at += 1;
        let mut members = Vec::new();
        while self.next() == Some(b'"') {
            let name = unescaped(self.string());
            members.push((name, self.value()));
        }
        self.close();
        if members.is_empty() {
            return Node::Flat(&self.text[start..self.at]);
        }
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        Node::Object(members)
    }

    fn array(&mut self) -> Node<'a> {
        let start = self.at;
        self.at += 1;
        let mut items = Vec::new();
        // A run of flat items is one node, so that a long array of numbers takes no more memory than its text.
        let mut run: Option<usize> = None;
        let mut run_end = self.at;
        while !matches!(self.next(), None | Some(b']' | b'}')) {
            let item_start = self.at;
            match self.value() {
                Node::Flat(_) => {
                    run.get_or_insert(item_start);
                    run_end = self.at;
                }
                item => {
                    items.extend(run.take().map(|from| Node::Flat(&self.text[from..run_end])));
                    items.push(item);
                }
            }
        }
        self.close();
        if items.is_empty() {
            return Node::Flat(&self.text[start..self.at]);
        }
        items.extend(run.map(|from| Node::Flat(&self.text[from..run_end])));
        Node::Array(items)
    }

    /// Skips the closing bracket.
    fn close(&mut self) {
        self.at = (self.at + 1).min(self.text.len());
    }

    /// A string with its quotes.
    fn string(&mut self) -> &'a str {
        let start = self.at;
        self.at += string_bytes(&self.text.as_bytes()[start..]);
        &self.text[start..self.at]
    }

    /// A number or a literal.
    fn scalar(&mut self) -> &'a str {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b']' | b'}');
        self.at += rest.iter().position(is_end).unwrap_or(rest.len());
        &self.text[start..self.at]
    }
}

impl Node<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Flat(text) => write_flat(text, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_quoted(out, name);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Writes text without objects: strings with the fewest escapes, everything else without white space.
fn write_flat(mut text: &str, out: &mut String) {
    while let Some(quote) = text.find('"') {
        out.extend(text[..quote].split([' ', '\t', '\n', '\r']));
        let (string, rest) = text[quote..].split_at(string_bytes(&text.as_bytes()[quote..]));
        push_quoted(out, &unescaped(string));
        text = rest;
    }
    out.extend(text.split([' ', '\t', '\n', '\r']));
}

/// Length of the string at the beginning of a text, with its quotes.
fn string_bytes(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            // The escaped byte is ASCII, because the text is valid.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The value of a string that is given with its quotes.
fn unescaped(string: &str) -> Cow<'_, str> {
    let inner = string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(string);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(string).map_or(Cow::Borrowed(inner), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_white_space_and_escapes_do_not_matter() {
        let expected = r#"{"a":[1.10,{"x":"é","y":[]},true,2,"b, c"],"b":{},"c":{"d":null,"e":-1e5}}"#;
        for text in [
            expected,
            r#" { "c" : {"e":-1e5,"d" : null } , "b":{ }, "a":[ 1.10, {"y":[ ],"x":"\u00e9"},true , 2,"b, c" ] } "#,
            "{\"\\u0062\":{\n},\"c\":{\"d\":null,\t\"e\":-1e5},\"a\":[1.10,{\"x\":\"é\",\"y\":[]},true,2,\"\\u0062, c\"]}",
        ] {
            assert_eq!(canonical(text, &[]), expected, "{text}");
        }
        assert_eq!(canonical(expected, &["c", "d", "x"]), r#"{"a":[1.10,{"x":"é","y":[]},true,2,"b, c"],"b":{}}"#);
        assert_eq!(canonical(r#"[ [ "\"" , [ ] ] , "\\" ]"#, &[]), r#"[["\"",[]],"\\"]"#);
        assert_eq!(canonical(r#"{"a":{"a":[[{"b":1,"a":2}]]}}"#, &["b"]), r#"{"a":{"a":[[{"a":2,"b":1}]]}}"#);
    }

    #[test]
    fn other_values_have_other_texts() {
        let text = r#"{"a":[1,2],"b":"x y","c":{}}"#;
        for other in [
            r#"{"a":[2,1],"b":"x y","c":{}}"#,
            r#"{"a":[1.0,2],"b":"x y","c":{}}"#,
            r#"{"a":[1,2],"b":"xy","c":{}}"#,
            r#"{"a":[1,2],"b":"x y","c":[]}"#,
            r#"{"a":[1,2],"b":"x y"}"#,
            r#"{"a":[12],"b":"x y","c":{}}"#,
            r#"{"a":[1,2],"B":"x y","c":{}}"#,
        ] {
            assert_ne!(canonical(text, &[]), canonical(other, &[]), "{other}");
        }
    }

    #[test]
    fn invalid_text_does_not_panic() {
        for text in
            ["", "{", "[", "\"", "\"\\", "]", "{]", "[}", "{\"a\"", "{\"a\":", "[1,", "nul", "{\"é\\", "}{", ":"]
        {
            canonical(text, &["a"]);
        }
    }
}
