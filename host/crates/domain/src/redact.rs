//! Redacts secrets in text that is stored or shown, and replaces characters that could manipulate a terminal.
//!
//! Two kinds of text from outside are visible to more people than the secrets are: the output of filters, which can
//! access the secrets of their bindings, and the responses of receivers, which get the endpoint's URL and headers and
//! may echo them ([`exchange`]). This protects against accidents, not against intent: a filter can still disclose a
//! secret in reverse order.

pub mod exchange;

use std::collections::BTreeMap;

use super::secret::Secret;

/// Length of the shortest secret that is redacted, in bytes. Shorter ones would occur in many ordinary words.
const SECRET_BYTES_MIN: usize = 4;

/// Length of the prefix by which a secret is recognised, in bytes. If it matches, all further matching bytes are
/// redacted too. Limits the work for each byte of a text independent of the length of the secrets.
const RECOGNISED_BYTES: usize = 64;

/// A set of secrets, each in all spellings in which it may appear in a text.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// Spellings and the indexes of their labels, sorted by bytes.
    spellings: Vec<(Secret, usize)>,
    labels: Vec<String>,
    /// Bit set of the first bytes of all spellings.
    starts: [u64; 4],
    longest_bytes: usize,
}

/// Whether a text may end within a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextEnd {
    /// The text is complete.
    Complete,
    /// The text may have been truncated, by the sender or by a limit. A prefix of a secret at its end is redacted too.
    Truncated,
}

impl Redactor {
    /// Redacts the values of `secrets`, including values escaped as in Rust's debug format or in JSON, and each line of
    /// a multi-line value. Values of fewer than four bytes are not redacted.
    pub fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let labelled = |(name, secret): (&String, &Secret)| {
            spellings_of(secret.expose()).into_iter().map(|spelling| (spelling, name.clone())).collect::<Vec<_>>()
        };
        Self::from_spellings(secrets.iter().flat_map(labelled).collect())
    }

    /// Creates a redactor from spellings and the name of the secret that each belongs to.
    fn from_spellings(named: Vec<(Secret, String)>) -> Self {
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (_, name) in &named {
            if !labels.contains_key(name) {
                // The name may be, or contain, the value of a secret. In that case use a label that is too short to
                // contain any.
                let label = format!("[secret {name}]");
                let discloses = named.iter().any(|(spelling, _)| label.contains(spelling.expose()));
                labels.insert(name.clone(), if discloses { "***".to_owned() } else { label });
            }
        }
        let names: Vec<&String> = labels.keys().collect();
        let index = |name: &String| names.binary_search(&name).unwrap_or_default();
        let mut spellings: Vec<_> = named.into_iter().map(|(spelling, name)| (spelling, index(&name))).collect();
        spellings.sort_by(|(a, _), (b, _)| a.expose().cmp(b.expose()));
        spellings.dedup_by(|(a, _), (b, _)| a.expose() == b.expose());
        let mut starts = [0; 4];
        for first in spellings.iter().filter_map(|(secret, _)| secret.expose().bytes().next()) {
            starts[usize::from(first / 64)] |= 1 << (first % 64);
        }
        let longest_bytes = spellings.iter().map(|(secret, _)| secret.expose().len()).max().unwrap_or_default();
        Self { spellings, labels: labels.into_values().collect(), starts, longest_bytes }
    }

    /// Whether there is nothing to redact.
    pub fn is_empty(&self) -> bool {
        self.spellings.is_empty()
    }

    /// Replaces each secret in `text` with `[secret <name>]`.
    pub fn redact(&self, text: &str) -> String {
        self.redact_start(text, text.len())
    }

    /// Like [`Self::redact`], for the first `bytes_max` bytes of `text`. A secret that starts within them is redacted
    /// completely; truncating first would leave its beginning. The result may be longer or shorter than `bytes_max`.
    pub fn redact_start(&self, text: &str, bytes_max: usize) -> String {
        redact_start(&[self], text, bytes_max, TextEnd::Complete)
    }

    /// Number of bytes after a cut that are needed to recognise a secret that starts before it.
    pub fn recognised_bytes(&self) -> usize {
        self.longest_bytes.min(RECOGNISED_BYTES)
    }

    /// Approximate memory use in bytes.
    pub fn bytes(&self) -> usize {
        self.spellings.iter().map(|(secret, _)| secret.expose().len() + 48).sum()
    }

    /// Finds the longest secret at the beginning of `text`. Returns its length in bytes and its label.
    fn secret_at(&self, text: &[u8], end: TextEnd) -> Option<(usize, &str)> {
        let first = *text.first()?;
        if self.starts[usize::from(first / 64)] & (1 << (first % 64)) == 0 {
            return None;
        }
        let bytes_of = |at: usize| self.spellings[at].0.expose().as_bytes();
        // Narrows down the range of spellings that match the text up to the current byte.
        let (mut from, mut to) = (0, self.spellings.len());
        let mut found = None;
        for (at, byte) in text.iter().take(RECOGNISED_BYTES).enumerate() {
            let candidates = &self.spellings[from..to];
            let below = |(secret, _): &(Secret, usize)| secret.expose().as_bytes().get(at).is_none_or(|b| b < byte);
            let within = |(secret, _): &(Secret, usize)| secret.expose().as_bytes().get(at).is_none_or(|b| b <= byte);
            (from, to) = (from + candidates.partition_point(below), from + candidates.partition_point(within));
            if from == to {
                break;
            }
            if bytes_of(from).len() == at + 1 {
                found = Some((at + 1, from));
            }
        }
        if from < to && text.len() >= RECOGNISED_BYTES {
            let common = |at: usize| bytes_of(at).iter().zip(text).take_while(|(a, b)| a == b).count();
            found = (from..to).map(|at| (common(at), at)).max().max(found);
        } else if from < to && end == TextEnd::Truncated && text.len() >= SECRET_BYTES_MIN {
            found = Some((text.len(), from));
        }
        found.map(|(length, at)| (length, self.labels[self.spellings[at].1].as_str()))
    }
}

