use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn answered(status: u16, retry_after_s: Option<u32>, directive: Option<DeliveryDirective>) -> Outcome {
    Outcome::Answered {
        status,
        body_head: String::new(),
        retry_after_s,
        headers: Vec::new(),
        directive,
        body_incomplete: None,
    }
}

fn failed(class: ErrorClass) -> Outcome {
    Outcome::Failed { class, detail: String::new() }
}

fn meaning(outcome: &Outcome) -> AttemptEffects {
    after(&RetrySchedule::default(), 0, outcome, 0.5)
}

fn after(schedule: &RetrySchedule, failed_before: u32, outcome: &Outcome, jitter: f64) -> AttemptEffects {
    interpret(
        AttemptResult { outcome, host_shortage: false, protocol: Protocol::Webhook },
        RetryState { schedule, failed_before, jitter },
        NOW,
    )
}

#[test]
fn only_2xx_is_a_success_and_410_ends_the_delivery() {
    for (status, expected) in [(200, "delivered"), (204, "delivered"), (302, "retry"), (500, "retry"), (410, "dead")] {
        let state = match meaning(&answered(status, None, None)).delivery {
            NextState::Delivered => "delivered",
            NextState::Retry { .. } => "retry",
            NextState::Dead { .. } => "dead",
            NextState::NotAttempted { .. } => "not attempted",
        };
        assert_eq!(state, expected, "{status}");
    }
}

#[test]
fn incomplete_body_changes_nothing() {
    for status in [200, 410, 503] {
        let whole = answered(status, None, None);
        let mut broken = whole.clone();
        if let Outcome::Answered { body_incomplete, .. } = &mut broken {
            *body_incomplete = Some("reset".into());
        }
        assert_eq!(meaning(&broken), meaning(&whole), "{status}");
    }
}

#[test]
fn delivery_is_dead_after_schedule_is_exhausted() {
    let schedule = RetrySchedule::try_from(vec![1]).unwrap();
    let NextState::Dead { reason } = after(&schedule, 1, &answered(500, None, None), 0.5).delivery else { panic!() };
    assert_eq!(reason, "given up after 2 attempts: the last one was answered 500");
    let schedule = RetrySchedule::try_from(vec![]).unwrap();
    let NextState::Dead { reason } = after(&schedule, 0, &answered(500, None, None), 0.5).delivery else { panic!() };
    assert_eq!(reason, "given up after 1 attempt: the last one was answered 500");
}

#[test]
fn retry_is_not_earlier_than_requested() {
    let delivery = after(&RetrySchedule::default(), 0, &answered(503, Some(60), None), 0.0).delivery;
    assert_eq!(delivery, NextState::Retry { due_at: NOW.plus_millis(60_000) });
}

#[test]
fn only_endpoint_failures_count_towards_breaker() {
    for (status, signal) in [
        (200, Signal::Alive),
        (404, Signal::Alive),
        (302, Signal::Alive),
        (500, Signal::Failing),
        (503, Signal::Failing),
        (429, Signal::Throttled { retry_after_s: None }),
        (502, Signal::Throttled { retry_after_s: None }),
        (504, Signal::Throttled { retry_after_s: None }),
    ] {
        assert_eq!(meaning(&answered(status, None, None)).endpoint, Some(signal), "{status}");
    }
    let throttled = Signal::Throttled { retry_after_s: Some(7) };
    assert_eq!(meaning(&answered(503, Some(7), None)).endpoint, Some(throttled));
    assert_eq!(meaning(&failed(ErrorClass::Connect)).endpoint, Some(Signal::Failing));
    assert_eq!(meaning(&failed(ErrorClass::Unsendable)).endpoint, None);
    assert_eq!(meaning(&failed(ErrorClass::Forbidden)).endpoint, None);
}

