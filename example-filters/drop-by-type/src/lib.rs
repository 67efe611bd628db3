//! Drops events by their type.
//!
//! Config: `{"drop": ["accessTokenIssued", "platform/oauth/*"], "keep": [...]}`. Patterns are those of
//! [`Event::is`]; a type that `keep` names is never dropped.

use serde::Deserialize;
use setgate_sdk::{Event, Result, Verdict, config};

setgate_sdk::export!(filter);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    drop: Vec<String>,
    keep: Vec<String>,
}

/// The filter.
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

#[cfg(test)]
mod tests {
    use setgate_sdk::{Value, json, testing};

    use super::*;

    fn check(uri: &str, config: Value, expected: Verdict) {
        let event = testing::event_of(uri, json!({}));
        assert_eq!(testing::Host::new().config(config).run(filter, event).verdict(), &expected, "{uri}");
    }

    #[test]
    fn drops_what_a_pattern_names() {
        let config = json!({"drop": ["accessTokenIssued", "platform/oauth/*", "PostSignIn"]});
        let token = "https://schemas.identity.wso2.org/events/token/event-type/accessTokenIssued";
        check(token, config.clone(), Verdict::drop_because("its type matches `accessTokenIssued`"));
        let oauth = "https://schemas.setgate.dev/events/platform/oauth/event-type/oauth.token_issued";
        check(oauth, config.clone(), Verdict::drop_because("its type matches `platform/oauth/*`"));
        let mfa = "https://schemas.setgate.dev/events/logto/interaction/event-type/PostSignInAdaptiveMfaTriggered";
        check(mfa, config, Verdict::Pass);
    }

    #[test]
    fn keep_is_stronger_than_drop() {
        let config = json!({"drop": ["caep/*"], "keep": ["session-revoked"]});
        check("https://schemas.openid.net/secevent/caep/event-type/session-revoked", config, Verdict::Pass);
    }

    #[test]
    fn without_a_config_all_pass_and_a_misspelt_one_fails() {
        let event = testing::event_of("urn:example:event", json!({}));
        assert_eq!(testing::run(filter, event.clone()).verdict(), &Verdict::Pass);
        let run = testing::Host::new().config(json!({"dorp": []})).run(filter, event);
        assert!(run.failure().contains("unknown field `dorp`"));
    }
}
