//! Unpaired surrogates in escapes (RFC 8259 section 8.2): `\ud83d` without its other half is not a character. Programs
//! that cut a string in the middle of an emoji produce it.

use std::borrow::Cow;

/// Replaces an unpaired surrogate: the escape of U+FFFD, which has the same length.
const REPLACEMENT: &str = "\\ufffd";
/// Length of an escape.
const ESCAPE: usize = REPLACEMENT.len();

/// Byte index of the first unpaired surrogate escape in a JSON text.
pub fn first_lone_surrogate(text: &str) -> Option<usize> {
    next_lone(text.as_bytes(), 0)
}

/// Replaces each unpaired surrogate escape with the escape of U+FFFD.
pub fn replace_lone_surrogates_in(text: &str) -> Cow<'_, str> {
    let Some(mut at) = first_lone_surrogate(text) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    loop {
        out.push_str(&text[copied..at]);
        out.push_str(REPLACEMENT);
        copied = at + ESCAPE;
        match next_lone(text.as_bytes(), copied) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn next_lone(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < text.len() {
        if text[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(text, at) {
            Some(0xd800..=0xdbff) if matches!(unit(text, at + ESCAPE), Some(0xdc00..=0xdfff)) => at += 2 * ESCAPE,
            Some(0xd800..=0xdfff) => return Some(at),
            Some(_) => at += ESCAPE,
            // Skip another escape as a whole: it may be an escaped backslash, which does not start an escape.
            None => at += 2,
        }
    }
    None
}

/// The UTF-16 code unit encoded by the escape at `at`.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let escape = text.get(at..at + ESCAPE)?;
    let digits = escape.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_found_and_replaced() {
        for (text, first, replaced) in [
            (r#""a\ud83d""#, Some(2), r#""a\ufffd""#),
            (r#""\udc00x""#, Some(1), r#""\ufffdx""#),
            (r#""\ud83d\ud83d\ude00\ude00""#, Some(1), r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\uD83Dx\uDE00""#, Some(1), r#""\ufffdx\ufffd""#),
            (r#""\ud83d\n""#, Some(1), r#""\ufffd\n""#),
            (r#""\ud83d\ude00""#, None, r#""\ud83d\ude00""#),
            // An escaped backslash does not start an escape.
            (r#""\\ud83d""#, None, r#""\\ud83d""#),
            (r#""\\\ud83d""#, Some(3), r#""\\\ufffd""#),
            (r#""\u00e9\"\u""#, None, r#""\u00e9\"\u""#),
            ("\"é\\", None, "\"é\\"),
            (r#""\ud8"#, None, r#""\ud8"#),
        ] {
            assert_eq!(
                (first_lone_surrogate(text), replace_lone_surrogates_in(text).as_ref()),
                (first, replaced),
                "{text}"
            );
        }
    }
}
