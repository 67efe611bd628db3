//! The secrets in requests to an endpoint, in the forms in which a response may contain them.
//!
//! A receiver gets a URL, headers and a signature, and has the secret that verifies it. Error pages, debug handlers and
//! proxies echo such data: unchanged, or escaped for JSON, HTML, a URL or base64.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, Engine};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::{Redactor, SECRET_BYTES_MIN};
use crate::secret::Secret;

/// Length of the shortest part of a path or of a header's value that is redacted by itself, in bytes.
const PART_BYTES_MIN: usize = 6;
/// Length from which a part is considered secret even if it looks like a word, in bytes.
const WORD_BYTES_MAX: usize = 16;
/// Maximum number of parts of a path or value that are examined.
const PARTS_MAX: usize = 16;
/// Length of the shortest base64 fragment that is redacted, in characters.
const BASE64_CHARS_MIN: usize = 5;
/// All characters except for the unreserved ones (RFC 3986 section 2.3), which encoders need not escape.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Collects the secrets of one endpoint to create a [`Redactor`].
#[derive(Debug, Default)]
pub struct ExchangeSecrets(Vec<(Secret, String)>);

impl ExchangeSecrets {
    /// Adds the path and query of the endpoint's URL: both together, each by itself, each value of the query, and each
    /// segment of the path that does not look like a word.
    pub fn url(&mut self, url: &Url) {
        const NAME: &str = "endpoint url";
        let path = url.path();
        if path.len() > 1 {
            self.add(NAME, path);
            self.add(NAME, &path[1..]);
        }
        for segment in path.split('/').take(PARTS_MAX) {
            self.add_part(NAME, segment);
        }
        let Some(query) = url.query() else { return };
        self.add(NAME, &format!("{path}?{query}"));
        self.add(NAME, query);
        for pair in query.split('&').take(PARTS_MAX) {
            self.add(NAME, pair.split_once('=').map_or(pair, |(_, value)| value));
        }
    }

    /// Adds the value of a header: the whole value, the credentials after a scheme such as `Bearer`, user name and
    /// password of `Basic`, and each part that does not look like a word, such as the value of a cookie.
    pub fn header(&mut self, name: &str, value: &str) {
        let name = format!("header {name}");
        self.add(&name, value);
        let is_scheme = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        // The name of the scheme is not secret.
        let mut parts = value;
        if let Some((scheme, credentials)) = value.split_once(' ').filter(|(scheme, _)| is_scheme(scheme)) {
            parts = credentials;
            let credentials = credentials.trim();
            self.add(&name, credentials);
            let userinfo =
                scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(credentials).ok()).flatten();
            if let Some(userinfo) = userinfo.and_then(|bytes| String::from_utf8(bytes).ok()) {
                self.add(&name, &userinfo);
                self.add(&name, userinfo.split_once(':').map_or("", |(_, password)| password));
            }
        }
        for part in parts.split([' ', ',', ';']).take(PARTS_MAX) {
            self.add_part(&name, part.split_once('=').map_or(part, |(_, value)| value).trim_matches('"'));
        }
    }

    /// Adds a symmetric signing secret, with and without its prefix.
    pub fn signing(&mut self, secret: &str) {
        const NAME: &str = "signing secret";
        self.add(NAME, secret);
        if let Some((_, body)) = secret.split_once('_') {
            self.add(NAME, body);
        }
    }

    /// Adds each signature in a signature header. With a signature, the request can be replayed while its timestamp is
    /// recent.
    pub fn signature(&mut self, value: &str) {
        for entry in value.split(' ') {
            let signature = entry.split_once([',', '=']).map_or(entry, |(_, signature)| signature);
            if signature.len() < PART_BYTES_MIN {
                continue;
            }
            // Called for each attempt, so it includes only the forms that base64 and hex can take.
            let percent = utf8_percent_encode(signature, RESERVED).to_string();
            for form in [signature.to_owned(), signature.replace('/', "\\/"), lower_escapes(&percent), percent] {
                self.0.push((Secret::new(form), "signature".to_owned()));
            }
        }
    }

    /// Creates the redactor.
    pub fn redactor(self) -> Redactor {
        Redactor::from_spellings(self.0)
    }

    fn add(&mut self, name: &str, secret: &str) {
        if secret.len() >= SECRET_BYTES_MIN {
            self.0.extend(spellings_of(secret).into_iter().map(|spelling| (Secret::new(spelling), name.to_owned())));
        }
    }

    /// Does not add words such as `webhooks`, which are common in addresses and in responses.
    fn add_part(&mut self, name: &str, part: &str) {
        let is_word = part.len() < WORD_BYTES_MAX && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'-' | b'_'));
        if part.len() >= PART_BYTES_MIN && !is_word {
            self.add(name, part);
        }
    }
}

