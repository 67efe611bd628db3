//! Drops events by their type.
//!
//! Config: `{"drop": ["accessTokenIssued", "platform/oauth/*"], "keep": [...]}`. The patterns are those of
//! [`Event::is`]; a type that matches `keep` is never dropped.

use serde::Deserialize;
use setgate_sdk::{Event, Result, Verdict, config};

setgate_sdk::export!(filter);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    drop: Vec<String>,
    keep: Vec<String>,
}

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let config: Config = config()?;
    if config.keep.iter().any(|pattern| event.is(pattern)) {
        return Ok(Verdict::pass());
    }
    Ok(match config.drop.iter().find(|pattern| event.is(pattern)) {
        Some(pattern) => Verdict::drop_because(format!("its type matches `{pattern}`")),
        None => Verdict::pass(),
    })
}

#[test]
fn cases() {
    setgate_sdk::testing::cases(filter, include_str!("../cases.json"));
}
