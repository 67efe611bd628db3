//! Poll delivery: the bearer tokens of receivers that fetch their SETs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use setgate_base::crypto;
use setgate_domain::audit::Actor;
use setgate_domain::id::{Digest, SubscriptionId, TenantId};
use setgate_domain::subscription::{Format, Poll, PollToken, Subscription};
use setgate_domain::time::Timestamp;

use super::OVERLAP_HOURS_MAX;
use super::documents::Documents;
use super::shapes::{RevealedKey, RotatePollTokenInput, SubscriptionInput, SubscriptionOnce};
use crate::control::Error;

/// Limit for the tokens of one subscription that are valid at the same time.
pub const POLL_TOKENS_MAX: usize = 4;
/// Default overlap of a token with its successor, in hours.
const OVERLAP_HOURS: u32 = 24;

/// Replaces the tokens of polling receivers.
#[derive(Clone)]
pub struct PollTokens {
    pub(in crate::control) documents: Documents,
}

impl PollTokens {
    /// Generates a new token. The existing ones are accepted until the end of the overlap.
    pub async fn rotate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        input: RotatePollTokenInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        let hours = input.overlap_hours.unwrap_or(OVERLAP_HOURS);
        if hours > OVERLAP_HOURS_MAX {
            return Err(Error::invalid("overlap_hours", format!("at most {OVERLAP_HOURS_MAX}")));
        }
        self.documents
            .change(tenant, id, expected, |_, subscription, now| {
                let Some(poll) = &mut subscription.poll else {
                    return Err(Error::Conflict(
                        "this subscription has no poll tokens: it sends to an endpoint".into(),
                    ));
                };
                let ends = now.plus_millis(i64::from(hours) * 3_600_000);
                for token in &mut poll.tokens {
                    token.expires_at = Some(token.expires_at.map_or(ends, |at| at.min(ends)));
                }
                poll.tokens.retain(|token| token.is_valid(now));
                let (token, text) = generate(now);
                poll.tokens.insert(0, token);
                poll.tokens.truncate(POLL_TOKENS_MAX);
                let made = RevealedKey { poll_token: Some(text), ..RevealedKey::default() };
                Ok((actor.action("subscription.rotate_poll_token"), made))
            })
            .await
    }
}

/// The poll delivery of a request: a new token for a new receiver, or the stored ones.
pub(super) fn take(
    input: &SubscriptionInput,
    before: Option<&Subscription>,
    now: Timestamp,
) -> Result<(Option<Poll>, Option<String>), Error> {
    match (&input.poll, &input.endpoint) {
        (None, Some(_)) => Ok((None, None)),
        (None, None) => Err(Error::invalid("endpoint", "give the endpoint to send to, or `\"poll\": {}`")),
        (Some(_), Some(_)) => {
            Err(Error::invalid("poll", "a receiver that polls has no endpoint: give one of `endpoint` and `poll`"))
        }
        (Some(_), None) if input.format != Format::SignedSet => {
            Err(Error::invalid("poll", "poll delivery (RFC 8936) is of signed SETs: set the format `signed_set`"))
        }
        (Some(_), None) if input.signing.is_some() => {
            Err(Error::invalid("signing", "a receiver that polls gets no signature in headers: leave it out"))
        }
        (Some(_), None) => match before.and_then(|before| before.poll.clone()) {
            Some(stored) => Ok((Some(stored), None)),
            None => {
                let (token, text) = generate(now);
                Ok((Some(Poll { tokens: vec![token] }), Some(text)))
            }
        },
    }
}

/// A new token, and its text.
fn generate(now: Timestamp) -> (PollToken, String) {
    let text = format!("{}{}", PollToken::PREFIX, URL_SAFE_NO_PAD.encode(crypto::random_bytes::<32>()));
    let digest = Digest(crypto::sha256(text.as_bytes()));
    (PollToken { digest, created_at: now, expires_at: None }, text)
}
