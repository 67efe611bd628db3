//! Stored responses of requests with an `Idempotency-Key`. They are encrypted, because a response may contain a secret
//! that is shown only once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use setgate_base::crypto::MasterKey;
use setgate_domain::idempotency::IdempotencyClaim;
use setgate_domain::secret::Secret;
use setgate_ledger::{Registry, StoredResponses};

use super::Error;

/// Limit for the stored responses of one tenant, or of the operator. Each is retained for one day.
pub const ANSWERS_PER_TENANT_MAX: u64 = 1_000;
/// Limit for the total size of these responses in bytes. The last one may exceed it.
pub const ANSWERS_BYTES_PER_TENANT_MAX: u64 = 16 << 20;

/// A stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Name and value of each header.
    pub headers: Vec<(String, String)>,
    /// The body, as JSON.
    pub body: String,
}

/// The state of a request with an `Idempotency-Key`.
pub enum Standing {
    /// The request has not been executed.
    New,
    /// The request was executed and its response is stored.
    Answered(StoredAnswer),
    /// The request was executed, but the host was killed before it stored the response, or the response cannot be
    /// decrypted.
    AnswerLost,
    /// The key was used for a different request.
    KeyReused,
    /// The limit for stored responses is reached.
    Full(StoredResponses),
}

/// The stored responses of all tenants and of the operator.
#[derive(Clone)]
pub struct StoredAnswers {
    pub(super) registry: Registry,
    pub(super) master: Arc<MasterKey>,
}

impl StoredAnswers {
    /// Looks up the state of a request with an `Idempotency-Key`.
    pub async fn standing(&self, claim: &IdempotencyClaim) -> Result<Standing, Error> {
        let (found, stored) = self.registry.executed_request(claim).await?;
        let Some(found) = found else {
            return Ok(if is_full(stored) { Standing::Full(stored) } else { Standing::New });
        };
        if found.request != claim.request {
            return Ok(Standing::KeyReused);
        }
        let Some(sealed) = found.response else { return Ok(Standing::AnswerLost) };
        let opened = self.master.open(&context(claim), &sealed);
        let answer = opened.ok().and_then(|text| serde_json::from_str(text.expose()).ok());
        if answer.is_none() {
            tracing::error!("a stored answer cannot be opened: it was sealed with another master key, or is damaged");
        }
        Ok(answer.map_or(Standing::AnswerLost, Standing::Answered))
    }

    /// Stores the response of an executed request. An error response is stored only if the request has changed
    /// something, since otherwise a retry may succeed.
    pub async fn store(&self, claim: &IdempotencyClaim, answer: &StoredAnswer) -> Result<(), Error> {
        let is_success = (200..300).contains(&answer.status);
        let text = serde_json::to_string(answer).unwrap_or_default();
        let sealed = self.master.seal(&context(claim), &Secret::new(text));
        Ok(self.registry.store_response(claim, sealed, is_success).await?)
    }
}

fn is_full(stored: StoredResponses) -> bool {
    stored.count >= ANSWERS_PER_TENANT_MAX || stored.bytes >= ANSWERS_BYTES_PER_TENANT_MAX
}

/// The encryption context that binds a stored response to its request.
fn context(claim: &IdempotencyClaim) -> String {
    format!("answer/{}", claim.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_in_count_and_in_bytes() {
        let full = |count, bytes| is_full(StoredResponses { count, bytes });
        assert!(!full(ANSWERS_PER_TENANT_MAX - 1, ANSWERS_BYTES_PER_TENANT_MAX - 1));
        assert!(full(ANSWERS_PER_TENANT_MAX, 0) && full(1, ANSWERS_BYTES_PER_TENANT_MAX));
    }
}
