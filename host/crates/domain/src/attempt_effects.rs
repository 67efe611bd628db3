//! The meaning of a receiver's answer: the consequences of an attempt for its delivery, for the circuit breaker of its
//! endpoint and for its subscription. Pure: `now` and `jitter` are arguments.
//!
//! The table in `docs/reference/delivery.md` is generated from [`interpret`] by a test.

#[cfg(test)]
mod reference_tests;
mod set_push;
#[cfg(test)]
mod tests;

use super::attempt::{DeliveryDirective, ErrorClass, Outcome};
use super::breaker::Signal;
use super::retry::{RetrySchedule, given_up_reason};
use super::subscription::PauseCause;
use super::time::Timestamp;

/// Delay in milliseconds before a delivery is sent after this host lacked a resource for the attempt.
const SHORTAGE_WAIT_MS: i64 = 1_000;

/// The result of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct AttemptResult<'a> {
    /// Status, headers and body, or the error. An incomplete body does not change the meaning: the status and the head
    /// decide (RFC 9110 section 15).
    pub outcome: &'a Outcome,
    /// Whether this host lacked a resource for the attempt, such as file descriptors.
    pub host_shortage: bool,
    /// The protocol of the receiver.
    pub protocol: Protocol,
}

/// The protocol of a receiver, which defines further meanings of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A webhook.
    Webhook,
    /// Push delivery of SETs (RFC 8935), with error codes in the body of an answer 400.
    SetPush,
}

/// The position of an attempt in its delivery's retry schedule.
#[derive(Debug, Clone, Copy)]
pub struct RetryState<'a> {
    /// Schedule of the subscription.
    pub schedule: &'a RetrySchedule,
    /// Failed attempts since the delivery was created or last redriven, without this one.
    pub failed_before: u32,
    /// From 0.0 to 1.0.
    pub jitter: f64,
}

/// The consequences of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEffects {
    /// For the delivery.
    pub delivery: NextState,
    /// For the circuit breaker of the endpoint. `None` if the answer does not come from the endpoint.
    pub endpoint: Option<Signal>,
    /// For the subscription: whether it is paused. Its pending deliveries stay pending.
    pub subscription: Option<PauseReason>,
}

/// The state of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextState {
    /// The receiver accepted it.
    Delivered,
    /// The attempt failed. The next one is due at this time.
    Retry {
        /// Due time.
        due_at: Timestamp,
    },
    /// Given up.
    Dead {
        /// Description of the reason.
        reason: String,
    },
    /// No attempt was made, and none is recorded. The delivery is due again at this time.
    NotAttempted {
        /// Due time.
        due_at: Timestamp,
    },
}

/// Why the host pauses a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseReason {
    /// The cause.
    pub cause: PauseCause,
    /// Start of the state that led to the pause. `None`: this attempt.
    pub since: Option<Timestamp>,
    /// Description for the tenant.
    pub text: String,
}

/// Decides the consequences of an attempt that ended at `now`.
pub fn interpret(result: AttemptResult<'_>, retries: RetryState<'_>, now: Timestamp) -> AttemptEffects {
    if result.host_shortage {
        let due_at = now.plus_millis(SHORTAGE_WAIT_MS);
        return AttemptEffects { delivery: NextState::NotAttempted { due_at }, endpoint: None, subscription: None };
    }
    let outcome = result.outcome;
    AttemptEffects {
        delivery: for_delivery(outcome, result.protocol, retries, now),
        endpoint: for_endpoint(outcome),
        subscription: for_subscription(outcome, result.protocol, retries),
    }
}

fn for_delivery(outcome: &Outcome, protocol: Protocol, retries: RetryState<'_>, now: Timestamp) -> NextState {
    if protocol == Protocol::SetPush
        && let Some(state) = set_push::final_state(outcome, retries)
    {
        return state;
    }
    let retry_after_s = match outcome {
        outcome if outcome.is_success() => return NextState::Delivered,
        // Standard Webhooks, "Responses": the endpoint does not want this or any further delivery.
        Outcome::Answered { status: 410, .. } => {
            return NextState::Dead { reason: "the receiver answered 410 Gone".into() };
        }
        Outcome::Answered { directive: Some(DeliveryDirective::Abort), .. } => {
            return NextState::Dead { reason: "the receiver answered `webhook-delivery: abort`".into() };
        }
        Outcome::Answered { retry_after_s, .. } => *retry_after_s,
        Outcome::Rejected { err, description } => {
            let reason = format!("the receiver rejected the SET: {err}: {description}");
            return NextState::Dead { reason };
        }
        Outcome::Acknowledged | Outcome::Failed { .. } => None,
    };
    let failed = retries.failed_before + 1;
    match retries.schedule.next(failed, now, retry_after_s, retries.jitter) {
        Some(due_at) => NextState::Retry { due_at },
        None => {
            let reason = format!("{}: the last one {}", given_up_reason(failed), outcome.summary());
            NextState::Dead { reason }
        }
    }
}

fn for_endpoint(outcome: &Outcome) -> Option<Signal> {
    match outcome {
        // Standard Webhooks, "Responses": the endpoint asks for fewer requests.
        Outcome::Answered { status: 429 | 502 | 504, retry_after_s, .. } => {
            Some(Signal::Throttled { retry_after_s: *retry_after_s })
        }
        Outcome::Answered { status: 503, retry_after_s: asked @ Some(_), .. } => {
            Some(Signal::Throttled { retry_after_s: *asked })
        }
        Outcome::Answered { status: 408 | 500..=599, .. } => Some(Signal::Failing),
        Outcome::Answered { .. } => Some(Signal::Alive),
        // A receiver that polls has no endpoint.
        Outcome::Acknowledged | Outcome::Rejected { .. } => None,
        // The request did not leave this host.
        Outcome::Failed { class: ErrorClass::Forbidden | ErrorClass::Unsendable, .. } => None,
        Outcome::Failed { .. } => Some(Signal::Failing),
    }
}

fn for_subscription(outcome: &Outcome, protocol: Protocol, retries: RetryState<'_>) -> Option<PauseReason> {
    let (cause, text) = match outcome {
        // Standard Webhooks, "Responses": 410 disables the endpoint.
        Outcome::Answered { status: 410, .. } => (PauseCause::Gone, "the receiver answered 410 Gone"),
        Outcome::Answered { directive: Some(DeliveryDirective::Disable), .. } => {
            (PauseCause::Receiver, "the receiver answered `webhook-delivery: disable`")
        }
        _ if protocol == Protocol::SetPush => return set_push::pause(outcome, retries),
        _ => return None,
    };
    Some(PauseReason { cause, since: None, text: text.to_owned() })
}

/// Whether a subscription without any success since `failing_since` is paused. 0 seconds disables this.
pub fn failing_too_long(failing_since: Timestamp, pause_after_s: u64, now: Timestamp) -> Option<PauseReason> {
    let failing_s = u64::try_from(now.since(failing_since) / 1_000).unwrap_or(0);
    (pause_after_s > 0 && failing_s >= pause_after_s).then(|| PauseReason {
        cause: PauseCause::Failing,
        since: Some(failing_since),
        text: format!("no attempt has succeeded since {failing_since}: `pause_after_s` is {pause_after_s}"),
    })
}
