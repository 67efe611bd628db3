//! The simulated identity provider: sends each product's events, signed as that product signs them.

use std::time::Instant;

use anyhow::Context as _;
use setgate_dialects::samples::Sample;

use super::stage::Stage;
use crate::cli::emit;

/// A sent event, as recorded by the sender.
pub(super) struct Sent {
    pub(super) seed: &'static str,
    pub(super) name: String,
    /// The host's id of the event; `None` if it was refused.
    pub(super) event: Option<String>,
    pub(super) at: Instant,
    /// The host's error, if the event was refused.
    pub(super) refusal: Option<String>,
}

/// Sends one sample to the source of its product.
pub(super) async fn send(stage: &Stage, sample: &Sample) -> anyhow::Result<Sent> {
    let source =
        stage.source_of(sample.product).with_context(|| format!("no source for the seed {}", sample.product))?;
    let at = Instant::now();
    let body = sample.body.clone().into();
    let answer = emit::event(&stage.sender, &source.path, source.proof, Some(&source.secret), body).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let (event, refusal) = if answer.status == http::StatusCode::ACCEPTED {
        let receipt: serde_json::Value = serde_json::from_str(&text)?;
        (receipt["event"].as_str().map(str::to_owned), None)
    } else {
        (None, Some(format!("{} {text}", answer.status)))
    };
    Ok(Sent { seed: sample.product, name: sample.name.clone(), event, at, refusal })
}
