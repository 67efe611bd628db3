//! Rates the risk of a login from the data in the event.
//!
//! Adds `"risk": {"score": 0-100, "level": "low|medium|high", "reasons": [...]}` to the body if there is at least one
//! reason, and passes all other events unchanged. Config (all optional): `{"failed_attempts": 3, "medium": 30, "high":
//! 60, "user_agents": ["curl"]}`; a user agent is suspicious if it contains one of these texts.

use serde::Deserialize;
use setgate_sdk::{Event, Result, Value, Verdict, config, json};

setgate_sdk::export!(filter);

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    failed_attempts: u64,
    medium: u64,
    high: u64,
    user_agents: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        let user_agents = ["curl", "python", "headless", "sqlmap"].map(str::to_owned).to_vec();
        Config { failed_attempts: 3, medium: 30, high: 60, user_agents }
    }
}

/// Scores and reasons that follow from the type alone, for any product.
const BY_TYPE: [(&[&str], u64, &str); 4] = [
    (&["loginFailed", "*login_failed", "*challenge_failed"], 20, "login failed"),
    (&["userAccountLocked", "Identifier.Lockout", "Message.RateLimited", "*lockout", "*_locked"], 60, "shut out"),
    (&["PostSignInAdaptiveMfaTriggered"], 40, "the product asked for another factor"),
    (&["*suspicious_login", "*breach*"], 80, "the product calls it suspicious"),
];

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let config: Config = config()?;
    let mut reasons: Vec<(u64, String)> = Vec::new();
    for (patterns, points, reason) in BY_TYPE {
        if patterns.iter().any(|pattern| event.is(pattern)) {
            reasons.push((points, reason.to_owned()));
        }
    }
    let fact = |name: &str| find(event.body(), name);
    let attempts =
        ["failedattempts", "failedloginattempts", "attempts"].into_iter().find_map(|name| fact(name)?.as_u64());
    if let Some(attempts) = attempts.filter(|attempts| *attempts >= config.failed_attempts) {
        reasons.push((40, format!("{attempts} failed attempts")));
    }
    for (what, points) in [("country", 40), ("ip", 20), ("device", 20), ("userAgent", 20)] {
        let name = what.to_lowercase();
        let told =
            [format!("new{name}"), format!("isnew{name}")].iter().any(|name| fact(name) == Some(&Value::Bool(true)));
        let before = ["previous", "last", "usual"].iter().find_map(|prefix| fact(&format!("{prefix}{name}")));
        if told || before.zip(fact(&name)).is_some_and(|(before, now)| before != now) {
            reasons.push((points, format!("new {what}")));
        }
    }
    let agent = fact("useragent").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    if config.user_agents.iter().any(|text| agent.contains(&text.to_lowercase())) {
        reasons.push((30, "unusual user agent".to_owned()));
    }
    if reasons.is_empty() {
        return Ok(Verdict::pass());
    }
    let score = reasons.iter().map(|(points, _)| points).sum::<u64>().min(100);
    let level = if score >= config.high {
        "high"
    } else if score >= config.medium {
        "medium"
    } else {
        "low"
    };
    let reasons: Vec<String> = reasons.into_iter().map(|(_, reason)| reason).collect();
    event.patch_body(json!({ "risk": { "score": score, "level": level, "reasons": reasons } }))
}

/// The first member with this name (compared in lower case and without `_`) at any depth, since products nest it
/// differently.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let members = value.as_object()?;
    let here = members.iter().find(|(other, _)| other.replace('_', "").to_lowercase() == name);
    here.map(|(_, found)| found).or_else(|| members.values().find_map(|member| find(member, name)))
}

#[test]
fn cases() {
    setgate_sdk::testing::cases(filter, include_str!("../cases.json"));
}
