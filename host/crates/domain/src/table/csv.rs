//! CSV with a header (RFC 4180), as exported by spreadsheets and directories.

use std::collections::{HashMap, HashSet};

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::duplicate_key;

/// Name of the key column. If there is none, the first column is the key.
const KEY: &str = "key";

/// Column delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    /// The delimiter of RFC 4180.
    pub const COMMA: Self = Self(b',');
    /// The supported delimiters and their names in requests.
    const ALL: [(Self, &'static str); 4] =
        [(Self::COMMA, ","), (Self(b';'), ";"), (Self(b'\t'), "tab"), (Self(b'|'), "|")];

    /// Name in requests.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}

impl std::str::FromStr for Delimiter {
    type Err = String;

    /// Parses `,`, `;`, `|`, `tab`, or a literal tab.
    fn from_str(given: &str) -> Result<Self, String> {
        let given = if given == "\t" { "tab" } else { given };
        let known = Self::ALL.iter().find(|(_, name)| *name == given).map(|(delimiter, _)| *delimiter);
        known.ok_or_else(|| {
            "the delimiter is one of `,`, `;`, `|` and `tab`; in a query, `%3B` is `;` and `%7C` is `|`".to_owned()
        })
    }
}

/// Converts CSV to JSON Lines. The value of each row is an object with its other columns as strings. The output is
/// limited to `bytes_max` bytes; it can be larger than the input, since each row contains the column names. The default
/// delimiter is a comma. A header that appears to use another delimiter is rejected unless a delimiter is given.
///
/// # Errors
/// A message with line and column, both starting at 1. For a duplicate key, with both line numbers.
pub fn from_csv(text: &[u8], delimiter: Option<Delimiter>, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter.unwrap_or(Delimiter::COMMA).0).from_reader(text);
    let header = reader.headers().map_err(|error| describe(&error))?.clone();
    if delimiter.is_none() {
        check_delimiter(&header)?;
    }
    let key_at = check(&header)?;
    let mut first_lines = HashMap::new();
    let mut rows = Vec::with_capacity(text.len());
    let mut row = StringRecord::new();
    let mut line = 1;
    while reader.read_record(&mut row).map_err(|error| describe(&error))? {
        line = row.position().map_or(0, csv::Position::line);
        let key = row.get(key_at).unwrap_or_default();
        if key.is_empty() {
            return Err(format!("line {line}, column {}: the key is empty", key_at + 1));
        }
        if let Some(first) = first_lines.insert(key.to_owned(), line) {
            return Err(duplicate_key(number(line), key, number(first)));
        }
        let others = header.iter().zip(&row).enumerate().filter(|(at, _)| *at != key_at);
        let value: Map<String, Value> = others.map(|(_, (name, text))| (name.to_owned(), text.into())).collect();
        rows.extend_from_slice(serde_json::json!({"key": key, "value": value}).to_string().as_bytes());
        rows.push(b'\n');
        if rows.len() as u64 > bytes_max {
            return Err(format!(
                "line {line}: the rows so far are more than {bytes_max} bytes as JSON lines, their stored form: the \
                 limit is the tenant's quota `table_bytes_max`"
            ));
        }
    }
    // The parser treats the rest of the file as one field in that case, including all further rows.
    if !text.iter().filter(|byte| **byte == b'"').count().is_multiple_of(2) {
        return Err(format!("the row of line {line}, or one before it: a quotation mark is not closed"));
    }
    Ok(rows)
}

/// Rejects a header with a single column that contains another delimiter.
fn check_delimiter(header: &StringRecord) -> Result<(), String> {
    let mut columns = header.iter();
    let (Some(only), None) = (columns.next(), columns.next()) else { return Ok(()) };
    let others = Delimiter::ALL.iter().filter(|(delimiter, _)| *delimiter != Delimiter::COMMA);
    let count = |delimiter: &Delimiter| only.bytes().filter(|byte| *byte == delimiter.0).count();
    let Some((likely, _)) = others.max_by_key(|(delimiter, _)| count(delimiter)).filter(|(found, _)| count(found) > 0)
    else {
        return Ok(());
    };
    let only: String = only.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = likely.name();
    Err(format!(
        "line 1: the header has one column, `{only}`: if `{name}` separates its columns, send `?delimiter={name}`; if it is \
         one column, `?delimiter=,`"
    ))
}

/// Validates the header and returns the index of the key column.
fn check(header: &StringRecord) -> Result<usize, String> {
    if header.is_empty() {
        return Err("line 1: there is no header; the first line names the columns".to_owned());
    }
    let mut seen = HashSet::new();
    for (at, name) in header.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("line 1, column {}: the column has no name", at + 1));
        }
        if !seen.insert(name) {
            return Err(format!("line 1, column {}: the column `{name}` occurs twice", at + 1));
        }
    }
    Ok(header.iter().position(|name| name == KEY).unwrap_or(0))
}

