//! The meaning of refusals of a receiver of pushed SETs (RFC 8935 section 2.3).

use serde::Deserialize;

use super::{NextState, PauseReason, RetryState};
use crate::attempt::Outcome;
use crate::retry::given_up_reason;
use crate::subscription::PauseCause;
use crate::text::visible_start;

/// Limit for the attempts of a SET that is refused with status 400 and without an error code, which is most likely not
/// the answer of a SET receiver.
const UNEXPLAINED_ATTEMPTS_MAX: u32 = 3;
/// Refusals of the credential after which the subscription is paused. The credential may be renewed in the meantime.
const CREDENTIAL_REFUSALS_MAX: u32 = 3;
/// Time in seconds for which an unknown key is retried: receivers cache a JWKS for minutes to hours.
const UNKNOWN_KEY_SECONDS_MAX: u64 = 24 * 3600;
/// Limit for the parts of a refusal that are repeated in a reason, in characters.
const REFUSAL_CHARS_MAX: usize = 300;

/// Error codes that are about this SET, or about this receiver's stream as a whole: the same SET would be refused again
/// (RFC 8935 section 2.4, SSF 1.0 section 8.1.4.1).
const FINAL_CODES: [&str; 5] =
    ["invalid_request", "invalid_audience", "invalid_issuer", "access_denied", "invalid_state"];

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// An error code of RFC 8935.
    Code { err: String, description: String },
    /// Status 400 without an error code.
    Unexplained,
    /// Status 401 or 403: the receiver, or a gateway in front of it, does not accept the credential.
    Credential,
}

/// The body of a refusal (RFC 8935 section 2.3).
#[derive(Deserialize)]
struct RefusalBody {
    err: String,
    #[serde(default)]
    description: String,
}

fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Answered { status: 400, body_head, .. } => {
            Some(match serde_json::from_str::<RefusalBody>(body_head) {
                Ok(RefusalBody { err, description }) => Refusal::Code {
                    err: visible_start(&err, REFUSAL_CHARS_MAX),
                    description: visible_start(&description, REFUSAL_CHARS_MAX),
                },
                Err(_) => Refusal::Unexplained,
            })
        }
        Outcome::Answered { status: 401 | 403, .. } => Some(Refusal::Credential),
        _ => None,
    }
}

/// The end of a delivery that is not retried. `None` if the retry schedule decides.
pub(super) fn final_state(outcome: &Outcome, retries: RetryState<'_>) -> Option<NextState> {
    let failed = retries.failed_before + 1;
    let reason = match refusal(outcome)? {
        Refusal::Code { err, description } if FINAL_CODES.contains(&err.as_str()) => {
            format!("the receiver refused the SET: {err}: {description}")
        }
        Refusal::Code { err, description }
            if err == "invalid_key" && retries.schedule.elapsed_s(failed) >= UNKNOWN_KEY_SECONDS_MAX =>
        {
            format!("{}: the receiver does not accept the key: {err}: {description}", given_up_reason(failed))
        }
        Refusal::Unexplained if failed >= UNEXPLAINED_ATTEMPTS_MAX => {
            let summary = outcome.summary();
            format!("{}: the last one {summary}, which is not an answer of RFC 8935", given_up_reason(failed))
        }
        Refusal::Code { .. } | Refusal::Unexplained | Refusal::Credential => return None,
    };
    Some(NextState::Dead { reason })
}

/// The pause of a subscription whose credential is refused repeatedly.
pub(super) fn pause(outcome: &Outcome, retries: RetryState<'_>) -> Option<PauseReason> {
    let why = match refusal(outcome)? {
        Refusal::Credential => outcome.summary(),
        Refusal::Code { err, description } if err == "authentication_failed" => {
            format!("was refused: {err}: {description}")
        }
        Refusal::Code { .. } | Refusal::Unexplained => return None,
    };
    let failed = retries.failed_before + 1;
    (failed >= CREDENTIAL_REFUSALS_MAX).then(|| PauseReason {
        cause: PauseCause::Credential,
        since: None,
        text: format!(
            "the receiver refused the credential: attempt {failed} of a delivery {why}; set the header `authorization` of the \
             endpoint and resume the subscription"
        ),
    })
}
