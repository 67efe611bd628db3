//! The secrets of the requests to one endpoint, as they could appear in an answer.
//!
//! A receiver is sent a URL, headers and a signature, and knows the secret that verifies it. Error pages, debug handlers and
//! proxies echo such things: as they are, or escaped as JSON, HTML, a URL or base64 require.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, Engine};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::{Redactor, SECRET_BYTES_MIN};
use crate::domain::secret::Secret;

/// Bytes of the shortest part of a path or of a header's value that is redacted by itself.
const PART_BYTES_MIN: usize = 6;
/// Bytes from which a part counts as a secret even if it looks like a word.
const WORD_BYTES_MAX: usize = 16;
/// Parts of one path or value that are looked at.
const PARTS_MAX: usize = 16;
/// Characters of the shortest piece of base64 that is looked for.
const BASE64_CHARS_MIN: usize = 5;
/// The unreserved characters (RFC 3986 section 2.3), which no encoder needs to escape.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Collects the secrets of one endpoint, then becomes a [`Redactor`].
#[derive(Debug, Default)]
pub struct Secrets(Vec<(Secret, String)>);

impl Secrets {
    /// The path and query of the endpoint's URL: together, each by itself, each value of the query, and each segment of the path
    /// that does not look like a word.
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

    /// The value of a header: as a whole, the credentials after a scheme such as `Bearer`, user name and password of `Basic`, and
    /// each part that does not look like a word, such as the value of a cookie.
    pub fn header(&mut self, name: &str, value: &str) {
        let name = format!("header {name}");
        self.add(&name, value);
        let is_scheme = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        // The name of a scheme is no secret.
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

    /// A symmetric secret that verifies signatures, with and without its prefix.
    pub fn signing(&mut self, secret: &str) {
        const NAME: &str = "signing secret";
        self.add(NAME, secret);
        if let Some((_, body)) = secret.split_once('_') {
            self.add(NAME, body);
        }
    }

    /// A header that carries signatures: each of them. Whoever has one can send its body once more while its time is recent.
    pub fn signature(&mut self, value: &str) {
        for entry in value.split(' ') {
            let signature = entry.split_once([',', '=']).map_or(entry, |(_, signature)| signature);
            if signature.len() < PART_BYTES_MIN {
                continue;
            }
            // Made for each attempt, so only the forms that base64 and hex can take.
            let percent = utf8_percent_encode(signature, RESERVED).to_string();
            for form in [signature.to_owned(), signature.replace('/', "\\/"), lower_escapes(&percent), percent] {
                self.0.push((Secret::new(form), "signature".to_owned()));
            }
        }
    }

    /// What redacts all of them.
    pub fn redactor(self) -> Redactor {
        Redactor::of(self.0)
    }

    fn add(&mut self, name: &str, secret: &str) {
        if secret.len() >= SECRET_BYTES_MIN {
            self.0.extend(spellings_of(secret).into_iter().map(|spelling| (Secret::new(spelling), name.to_owned())));
        }
    }

    /// Words such as `webhooks` are parts of many addresses and of many answers.
    fn add_part(&mut self, name: &str, part: &str) {
        let is_word = part.len() < WORD_BYTES_MAX && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'-' | b'_'));
        if part.len() >= PART_BYTES_MIN && !is_word {
            self.add(name, part);
        }
    }
}

/// The forms in which a secret is echoed.
fn spellings_of(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let decoded = percent_decode_str(secret).decode_utf8().map(std::borrow::Cow::into_owned).unwrap_or_default();
    if decoded != secret {
        forms.push(decoded.replace('+', " "));
        forms.push(decoded);
    }
    let mut spellings = Vec::new();
    for form in &forms {
        let quoted = crate::domain::json::quote(form);
        let quoted = &quoted[1..quoted.len() - 1];
        // PHP escapes `/` in JSON. Go escapes what has a meaning in HTML, and Gson some more.
        let go = quoted.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
        let gson = go.replace('=', "\\u003d").replace('\'', "\\u0027");
        spellings.extend([quoted.to_owned(), quoted.replace('/', "\\/"), go, gson]);
        // The named entities, with each number of `'` and `"`; and what Mustache and its kin escape.
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

/// `%2F` as `%2f`, the rest as it is.
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

/// The characters of base64 that are the same wherever in a text the bytes begin: one piece for each of the three positions
/// within a group of three bytes.
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
    use super::super::{End, redact_start};
    use super::*;

    const URL: &str = "https://hooks.example/services/T0AB12/B9/aZ4711qwertz?token=a%2Fb%26hush&v=json";

    fn redactor() -> Redactor {
        let mut secrets = Secrets::default();
        secrets.url(&Url::parse(URL).unwrap());
        secrets.header("authorization", "Bearer tok\"en-4711");
        secrets.header("x-basic", "Basic dXNlcjpwYXNz");
        secrets.header("cookie", "session=c00kie99; theme=darkmode");
        secrets.signing("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        secrets.signature("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,second99");
        secrets.redactor()
    }

    /// What a receiver may echo, and what must not be found in the record of it.
    #[test]
    fn each_form_in_which_a_receiver_echoes_a_secret_is_redacted() {
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
    fn base64_is_found_at_each_offset() {
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
    fn words_and_short_values_stay() {
        let redactor = redactor();
        for text in ["no services for v=js", "theme=darkmode is a theme", "Bearer is a scheme", "B9", "second"] {
            assert_eq!(redactor.redact(text), text);
        }
        assert!(Secrets::default().redactor().is_empty());
    }

    #[test]
    fn no_beginning_of_a_secret_is_left_at_any_cut() {
        let redactor = redactor();
        let text = format!("echo: {} Bearer tok\"en-4711 and more text behind it", &URL[21..]);
        for cut in 0..text.len() {
            for (given, bytes_max) in [(&text[..cut], usize::MAX), (&text[..], cut)] {
                let shown = redact_start(&[&redactor], given, bytes_max, End::Cut);
                assert!(!shown.contains("/servi") && !shown.contains("Bearer tok"), "{cut}: {shown}");
            }
        }
    }
}