fn describe(error: &csv::Error) -> String {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        ErrorKind::Utf8 { err, .. } => format!("line {line}, column {}: not UTF-8", err.field() + 1),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!(
                "line {line}, column {}: the row has {len} columns, the header {expected_len}",
                len.min(expected_len) + 1
            )
        }
        _ => error.to_string(),
    }
}

fn number(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<String, String> {
        from_csv(text.as_bytes(), None, 1_000).map(|rows| String::from_utf8(rows).unwrap())
    }

    #[test]
    fn key_is_column_named_key_or_first() {
        let rows = made("app,owner,note\na1,team-shop,\"one, \"\"two\"\"\nthree\"\na2,,x\n").unwrap();
        let expected = "{\"key\":\"a1\",\"value\":{\"owner\":\"team-shop\",\"note\":\"one, \\\"two\\\"\\nthree\"}}\n\
            {\"key\":\"a2\",\"value\":{\"owner\":\"\",\"note\":\"x\"}}\n";
        assert_eq!(rows, expected);
        assert_eq!(super::super::parse(rows.as_bytes()).unwrap().len(), 2);
        assert_eq!(made("\u{feff}owner,key\r\nx,a1\r\n").unwrap(), "{\"key\":\"a1\",\"value\":{\"owner\":\"x\"}}\n");
        assert_eq!(made("key\na1\n").unwrap(), "{\"key\":\"a1\",\"value\":{}}\n");
        assert_eq!(made("key,owner\n").unwrap(), "", "a table without rows");
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, says) in [
            ("", "line 1: there is no header"),
            ("key,\n", "line 1, column 2: the column has no name"),
            ("key,a,a\n", "line 1, column 3: the column `a` occurs twice"),
            ("key,a\nx,1\ny\n", "line 3, column 2: the row has 1 columns, the header 2"),
            ("key,a\nx,1,2\n", "line 2, column 3: the row has 3 columns, the header 2"),
            ("a,key\nx,\n", "line 2, column 2: the key is empty"),
            ("key,a\nx,1\n\"y\n\",2\nx,3\n", "line 5: the key `x` already occurs in line 2"),
            ("key,a\nx,\"1\ny,2\n", "line 2, or one before it: a quotation mark is not closed"),
        ] {
            let error = made(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        let error = from_csv(b"key,a\nx,\xff\n", None, 1_000).unwrap_err();
        assert_eq!(error, "line 2, column 2: not UTF-8");
    }

    #[test]
    fn other_delimiter_is_accepted_or_suggested() {
        for (name, delimiter) in [(";", ';'), ("tab", '\t'), ("\t", '\t'), ("|", '|'), (",", ',')] {
            let text = format!("\u{feff}key{delimiter}owner\na1{delimiter}\"x{delimiter}y\"\n");
            let rows = from_csv(text.as_bytes(), Some(name.parse().unwrap()), 1_000).unwrap();
            let row: Value = serde_json::from_slice(&rows).unwrap();
            assert_eq!(row, serde_json::json!({"key": "a1", "value": {"owner": format!("x{delimiter}y")}}));
            if delimiter == ',' {
                continue;
            }
            let offered = if delimiter == '\t' { "tab" } else { name };
            let error = made(&text).unwrap_err();
            assert!(error.starts_with("line 1: the header has one column, `key"), "{error}");
            assert!(error.contains(&format!("`?delimiter={offered}`")), "{error}");
        }
        assert!(made("sep=;\nkey;owner\n").unwrap_err().contains("`?delimiter=;`"), "as written by spreadsheets");
        assert!(made("a;b|c;d\n").unwrap_err().contains("`?delimiter=;`"), "the most frequent one");
        assert_eq!(from_csv(b"a;b\nx\n", Some(Delimiter::COMMA), 100).unwrap(), b"{\"key\":\"x\",\"value\":{}}\n");
        assert_eq!(made("key,a;b\nx,1\n").unwrap(), "{\"key\":\"x\",\"value\":{\"a;b\":\"1\"}}\n");
        for bad in ["", ":", ";;", "comma"] {
            assert!(bad.parse::<Delimiter>().unwrap_err().contains("one of"), "{bad}");
        }
    }

    #[test]
    fn output_size_is_limited() {
        let text =
            format!("key,a-rather-long-name-of-a-column\n{}", (0..20).map(|n| format!("{n},\n")).collect::<String>());
        let error = from_csv(text.as_bytes(), None, 500).unwrap_err();
        assert!(error.contains("`table_bytes_max`") && error.contains("500 bytes"), "{error}");
    }
}