/// The forms in which a secret may be echoed.
fn spellings_of(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let decoded = percent_decode_str(secret).decode_utf8().map(std::borrow::Cow::into_owned).unwrap_or_default();
    if decoded != secret {
        forms.push(decoded.replace('+', " "));
        forms.push(decoded);
    }
    let mut spellings = Vec::new();
    for form in &forms {
        let quoted = crate::json::quote(form);
        let quoted = &quoted[1..quoted.len() - 1];
        // PHP escapes `/` in JSON. Go escapes HTML characters, and Gson some more.
        let go = quoted.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
        let gson = go.replace('=', "\\u003d").replace('\'', "\\u0027");
        spellings.extend([quoted.to_owned(), quoted.replace('/', "\\/"), go, gson]);
        // HTML entities with both numeric forms of `'` and `"`, and the escapes of Mustache and similar template
        // engines.
        let html = form.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let named = html.replace('"', "&quot;");
        let mustache =
            named.replace('\'', "&#39;").replace('/', "&#x2F;").replace('=', "&#x3D;").replace('`', "&#x60;");
        spellings.extend([named.replace('\'', "&#39;"), named.replace('\'', "&#x27;"), mustache]);
        spellings.extend([html.replace('"', "&#34;").replace('\'', "&#39;").replace('+', "&#43;"), named]);
        let percent = utf8_percent_encode(form, RESERVED).to_string();
        spellings.extend([lower_escapes(&percent), percent.replace("%2F", "/"), percent]);
        spellings.push(form.escape_debug().to_string());
        spellings.extend([form.to_ascii_lowercase(), form.to_ascii_uppercase()]);
        spellings.extend(base64_of(form.as_bytes()));
        spellings.push(hex::encode(form));
    }
    spellings.extend(forms);
    spellings.retain(|spelling| spelling.len() >= SECRET_BYTES_MIN);
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

/// Converts percent-encoded bytes to lower case (`%2F` to `%2f`).
fn lower_escapes(percent: &str) -> String {
    let mut lower = String::with_capacity(percent.len());
    let mut pieces = percent.split('%');
    lower.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        lower.push('%');
        lower.push_str(&code.to_ascii_lowercase());
        lower.push_str(rest);
    }
    lower
}

