//! Prints a filter run as text.

use serde_json::Value;
use setgate_domain::set::{Applied, SetToken};
use setgate_domain::tenant::Quota;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_sandbox::CompiledFilter;

use crate::cli::out::say;

/// Prints the cost of a call.
pub(super) fn say_cost(run: &FilterRun, compiled: &CompiledFilter, quota: &Quota, subject: Option<&str>) {
    say!("subject   {}", subject.unwrap_or("none"));
    say!("fuel      {} of {}", grouped(run.fuel), grouped(quota.fuel_per_call));
    say!("memory    {} KiB of {}", grouped(run.memory_bytes >> 10), grouped(quota.memory_bytes_max >> 10));
    say!("time      {} us", grouped(run.elapsed_us));
    say!("needs     {}", needs(compiled));
    for line in &run.log {
        say!("log       {:5?} {}", line.level, line.text);
    }
}

/// Prints the changes to the SET.
pub(super) fn say_effect(before: &SetToken, applied: &Result<Applied, Fault>) -> anyhow::Result<()> {
    match applied {
        Ok(Applied::Unchanged) => say!("claims    unchanged"),
        Ok(Applied::Dropped(reason)) => say!("reason    {reason}"),
        Ok(Applied::Changed(after)) => {
            say!("claims");
            for line in difference(&serde_json::from_str(&before.text)?, &serde_json::from_str(&after.text)?) {
                say!("  {line}");
            }
        }
        Err(_) => {}
    }
    Ok(())
}

/// Members that were removed (`-`), added (`+`) or changed (both), each with its JSON pointer (RFC 6901).
pub(super) fn difference(before: &Value, after: &Value) -> Vec<String> {
    fn walk(at: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
        match (before, after) {
            (before, after) if before == after => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                let added = new.keys().filter(|key| !old.contains_key(*key));
                for key in old.keys().chain(added) {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    walk(&at, old.get(key), new.get(key), lines);
                }
            }
            (before, after) => {
                lines.extend(before.map(|value| format!("- {at} {value}")));
                lines.extend(after.map(|value| format!("+ {at} {value}")));
            }
        }
    }
    let mut lines = Vec::new();
    walk("", Some(before), Some(after), &mut lines);
    lines
}

pub(super) fn needs(compiled: &CompiledFilter) -> String {
    let names: Vec<_> = compiled.needs.iter().map(|grant| format!("\"{}\"", grant.as_str())).collect();
    if names.is_empty() { "no grants".to_owned() } else { format!("\"grants\": [{}] in its binding", names.join(", ")) }
}

/// Formats `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_difference_names_each_member_by_its_pointer() {
        let before = json!({"a": 1, "b": {"x/y": 1, "z": [1]}, "c": 1});
        let after = json!({"a": 1, "b": {"x/y": 2, "z": [1]}, "d": null});
        assert_eq!(difference(&before, &after), ["- /b/x~1y 1", "+ /b/x~1y 2", "- /c 1", "+ /d null"]);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 50_000_000].map(grouped), ["0", "999", "1,000", "50,000,000"]);
    }
}
