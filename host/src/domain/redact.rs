//! Takes secrets out of text that is kept or shown.
//!
//! A filter may read its binding's secrets, and what it then logs, gives as a reason or panics with goes into histories
//! and answers that more people read than may know the secrets. This stands against accidents: a filter that wants to
//! give a secret away can still spell it backwards.

use std::collections::BTreeMap;

use super::secret::Secret;

/// Bytes of the shortest secret that is taken out. Shorter ones stand in half of all words.
const SECRET_BYTES_MIN: usize = 4;

/// The secrets of one call, in each spelling in which they could come out by accident.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// What to look for, and what to put in its place; the longest first.
    spellings: Vec<(Secret, String)>,
    /// The first bytes of all of them.
    starts: Vec<u8>,
}

impl Redactor {
    /// Takes out the values of `secrets`, also where they stand escaped as in a string's debug form or in JSON, and
    /// each line of a value of several lines. A value of fewer than four bytes stays.
    pub fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let mut spellings = Vec::new();
        for (name, secret) in secrets {
            let label = label(name, secrets);
            for spelling in spellings_of(secret.expose()) {
                spellings.push((spelling, label.clone()));
            }
        }
        // Else a secret that another one begins with would leave the rest of that one.
        spellings.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.expose().len()));
        let mut starts: Vec<u8> = spellings.iter().filter_map(|(secret, _)| secret.expose().bytes().next()).collect();
        starts.sort_unstable();
        starts.dedup();
        Self { spellings, starts }
    }

    /// Whether there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.spellings.is_empty()
    }

    /// `text` with each secret replaced by `[secret <name>]`.
    pub fn redact(&self, text: &str) -> String {
        self.redact_start(text, text.len())
    }

    /// The same for the first `bytes_max` bytes of `text` and no more, but for a secret that begins within them and
    /// ends behind: cut first, its beginning would stay. What is returned may be longer or shorter.
    pub fn redact_start(&self, text: &str, bytes_max: usize) -> String {
        let end = text.floor_char_boundary(bytes_max);
        let mut redacted = String::with_capacity(end);
        let (mut at, mut kept) = (0, 0);
        while at < end {
            match self.secret_at(&text.as_bytes()[at..]) {
                Some((secret, label)) => {
                    redacted.push_str(&text[kept..at]);
                    redacted.push_str(label);
                    at += secret.len();
                    kept = at;
                }
                // Bytes suffice: a secret is text, so it begins and ends where characters do.
                None => at += 1,
            }
        }
        if kept < end {
            redacted.push_str(&text[kept..end]);
        }
        redacted
    }

    /// Bytes of the longest spelling: how far behind a cut one can reach.
    pub fn longest_bytes(&self) -> usize {
        self.spellings.first().map_or(0, |(secret, _)| secret.expose().len())
    }

    fn secret_at(&self, text: &[u8]) -> Option<(&str, &str)> {
        let first = text.first()?;
        if !self.starts.contains(first) {
            return None;
        }
        let (secret, label) = self.spellings.iter().find(|(secret, _)| text.starts_with(secret.expose().as_bytes()))?;
        Some((secret.expose(), label))
    }
}

/// A name may be, or hold, the value of a secret; then it is left out for what is too short to hold any.
fn label(name: &str, secrets: &BTreeMap<String, Secret>) -> String {
    let label = format!("[secret {name}]");
    let tells = |secret: &Secret| secret.expose().len() >= SECRET_BYTES_MIN && label.contains(secret.expose());
    if secrets.values().any(tells) { "***".to_owned() } else { label }
}

/// The spellings of a secret that are long enough.
fn spellings_of(secret: &str) -> Vec<Secret> {
    let mut spellings = vec![Secret::new(secret.to_owned()), Secret::new(secret.escape_debug().to_string())];
    let quoted = super::json::quote(secret);
    spellings.push(Secret::new(quoted[1..quoted.len() - 1].to_owned()));
    // What goes through standard output comes line by line.
    spellings.extend(secret.lines().map(|line| Secret::new(line.trim().to_owned())));
    spellings.retain(|spelling| spelling.expose().len() >= SECRET_BYTES_MIN);
    spellings.sort_by(|a, b| a.expose().cmp(b.expose()));
    spellings.dedup_by(|a, b| a.expose() == b.expose());
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
    fn each_secret_is_replaced_by_its_name() {
        let redactor = of(&[("salt", "pepper-4711"), ("key", "s3cr3t"), ("pin", "123")]);
        assert_eq!(redactor.redact("s3cr3tpepper-4711 123"), "[secret key][secret salt] 123", "too short to tell");
        assert_eq!(redactor.redact("pepper-471"), "pepper-471");
        assert_eq!(of(&[]).redact("nothing"), "nothing");
    }

    #[test]
    fn the_longer_of_two_that_begin_alike_goes_first() {
        let redactor = of(&[("a", "token"), ("b", "token-and-more")]);
        assert_eq!(redactor.redact("token-and-more token-and"), "[secret b] [secret a]-and");
    }

    #[test]
    fn a_secret_over_the_cut_goes_whole() {
        let redactor = of(&[("key", "s3cr3t")]);
        for bytes_max in 3..=8 {
            assert_eq!(
                redactor.redact_start("ab s3cr3t", bytes_max).trim_end(),
                ["ab", "ab [secret key]"][usize::from(bytes_max > 3)]
            );
        }
        // What stands behind the cut does not move before it, however much the text shrinks.
        let redactor = of(&[("k", "0123456789012345678901234567890123456789")]);
        let text = "0123456789012345678901234567890123456789".repeat(2) + "0123";
        assert_eq!(redactor.redact_start(&text, 80), "[secret k][secret k]");
    }

    #[test]
    fn other_spellings_are_found() {
        let redactor = of(&[("pem", "-----BEGIN KEY-----\nabc\"def\n-----END KEY-----\n"), ("uml", "käse\u{1b}brot")]);
        assert_eq!(redactor.redact("key: abc\"def"), "key: [secret pem]", "one of its lines");
        assert_eq!(redactor.redact(r#""-----BEGIN KEY-----\nabc\"def\n-----END KEY-----\n""#), r#""[secret pem]""#);
        assert_eq!(redactor.redact("käse\u{1b}brot"), "[secret uml]");
        assert_eq!(redactor.redact(r"k\u00e4se käse\u001bbrot käse\u{1b}brot"), r"k\u00e4se [secret uml] [secret uml]");
    }

    #[test]
    fn a_name_that_tells_the_secret_is_left_out() {
        assert_eq!(of(&[("hunter2", "hunter2")]).redact("it is hunter2"), "it is ***");
        assert_eq!(of(&[("a", "secret")]).redact("a secret"), "a ***", "what is put in place would tell it as well");
    }

    #[test]
    fn nothing_is_shown_by_debug() {
        assert!(!format!("{:?}", of(&[("key", "s3cr3t")])).contains("s3cr3t"));
    }
}