/// Base64 fragments that do not depend on the surrounding bytes: one for each of the three possible offsets of the
/// secret in a group of three bytes.
fn base64_of(bytes: &[u8]) -> Vec<String> {
    let mut pieces = Vec::with_capacity(6);
    for before in 0..3 {
        let padded = [&[0; 2][..before], bytes].concat();
        let (first, last) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [&BASE64_STANDARD, &BASE64_URL_SAFE] {
            let encoded = engine.encode(&padded);
            pieces.extend(encoded.get(first..last).filter(|piece| piece.len() >= BASE64_CHARS_MIN).map(str::to_owned));
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::super::{TextEnd, redact_start};
    use super::*;

    const URL: &str = "https://hooks.example/services/T0AB12/B9/aZ4711qwertz?token=a%2Fb%26hush&v=json";

    fn redactor() -> Redactor {
        let mut secrets = ExchangeSecrets::default();
        secrets.url(&Url::parse(URL).unwrap());
        secrets.header("authorization", "Bearer tok\"en-4711");
        secrets.header("x-basic", "Basic dXNlcjpwYXNz");
        secrets.header("cookie", "session=c00kie99; theme=darkmode");
        secrets.signing("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        secrets.signature("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,second99");
        secrets.redactor()
    }

    /// Echoes of a receiver, each with the secret that must not remain in the record.
    #[test]
    fn echoed_secrets_are_redacted_in_each_encoding() {
        let redactor = redactor();
        let html = "POST /services/T0AB12/B9/aZ4711qwertz?token=a%2Fb%26hush&amp;v=json";
        let shifted = BASE64_STANDARD.encode("a /services/T0AB12/B9/aZ4711qwertz?token=a%2Fb%26hush&v=json b");
        for (echo, secret) in [
            ("POST /services/T0AB12/B9/aZ4711qwertz?token=a%2Fb%26hush&v=json HTTP/1.1", "aZ4711qwertz"),
            (html, "hush"),
            (r#"{"path":"\/services\/T0AB12\/B9\/aZ4711qwertz"}"#, "aZ4711"),
            (r#"{"q":"token=a%2Fb%26hush\u0026v=json"}"#, "hush"),
            ("no route %2fservices%2ft0ab12", "t0ab12"),
            ("%2Fservices%2FT0AB12%2FB9%2FaZ4711qwertz", "aZ4711"),
            ("the segment aZ4711qwertz is unknown", "aZ4711"),
            ("token is a/b&hush", "hush"),
            (r#"{"authorization":"Bearer tok\"en-4711"}"#, "en-4711"),
            ("x-bearer-tok\"en-4711", "en-4711"),
            (r#"{"q":"token\u003da%2Fb%26hush\u0026v\u003djson"}"#, "hush"),
            ("&#x2F;services&#x2F;T0AB12&#x2F;B9&#x2F;aZ4711qwertz", "aZ4711"),
            ("TOKEN IS A%2FB%26HUSH", "HUSH"),
            ("user:pass", "pass"),
            ("the password pass", "password pass"),
            ("session=c00kie99", "c00kie99"),
            ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "C2FVsBQ"),
            ("C2FVsBQIhrscChlQIMV%2Bb5sSYspob7oD", "C2FVsBQ"),
            ("webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "g0hM9"),
            (&shifted, &BASE64_STANDARD.encode("xx/services/T0AB12/B9/aZ4711qwertz")[8..36]),
        ] {
            let shown = redactor.redact(echo);
            assert!(!shown.contains(secret), "{echo} -> {shown}");
            assert!(shown.contains("[secret ") || shown.contains("***"), "{echo} -> {shown}");
        }
    }

    #[test]
    fn base64_is_redacted_at_each_offset() {
        let redactor = redactor();
        for before in 0..6 {
            for after in 0..4 {
                let text = format!("{}session=c00kie99{}", "x".repeat(before), "y".repeat(after));
                for engine in [&BASE64_STANDARD, &BASE64_URL_SAFE] {
                    let shown = redactor.redact(&engine.encode(&text));
                    assert!(shown.contains("[secret header cookie]"), "{before} {after}: {shown}");
                }
            }
        }
    }

    #[test]
    fn words_and_short_values_are_not_redacted() {
        let redactor = redactor();
        for text in ["no services for v=js", "theme=darkmode is a theme", "Bearer is a scheme", "B9", "second"] {
            assert_eq!(redactor.redact(text), text);
        }
        assert!(ExchangeSecrets::default().redactor().is_empty());
    }

    #[test]
    fn no_secret_prefix_remains_at_any_cut() {
        let redactor = redactor();
        let text = format!("echo: {} Bearer tok\"en-4711 and more text behind it", &URL[21..]);
        for cut in 0..text.len() {
            for (given, bytes_max) in [(&text[..cut], usize::MAX), (&text[..], cut)] {
                let shown = redact_start(&[&redactor], given, bytes_max, TextEnd::Truncated);
                assert!(!shown.contains("/servi") && !shown.contains("Bearer tok"), "{cut}: {shown}");
            }
        }
    }
}