#[test]
fn host_shortage_is_no_attempt() {
    let retries = RetryState { schedule: &RetrySchedule::default(), failed_before: 0, jitter: 0.5 };
    let short = interpret(
        AttemptResult { outcome: &failed(ErrorClass::Connect), host_shortage: true, protocol: Protocol::Webhook },
        retries,
        NOW,
    );
    let due_at = NOW.plus_millis(SHORTAGE_WAIT_MS);
    let expected = AttemptEffects { delivery: NextState::NotAttempted { due_at }, endpoint: None, subscription: None };
    assert_eq!(short, expected);
}

#[test]
fn subscription_failing_too_long_is_paused() {
    let since = NOW.plus_millis(-10_000);
    assert_eq!(failing_too_long(since, 0, NOW), None, "disabled");
    assert_eq!(failing_too_long(since, 11, NOW), None);
    let paused = failing_too_long(since, 10, NOW).unwrap();
    assert_eq!((paused.cause, paused.since), (PauseCause::Failing, Some(since)));
}

/// An answer to a pushed SET with this body, after some failed attempts.
fn pushed(status: u16, body: &str, failed_before: u32) -> AttemptEffects {
    let mut outcome = answered(status, None, None);
    if let Outcome::Answered { body_head, .. } = &mut outcome {
        body.clone_into(body_head);
    }
    let retries = RetryState { schedule: &RetrySchedule::default(), failed_before, jitter: 0.5 };
    interpret(AttemptResult { outcome: &outcome, host_shortage: false, protocol: Protocol::SetPush }, retries, NOW)
}

fn refused(err: &str, failed_before: u32) -> AttemptEffects {
    pushed(400, &format!(r#"{{"err":"{err}","description":"no"}}"#), failed_before)
}

#[test]
fn codes_about_the_set_end_the_delivery_at_once() {
    for err in ["invalid_request", "invalid_audience", "invalid_issuer", "access_denied", "invalid_state"] {
        let effects = refused(err, 0);
        let reason = format!("the receiver refused the SET: {err}: no");
        assert_eq!(effects.delivery, NextState::Dead { reason });
        assert_eq!((effects.endpoint, effects.subscription), (Some(Signal::Alive), None), "{err}");
    }
    // For a webhook, the body of an answer has no meaning.
    assert!(matches!(meaning(&answered(400, None, None)).delivery, NextState::Retry { .. }));
}

#[test]
fn unknown_key_is_retried_for_a_day() {
    assert!(matches!(refused("invalid_key", 6).delivery, NextState::Retry { .. }), "17.6 hours");
    let NextState::Dead { reason } = refused("invalid_key", 7).delivery else { panic!("31.6 hours") };
    assert!(reason.contains("does not accept the key: invalid_key: no"), "{reason}");
}

#[test]
fn refused_credential_is_retried_and_then_pauses_the_subscription() {
    for effects in [|n| refused("authentication_failed", n), |n| pushed(401, "", n), |n| pushed(403, "<html>", n)] {
        for failed_before in [0, 1] {
            let first = effects(failed_before);
            assert!(matches!(first.delivery, NextState::Retry { .. }) && first.subscription.is_none());
        }
        let third = effects(2);
        assert!(matches!(third.delivery, NextState::Retry { .. }), "the delivery stays due");
        assert_eq!(third.subscription.unwrap().cause, PauseCause::Credential);
    }
}

#[test]
fn refusal_without_code_is_retried_twice() {
    for body in ["", "Bad Request", "{}", r#"{"err":1}"#] {
        assert!(matches!(pushed(400, body, 1).delivery, NextState::Retry { .. }), "{body}");
        let NextState::Dead { reason } = pushed(400, body, 2).delivery else { panic!("{body}") };
        assert!(reason.contains("not an answer of RFC 8935"), "{reason}");
    }
    for status in [404, 408, 425, 429, 500, 503] {
        assert!(matches!(pushed(status, "", 5).delivery, NextState::Retry { .. }), "{status}");
    }
    assert!(
        matches!(refused("jwtParse", 5).delivery, NextState::Retry { .. }),
        "codes of drafts: the schedule decides"
    );
}
