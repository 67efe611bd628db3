//! Comparison of whole JSON documents.

use serde_json::{Map, Value};

/// Asserts that a document has the expected members, and no others. In `expected`, the texts `<id>`, `<time>`,
/// `<digest>`, `<number>` and `<text>` stand for a value that differs between runs.
///
/// # Panics
/// If it differs; the message contains each difference with its path.
#[track_caller]
pub fn assert_document(shown: &Value, expected: &Value) {
    let mut differences = Vec::new();
    compare("", shown, expected, &mut differences);
    assert!(differences.is_empty(), "the document differs:\n{}\nThe document: {shown:#}", differences.join("\n"));
}

fn compare(path: &str, shown: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (shown, expected) {
        (Value::Object(shown), Value::Object(expected)) => compare_members(path, shown, expected, differences),
        (Value::Array(shown), Value::Array(expected)) if shown.len() == expected.len() => {
            for (index, (shown, expected)) in shown.iter().zip(expected).enumerate() {
                compare(&format!("{path}/{index}"), shown, expected, differences);
            }
        }
        _ if shown == expected || stands_for(expected, shown) => {}
        _ => differences.push(format!("{path}: expected {expected}, is {shown}")),
    }
}

fn compare_members(
    path: &str,
    shown: &Map<String, Value>,
    expected: &Map<String, Value>,
    differences: &mut Vec<String>,
) {
    for (name, expected) in expected {
        match shown.get(name) {
            Some(shown) => compare(&format!("{path}/{name}"), shown, expected, differences),
            None => differences.push(format!("{path}/{name}: expected {expected}, is missing")),
        }
    }
    for (name, shown) in shown.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        differences.push(format!("{path}/{name}: not expected, is {shown}"));
    }
}

/// Whether `expected` is a placeholder for values of this form.
fn stands_for(expected: &Value, shown: &Value) -> bool {
    match (expected.as_str(), shown) {
        (Some("<number>"), shown) => shown.is_number(),
        (Some("<text>"), shown) => shown.as_str().is_some_and(|text| !text.is_empty()),
        (Some("<id>"), Value::String(text)) => text.split_once('_').is_some_and(|(_, body)| body.len() >= 26),
        // RFC 3339, in UTC.
        (Some("<time>"), Value::String(text)) => text.len() >= 20 && text.contains('T') && text.ends_with('Z'),
        (Some("<digest>"), Value::String(text)) => text.starts_with("sha256:") && text.len() == 7 + 64,
        _ => false,
    }
}
