//! Answers of requests with an `Idempotency-Key`, stored sealed: they may hold a secret that is shown once.

use serde::{Deserialize, Serialize};

use super::{Control, Error};
use crate::domain::idempotency::Claim;
use crate::domain::secret::Secret;
use crate::ledger::AnswersStored;

/// Requests of one tenant, or of the operator, whose answers are stored at once. Each is stored for a day.
pub const ANSWERS_PER_TENANT_MAX: u64 = 1_000;
/// Bytes of them. The last one may be larger than what is left.
pub const ANSWERS_BYTES_PER_TENANT_MAX: u64 = 16 << 20;

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Name and value of each header.
    pub headers: Vec<(String, String)>,
    /// The body: JSON.
    pub body: String,
}

/// How a request stands.
pub enum Standing {
    /// It was not carried out.
    New,
    /// It was carried out, and answered so.
    Answered(StoredAnswer),
    /// It was carried out, and the host was killed before its answer was stored.
    AnswerLost,
    /// Its key stands for another request.
    KeyReused,
    /// As many answers are stored as may be.
    Full(AnswersStored),
}

impl Control {
    /// How a request stands that has an `Idempotency-Key`.
    pub async fn standing(&self, claim: &Claim) -> Result<Standing, Error> {
        let (found, stored) = self.ledger.carried_out(claim).await?;
        let Some(found) = found else {
            return Ok(if is_full(stored) { Standing::Full(stored) } else { Standing::New });
        };
        if found.request != claim.request {
            return Ok(Standing::KeyReused);
        }
        let Some(sealed) = found.answer else { return Ok(Standing::AnswerLost) };
        let opened = self.master.open(&context(claim), &sealed);
        let answer = opened.ok().and_then(|text| serde_json::from_str(text.expose()).ok());
        if answer.is_none() {
            tracing::error!("a stored answer cannot be opened: it was sealed with another master key, or is damaged");
        }
        Ok(answer.map_or(Standing::AnswerLost, Standing::Answered))
    }

    /// Stores the answer of a request that was carried out. A refusal is stored only if the request has changed something:
    /// else it may be sent again, and come to something else.
    pub async fn store_answer(&self, claim: &Claim, answer: &StoredAnswer) -> Result<(), Error> {
        let is_success = (200..300).contains(&answer.status);
        let text = serde_json::to_string(answer).unwrap_or_default();
        let sealed = self.master.seal(&context(claim), &Secret::new(text));
        Ok(self.ledger.store_answer(claim, sealed, is_success).await?)
    }
}

fn is_full(stored: AnswersStored) -> bool {
    stored.count >= ANSWERS_PER_TENANT_MAX || stored.bytes >= ANSWERS_BYTES_PER_TENANT_MAX
}

/// What a stored answer is bound to when it is encrypted.
fn context(claim: &Claim) -> String {
    format!("answer/{}", claim.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_in_count_and_in_bytes() {
        let full = |count, bytes| is_full(AnswersStored { count, bytes });
        assert!(!full(ANSWERS_PER_TENANT_MAX - 1, ANSWERS_BYTES_PER_TENANT_MAX - 1));
        assert!(full(ANSWERS_PER_TENANT_MAX, 0) && full(1, ANSWERS_BYTES_PER_TENANT_MAX));
    }
}
