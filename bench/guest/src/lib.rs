//! The filter of the bench. The event's subject selects an [`act`](acts::act), so that one component shows the cost of
//! each verdict.

pub mod acts;

use setgate_sdk::{Event, Failure, Result, Verdict};

use acts::Outcome;

setgate_sdk::export!(filter);

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let wanted = event.subject().unwrap_or_default();
    match acts::act(wanted, event.claims_text()) {
        Ok(Outcome::Pass) => Ok(Verdict::Pass),
        Ok(Outcome::Drop(reason)) => Ok(Verdict::Drop(reason)),
        Ok(Outcome::Patch(patch)) => Ok(Verdict::Patch(patch)),
        Ok(Outcome::Replace(claims)) => Ok(Verdict::Replace(claims)),
        Err(why) => Err(Failure::permanent(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_sdk::{json, testing};

    #[test]
    fn an_event_without_a_known_act_is_refused() {
        let event = testing::event_of("https://example.com/created", json!({}));
        assert!(testing::run(filter, event).result.is_err());
    }
}