/// [`Redactor::redact_start`] with the secrets of several redactors.
pub fn redact_start(redactors: &[&Redactor], text: &str, bytes_max: usize, at_end: TextEnd) -> String {
    let end = text.floor_char_boundary(bytes_max);
    let mut redacted = String::with_capacity(end);
    let (mut at, mut copied) = (0, 0);
    while at < end {
        let rest = &text.as_bytes()[at..];
        match redactors.iter().find_map(|redactor| redactor.secret_at(rest, at_end)) {
            Some((length, label)) => {
                redacted.push_str(&text[copied..at]);
                redacted.push_str(label);
                // A match ends on a character boundary, unless it is only a prefix of a secret.
                at = text.ceil_char_boundary(at + length);
                copied = at;
            }
            // Advancing by bytes is sufficient: secrets are text, so they only match at character boundaries.
            None => at += 1,
        }
    }
    if copied < end {
        redacted.push_str(&text[copied..end]);
    }
    redacted
}

/// Replaces every character that could move the cursor, or hide or reorder text.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c != '\t' && is_unsafe_in_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Like [`printable`], but keeps line breaks.
pub fn printable_lines(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let ends_line = c == '\n' || (c == '\r' && rest.peek() == Some(&'\n'));
        printable.push(if c != '\t' && !ends_line && is_unsafe_in_terminal(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        });
    }
    printable
}

