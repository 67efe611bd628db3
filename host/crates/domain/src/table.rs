//! Lookup tables: rows by key, uploaded as JSON Lines or CSV, stored as JSON Lines.

mod csv;

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::csv::{Delimiter, from_csv};
use super::text::strip_bom;

/// The rows of a table by key. Values are JSON text.
pub type Rows = HashMap<String, Arc<str>>;

/// An uploaded row: a line of `{"key": "...", "value": ...}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Parses JSON Lines.
///
/// # Errors
/// A message with the line number, starting at 1. For a duplicate key, with both line numbers.
pub fn parse(text: &[u8]) -> Result<Rows, String> {
    let text = std::str::from_utf8(strip_bom(text)).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
    let mut rows = Rows::new();
    for (number, line) in lines(text) {
        let Line { key, value } = read(number, line)?;
        if rows.contains_key(key.as_ref()) {
            // Searching for the first line only on error saves recording every line number: tables are parsed far more
            // often than they are invalid.
            let is_first = |(number, line): &(usize, &str)| read(*number, line).is_ok_and(|first| first.key == key);
            let first = lines(text).find(is_first).map_or(0, |(number, _)| number);
            return Err(duplicate_key(number, &key, first));
        }
        rows.insert(key.into_owned(), value.get().into());
    }
    Ok(rows)
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
}

fn read(number: usize, line: &str) -> Result<Line<'_>, String> {
    serde_json::from_str(line).map_err(|error| {
        let words = error.to_string();
        // Each line is parsed separately, so the parser's own line number is always 1.
        let words = words.split(" at line ").next().unwrap_or_default();
        let column = error.column();
        format!("line {number}, column {column}: {words}; each line is {{\"key\": \"...\", \"value\": ...}}")
    })
}

fn duplicate_key(number: usize, key: &str, first: usize) -> String {
    let key: String = key.chars().take(80).collect();
    format!("line {number}: the key `{key}` already occurs in line {first}: keys have to be unique")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_text_and_errors_name_line() {
        let rows = parse(b"{\"key\":\"a\",\"value\":{\"n\": 1.10}}\n\n{\"key\":\"b\",\"value\":null}\n").unwrap();
        assert_eq!(rows["a"].as_ref(), "{\"n\": 1.10}");
        assert_eq!(rows.len(), 2);
        assert_eq!(parse(b"\xef\xbb\xbf{\"key\":\"a\",\"value\":1}\n").unwrap().len(), 1, "after a byte order mark");
        let error = parse(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\"}\n").unwrap_err();
        assert!(error.starts_with("line 2, column 11: missing field `value`; each line"), "{error}");
        let error = parse(b"{\"key\":\"b\",\"value\":1}\n{\"key\":\"a\",\"value\":1}\n\n{\"key\":\"a\",\"value\":2}")
            .unwrap_err();
        assert_eq!(error, "line 4: the key `a` already occurs in line 2: keys have to be unique");
    }
}
