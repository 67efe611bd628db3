//! Redacts secrets that receivers echo. All text of a response is redacted before it is truncated, stored or displayed.

use std::borrow::Cow;

use setgate_domain::attempt::Outcome;
use setgate_domain::redact::exchange::ExchangeSecrets;
use setgate_domain::redact::{Redactor, TextEnd, printable, printable_lines, redact_start};

/// The redactor for the response to one request.
pub(super) struct EchoRedactor<'a> {
    endpoint: &'a Redactor,
    signatures: Redactor,
}

impl<'a> EchoRedactor<'a> {
    /// `endpoint` covers the secrets of the endpoint. The signatures in `headers` are added.
    pub(super) fn new(endpoint: &'a Redactor, headers: &[(&'static str, String)]) -> Self {
        let mut secrets = ExchangeSecrets::default();
        for (_, value) in headers.iter().filter(|(name, _)| name.contains("signature")) {
            secrets.signature(value);
        }
        Self { endpoint, signatures: secrets.redactor() }
    }

    /// Bytes to read beyond a limit, so that a secret that starts before the limit is recognised.
    pub(super) fn recognised_bytes(&self) -> usize {
        self.endpoint.recognised_bytes().max(self.signatures.recognised_bytes())
    }

    /// The redacted beginning of a text, as a single line.
    pub(super) fn line(&self, bytes: &[u8], bytes_max: usize) -> String {
        cut(printable(&self.redacted(bytes, bytes_max)), bytes_max)
    }

    /// The redacted beginning of a text that may have several lines.
    pub(super) fn lines(&self, bytes: &[u8], bytes_max: usize) -> String {
        cut(printable_lines(&self.redacted(bytes, bytes_max)), bytes_max)
    }

    /// Redacts the detail of a failure, which may quote the receiver. Responses are redacted when they are read.
    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed { class, detail } => {
                let detail = self.line(detail.as_bytes(), usize::MAX);
                Outcome::Failed { class, detail }
            }
            answered @ (Outcome::Answered { .. } | Outcome::Acknowledged | Outcome::Rejected { .. }) => answered,
        }
    }

    fn redacted(&self, bytes: &[u8], bytes_max: usize) -> String {
        redact_start(&[self.endpoint, &self.signatures], &text(bytes), bytes_max, TextEnd::Truncated)
    }
}

/// Decodes UTF-8. A character that is cut off at the end is dropped, and other invalid bytes become U+FFFD.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    String::from_utf8_lossy(whole)
}

// A replacement may be longer than the replaced text.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_secrets(bytes: &[u8], bytes_max: usize) -> String {
        EchoRedactor::new(&Redactor::default(), &[]).lines(bytes, bytes_max)
    }

    #[test]
    fn text_is_truncated_at_character_boundaries() {
        assert_eq!(without_secrets("aä".as_bytes(), 10), "aä");
        assert_eq!(without_secrets(&"aä".as_bytes()[..2], 2), "a");
        assert_eq!(without_secrets(&[0xff; 10], 10), "\u{fffd}".repeat(3));
    }

    #[test]
    fn secrets_are_redacted_before_truncation() {
        let mut secrets = ExchangeSecrets::default();
        secrets.header("x-token", "hush-4711-hush");
        let endpoint = secrets.redactor();
        let echo =
            EchoRedactor::new(&endpoint, &[("webhook-signature", "v1,c2lnbmF0dXJl v1a,b3RoZXI0NzEx".to_owned())]);
        let said = b"token hush-4711-hush, signed v1,c2lnbmF0dXJl v1a,b3RoZXI0NzEx";
        for bytes_max in 0..said.len() {
            let kept = echo.line(said, bytes_max);
            assert!(kept.len() <= bytes_max, "{kept}");
            assert!(!kept.contains("hush") && !kept.contains("c2ln") && !kept.contains("b3Ro"), "{bytes_max}: {kept}");
        }
        assert_eq!(echo.line(b"hush-4711", 99), "[secret header x-token]", "truncated by the receiver");
    }
}
