//! Look-up tables: rows by key, uploaded as JSON lines.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A table's rows by key; the values are JSON text.
pub type Rows = HashMap<String, Arc<str>>;

/// One row as it is uploaded: JSON lines of `{"key": "...", "value": ...}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Reads JSON lines. The error names the line.
pub fn parse(text: &[u8]) -> Result<Rows, String> {
    let text = std::str::from_utf8(text).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
    let mut rows = Rows::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let Line { key, value } = serde_json::from_str(line)
            .map_err(|e| format!("line {}: {e}; each line is {{\"key\": \"...\", \"value\": ...}}", number + 1))?;
        if rows.insert(key.clone().into_owned(), value.get().into()).is_some() {
            return Err(format!("line {}: the key `{key}` stands there twice", number + 1));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_text_and_errors_name_the_line() {
        let rows = parse(b"{\"key\":\"a\",\"value\":{\"n\": 1.10}}\n\n{\"key\":\"b\",\"value\":null}\n").unwrap();
        assert_eq!(rows["a"].as_ref(), "{\"n\": 1.10}");
        assert_eq!(rows.len(), 2);
        assert!(parse(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\"}\n").unwrap_err().starts_with("line 2"));
        assert!(parse(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\",\"value\":2}").unwrap_err().contains("twice"));
    }
}
