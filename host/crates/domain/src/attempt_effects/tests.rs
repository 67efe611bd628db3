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
    interpret(AttemptResult { outcome, host_shortage: false }, RetryState { schedule, failed_before, jitter }, NOW)
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
    let short = interpret(AttemptResult { outcome: &failed(ErrorClass::Connect), host_shortage: true }, retries, NOW);
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
