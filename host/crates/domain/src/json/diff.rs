//! A short description of the differences between two JSON texts.

use std::collections::BTreeMap;

use super::Object;

/// Replaces the part that did not fit.
const CUT: &str = "...";
/// Maximum length of a value in the output, in bytes.
const VALUE_BYTES_MAX: usize = 300;

/// Compares two texts member by member. Returns one line for each value that was removed or added, prefixed with `-`
/// for `before` and `+` for `after`, with the member's JSON Pointer (RFC 6901) and the value. A changed value yields
/// both lines. The total length is limited to about `bytes_max` bytes; if that is exceeded, the last line is `...`.
/// Empty if the texts are identical. Both texts must have passed [`check`](super::check).
pub fn differences(before: &str, after: &str, bytes_max: usize) -> Vec<String> {
    let mut found = Lines { lines: Vec::new(), room: bytes_max, full: false };
    if before != after {
        found.walk("", Some(before), Some(after));
        if found.lines.is_empty() {
            found.lines.push("the same members in another order or with other white space".to_owned());
        }
    }
    found.lines
}

struct Lines {
    lines: Vec<String>,
    room: usize,
    full: bool,
}

impl Lines {
    fn walk(&mut self, at: &str, before: Option<&str>, after: Option<&str>) {
        if self.full || before == after {
            return;
        }
        if let (Some(Ok(old)), Some(Ok(new))) = (before.map(Object::parse), after.map(Object::parse)) {
            // Build indexes, because `get` is linear and both objects may have a hundred thousand members.
            let before: BTreeMap<&str, &str> = old.iter().collect();
            let after: BTreeMap<&str, &str> = new.iter().collect();
            let added = new.iter().filter(|(key, _)| !before.contains_key(key));
            for (key, _) in old.iter().chain(added) {
                let (before, after) = (before.get(key).copied(), after.get(key).copied());
                if self.full {
                    return;
                }
                // Build pointers only for members that differ, because each is as long as all keys above it.
                if before != after {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    self.walk(&at, before, after);
                }
            }
            return;
        }
        for (sign, value) in [('-', before), ('+', after)] {
            if let Some(value) = value {
                self.push(format!("{sign} {at} {}", cut(value)));
            }
        }
    }

    fn push(&mut self, line: String) {
        match self.room.checked_sub(line.len()) {
            _ if self.full => {}
            Some(room) => {
                self.room = room;
                self.lines.push(line);
            }
            None => {
                self.full = true;
                self.lines.push(CUT.to_owned());
            }
        }
    }
}

fn cut(value: &str) -> String {
    if value.len() <= VALUE_BYTES_MAX {
        return value.to_owned();
    }
    let end = (0..=VALUE_BYTES_MAX).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{CUT}", &value[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_json_pointer() {
        let before = r#"{"a": 1, "b": {"x/y": 1.0, "z": [1]}, "c": 1}"#;
        let after = r#"{"a": 1, "b": {"x/y": 1.00, "z": [1]}, "d": null}"#;
        assert_eq!(differences(before, after, 1_000), ["- /b/x~1y 1.0", "+ /b/x~1y 1.00", "- /c 1", "+ /d null"]);
        assert!(differences(before, before, 1_000).is_empty());
        assert_eq!(
            differences(r#"{"a":1,"b":2}"#, r#"{"b":2, "a":1}"#, 1_000).len(),
            1,
            "reported although no value differs"
        );
    }

    /// A pointer for each of these members would take tens of gigabytes.
    #[test]
    fn long_shared_key_does_not_multiply_cost() {
        let (key, members) = ("k".repeat(400_000), (0..50_000).map(|n| format!("\"m{n}\":{n}")).collect::<Vec<_>>());
        let text = |last: &str| format!("{{\"{key}\":{{{},\"last\":{last}}}}}", members.join(","));
        assert_eq!(differences(&text("1"), &text("2"), 100), [CUT], "the pointer alone is longer than that");
        let others: Vec<String> = (0..50_000).map(|n| format!("\"m{n}\":{}", n + 1)).collect();
        let other = format!("{{\"{key}\":{{{}}}}}", others.join(","));
        assert_eq!(differences(&text("1"), &other, 100), [CUT]);
    }

    #[test]
    fn output_stays_within_limit() {
        let (long, other) = ("\u{e9}".repeat(1_000), "x".repeat(1_000));
        let lines = differences(&format!("{{\"a\":\"{long}\"}}"), &format!("{{\"a\":\"{other}\"}}"), 10_000);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() < 320 && line.ends_with(CUT)), "{lines:?}");

        let many: Vec<String> = (0..1_000).map(|n| format!("\"m{n}\":{n}")).collect();
        let lines = differences("{}", &format!("{{{}}}", many.join(",")), 100);
        assert_eq!(lines.last().map(String::as_str), Some(CUT));
        assert!(lines.iter().map(String::len).sum::<usize>() <= 100 + CUT.len(), "{lines:?}");
    }
}
