//! A source's secrets: accepted notations and the key bytes that they encode.

use setgate_domain::secret::Secret;
use setgate_domain::source::{KeyEncoding, MacHeader};

use super::SecretKey;
use crate::dialect::scheme_of_proof;
use crate::scheme::{Notation, Scheme};
use crate::signing::{SYMMETRIC_PREFIX, decode};

/// Shortest key of a source with Standard Webhooks signatures, in bytes. Less than the 24 bytes of the specification,
/// because some products issue shorter ones.
pub const SOURCE_KEY_BYTES_MIN: usize = 16;
/// Shortest key of a source with any other signature, in bytes. Shorter keys can be guessed.
const KEY_BYTES_MIN: usize = 8;
/// Longest secret of a source, in bytes of text.
const TEXT_BYTES_MAX: usize = 1024;

/// The key that a secret encodes. `None` if the secret is invalid.
pub(super) fn of(scheme: &Scheme, encoding: Option<KeyEncoding>, secret: &Secret) -> Option<SecretKey> {
    let text = secret.expose();
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let key = match encoding {
        Some(encoding) => decoded(encoding, text)?,
        // A source from before the encoding was configurable. Standard Webhooks secrets are base64, and libraries allow
        // them without the prefix. All other secrets are plain text.
        None if scheme.notation == Notation::Prefixed => decode(text.strip_prefix(SYMMETRIC_PREFIX).unwrap_or(text))?,
        None => SecretKey::new(text.as_bytes().to_vec()),
    };
    (key.len() >= bytes_min(scheme, encoding)).then_some(key)
}

/// The bytes that a text encodes. The prefix `whsec_` implies base64.
pub(super) fn decoded(encoding: KeyEncoding, text: &str) -> Option<SecretKey> {
    match (text.strip_prefix(SYMMETRIC_PREFIX), encoding) {
        (Some(base64), _) => decode(base64),
        (None, KeyEncoding::Base64) => decode(text),
        (None, KeyEncoding::Text) => Some(SecretKey::new(text.as_bytes().to_vec())),
    }
}

fn bytes_min(scheme: &Scheme, encoding: Option<KeyEncoding>) -> usize {
    match (scheme.notation, encoding) {
        (Notation::Prefixed, _) => SOURCE_KEY_BYTES_MIN,
        (Notation::Text, Some(_)) => KEY_BYTES_MIN,
        (Notation::Text, None) => 1,
    }
}

/// Validates a source's secret before it is stored, and returns its encoding: the given one, or else the one implied by
/// its prefix or by the header. The encoding is never guessed from the content.
///
/// # Errors
/// The problem and its remedy, without any part of the secret.
pub fn check_source_secret(
    header: MacHeader,
    encoding: Option<KeyEncoding>,
    secret: &Secret,
) -> Result<KeyEncoding, String> {
    let scheme = scheme_of_proof(header);
    let text = secret.expose();
    check_pasted_text(text)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it has {} bytes: at most {TEXT_BYTES_MAX} are allowed", text.len()));
    }
    let prefixed = text.starts_with(SYMMETRIC_PREFIX);
    let encoding = match (encoding, prefixed, scheme.notation) {
        (Some(KeyEncoding::Text), true, _) => {
            return Err(format!(
                "it begins with `{SYMMETRIC_PREFIX}`, which is always followed by base64: leave `encoding` out, or leave the prefix out if \
                 it is not part of what the product shows"
            ));
        }
        (_, true, _) => KeyEncoding::Base64,
        (Some(encoding), false, _) => encoding,
        (None, false, Notation::Prefixed) => {
            return Err(format!(
                "it does not begin with `{SYMMETRIC_PREFIX}`: set its encoding, `\"encoding\": \"base64\"` or `\"encoding\": \"text\"`"
            ));
        }
        (None, false, _) => KeyEncoding::Text,
    };
    if of(scheme, Some(encoding), secret).is_some() {
        return Ok(encoding);
    }
    let min = bytes_min(scheme, Some(encoding));
    Err(match encoding {
        KeyEncoding::Text => format!("it is too short: at least {min} bytes"),
        KeyEncoding::Base64 => format!(
            "it is not base64 (RFC 4648 section 4) of at least {min} bytes: check that it is whole, and its `encoding`"
        ),
    })
}

/// Refuses text that was probably pasted incorrectly: white space at the ends, and invisible characters.
///
/// # Errors
/// The character and its position, starting at 1.
pub fn check_pasted_text(text: &str) -> Result<(), String> {
    let count = text.chars().count();
    for (index, c) in text.chars().enumerate() {
        let at_end = index == 0 || index + 1 == count;
        let what = match c {
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => "a line end",
            '\0' => "a NUL character",
            '\u{feff}' => "a byte order mark",
            c if c.is_control() => "a control character",
            c if is_invisible(c) => "an invisible character",
            c if at_end && c.is_whitespace() => "white space",
            _ => continue,
        };
        let place = match index {
            0 => "at its beginning".to_owned(),
            _ if index + 1 == count => "at its end".to_owned(),
            _ => format!("at character {}", index + 1),
        };
        return Err(format!(
            "it has {what} (U+{:04X}) {place}, most likely from copying: paste only the secret (`printf %s` writes no line end, \
             `echo` does)",
            c as u32
        ));
    }
    Ok(())
}

/// Zero-width characters and directional marks. A secret that contains them looks like one without them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
}