fn is_unsafe_in_terminal(c: char) -> bool {
    // Control characters, and characters that change the direction of text.
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// All spellings of a secret that are long enough.
fn spellings_of(secret: &str) -> Vec<Secret> {
    let mut spellings = vec![Secret::new(secret.to_owned()), Secret::new(secret.escape_debug().to_string())];
    let quoted = super::json::quote(secret);
    spellings.push(Secret::new(quoted[1..quoted.len() - 1].to_owned()));
    // Standard output is processed line by line.
    spellings.extend(secret.lines().map(|line| Secret::new(line.trim().to_owned())));
    spellings.retain(|spelling| spelling.expose().len() >= SECRET_BYTES_MIN);
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(secrets: &[(&str, &str)]) -> Redactor {
        let secrets = secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        Redactor::new(&secrets.collect())
    }

    #[test]
    fn secret_is_replaced_by_its_name() {
        let redactor = of(&[("salt", "pepper-4711"), ("key", "s3cr3t"), ("pin", "123")]);
        assert_eq!(redactor.redact("s3cr3tpepper-4711 123"), "[secret key][secret salt] 123", "too short to recognise");
        assert_eq!(redactor.redact("pepper-471"), "pepper-471");
        assert_eq!(of(&[]).redact("nothing"), "nothing");
    }

    #[test]
    fn longest_matching_secret_is_replaced() {
        let redactor = of(&[("a", "token"), ("b", "token-and-more")]);
        assert_eq!(redactor.redact("token-and-more token-and"), "[secret b] [secret a]-and");
    }

    #[test]
    fn secret_across_truncation_is_redacted_completely() {
        let redactor = of(&[("key", "s3cr3t")]);
        for bytes_max in 3..=8 {
            assert_eq!(
                redactor.redact_start("ab s3cr3t", bytes_max).trim_end(),
                ["ab", "ab [secret key]"][usize::from(bytes_max > 3)]
            );
        }
        // Text after the cut is never included, however much the redacted text shrinks.
        let redactor = of(&[("k", "0123456789012345678901234567890123456789")]);
        let text = "0123456789012345678901234567890123456789".repeat(2) + "0123";
        assert_eq!(redactor.redact_start(&text, 80), "[secret k][secret k]");
    }

    #[test]
    fn escaped_spellings_are_redacted() {
        let redactor = of(&[("pem", "-----BEGIN KEY-----\nabc\"def\n-----END KEY-----\n"), ("uml", "käse\u{1b}brot")]);
        assert_eq!(redactor.redact("key: abc\"def"), "key: [secret pem]", "one of its lines");
        assert_eq!(redactor.redact(r#""-----BEGIN KEY-----\nabc\"def\n-----END KEY-----\n""#), r#""[secret pem]""#);
        assert_eq!(redactor.redact("käse\u{1b}brot"), "[secret uml]");
        assert_eq!(redactor.redact(r"k\u00e4se käse\u001bbrot käse\u{1b}brot"), r"k\u00e4se [secret uml] [secret uml]");
    }

    #[test]
    fn label_that_discloses_a_secret_is_masked() {
        assert_eq!(of(&[("hunter2", "hunter2")]).redact("it is hunter2"), "it is ***");
        assert_eq!(of(&[("a", "secret")]).redact("a secret"), "a ***", "the label would disclose it as well");
    }

    #[test]
    fn truncated_secret_is_redacted_from_four_bytes() {
        let redactor = of(&[("key", "s3cr3t-4711")]);
        let cut = |text: &str| redact_start(&[&redactor], text, text.len(), TextEnd::Truncated);
        assert_eq!(
            (cut("it is s3cr3t-47"), cut("it is s3cr")),
            ("it is [secret key]".into(), "it is [secret key]".into())
        );
        assert_eq!((cut("it is s3c"), cut("it is s3cret")), ("it is s3c".into(), "it is s3cret".into()));
        assert_eq!(redactor.redact("it is s3cr3t-47"), "it is s3cr3t-47", "a complete text is unchanged");
    }

    #[test]
    fn long_secret_is_recognised_by_prefix() {
        let long = "0123456789".repeat(50);
        let redactor = of(&[("long", &long), ("other", &(long.clone() + "x")), ("short", "01234")]);
        assert_eq!(redactor.redact(&format!("a {long} b")), "a [secret other] b");
        assert_eq!(redactor.redact(&format!("a {} b", &long[..100])), "a [secret other] b", "most of it is truncated");
        assert_eq!(redactor.redact(&format!("a {} b", &long[..60])).matches("[secret short]").count(), 6);
        assert_eq!(redactor.redact_start(&format!("a {long} b"), 70), "a [secret other]");
        assert_eq!(redactor.recognised_bytes(), RECOGNISED_BYTES);
    }

    #[test]
    fn control_characters_are_replaced() {
        let text = "a\u{1b}[2J\r\nb\u{202e}\tc\rd";
        assert_eq!(printable(text), "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}\tc\u{fffd}d");
        assert_eq!(printable_lines(text), "a\u{fffd}[2J\r\nb\u{fffd}\tc\u{fffd}d");
    }

    #[test]
    fn debug_output_hides_secrets() {
        assert!(!format!("{:?}", of(&[("key", "s3cr3t")])).contains("s3cr3t"));
    }
}
