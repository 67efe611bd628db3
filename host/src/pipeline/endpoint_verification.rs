//! Endpoint verification: posts a random challenge and checks that the response returns it, to confirm that the
//! receiver expects this subscription.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use setgate_base::clock::Clock;
use setgate_base::crypto::{self, MasterKey};
use setgate_dialects::Signer;
use setgate_domain::attempt::Outcome;
use setgate_domain::secret::signing_context;
use setgate_domain::subscription::Subscription;
use setgate_egress::Egress;

use super::deliver::{post, unopened};
use super::endpoints::OpenEndpoint;

/// Value of `type` in the request body.
const CHALLENGE_TYPE: &str = "https://schemas.setgate.dev/verification";

/// Verifies endpoints.
pub(crate) struct EndpointVerifier {
    master: Arc<MasterKey>,
    signer: Arc<Signer>,
    egress: Egress,
    clock: Clock,
}

impl EndpointVerifier {
    pub(super) fn new(master: Arc<MasterKey>, signer: Arc<Signer>, egress: Egress, clock: Clock) -> Self {
        Self { master, signer, egress, clock }
    }

    /// Posts a challenge to the endpoint of a subscription, with the same headers, signature, limits and address checks
    /// as a delivery. The body is `{"type": ..., "subscription": ..., "challenge": ...}`. The response must be 2xx and
    /// return the challenge, either as the whole body or as `challenge` in a JSON object. Sends a single request,
    /// without retries.
    ///
    /// # Errors
    /// A description of the failure, for the user.
    pub(crate) async fn verify(&self, subscription: &Subscription) -> Result<(), String> {
        let challenge = URL_SAFE_NO_PAD.encode(crypto::random_bytes::<32>());
        let body = json!({"type": CHALLENGE_TYPE, "subscription": subscription.id, "challenge": challenge});
        let body = bytes::Bytes::from(body.to_string());
        let context = signing_context(&subscription.tenant, &subscription.id);
        let id = format!("vrf_{:032x}", crypto::random_u128());
        let sign = |signing| self.signer.sign(signing, &context, &id, self.clock.system_time(), &body);
        let signed = subscription.signing.as_ref().map(sign).transpose();
        let signed = signed.map_err(|error| format!("the challenge could not be signed: {error}"))?.unwrap_or_default();
        let exchange = match OpenEndpoint::open(subscription, &self.master, &self.signer) {
            Ok(endpoint) => {
                post(&self.egress, subscription, &endpoint, &signed.headers, ("application/json", body)).await
            }
            Err(error) => unopened(&error),
        };
        match (&exchange.outcome, exchange.host_shortage) {
            (Outcome::Failed { detail, .. }, Some(_)) => Err(format!("this host could not ask, try again: {detail}")),
            (outcome, _) => read(outcome, &challenge),
        }
    }
}

fn read(outcome: &Outcome, challenge: &str) -> Result<(), String> {
    match outcome {
        // Unlike a delivery, a challenge is decided by the response body, so the body must be complete.
        Outcome::Answered { status: status @ 200..=299, body_incomplete: Some(why), .. } => {
            Err(format!("the endpoint answered {status}, but the body is incomplete: {why}"))
        }
        Outcome::Answered { status: 200..=299, body_head, .. } if gives_back(body_head, challenge) => Ok(()),
        Outcome::Answered { status: status @ 200..=299, .. } => {
            Err(format!("the endpoint answered {status} without the challenge in the body"))
        }
        Outcome::Answered { status, .. } => Err(format!("the endpoint answered {status}")),
        Outcome::Acknowledged | Outcome::Rejected { .. } => Err("the receiver polls, so nothing was sent".to_owned()),
        Outcome::Failed { class, detail } => Err(format!("there was no answer ({}): {detail}", class.as_str())),
    }
}

fn gives_back(body: &str, challenge: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        challenge: String,
    }
    let body = body.trim();
    body == challenge || serde_json::from_str::<Answer>(body).is_ok_and(|answer| answer.challenge == challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_incomplete_gives_nothing_back() {
        let answered = |body_incomplete| Outcome::Answered {
            status: 200,
            body_head: "abc".into(),
            retry_after_s: None,
            headers: Vec::new(),
            directive: None,
            body_incomplete,
        };
        assert_eq!(read(&answered(None), "abc"), Ok(()));
        let said = read(&answered(Some("it broke off".into())), "abc").unwrap_err();
        assert!(said.contains("incomplete: it broke off"), "{said}");
    }

    #[test]
    fn a_challenge_comes_back_as_text_or_as_json_and_as_nothing_else() {
        for (body, back) in [
            ("abc", true),
            (" abc\r\n", true),
            (r#"{"challenge":"abc"}"#, true),
            (r#"{"challenge":"abc","more":1}"#, true),
            ("abcd", false),
            ("\"abc\"", false),
            (r#"{"challenge":"ab"}"#, false),
            (r#"<html>abc</html>"#, false),
            ("", false),
        ] {
            assert_eq!(gives_back(body, "abc"), back, "{body}");
        }
    }
}
