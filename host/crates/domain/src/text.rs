//! Encoding of text from outside: byte order mark and charset.

/// UTF-8 byte order mark. Some editors and spreadsheets write one; RFC 8259 section 8.1 permits JSON parsers to ignore
/// it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Strips a leading byte order mark.
pub fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// The start of a text from a receiver, with control characters as spaces.
pub fn visible_start(text: &str, chars_max: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect()
}

/// Maximum length of the charset in the error message, in characters.
const GIVEN_CHARS_MAX: usize = 40;

/// Checks that the `charset` of a media type, if given, is UTF-8 or a subset of it.
///
/// # Errors
/// A message with the unsupported charset.
pub fn check_charset(media_type: &str) -> Result<(), String> {
    for parameter in media_type.split(';').skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        if !name.trim().eq_ignore_ascii_case("charset") {
            continue;
        }
        let value = value.trim().trim_matches(['"', '\'']).trim();
        if !UTF_8_NAMES.iter().any(|known| value.eq_ignore_ascii_case(known)) {
            let value: String = value.chars().filter(|c| !c.is_control()).take(GIVEN_CHARS_MAX).collect();
            return Err(format!("the charset `{value}` is not supported: encode the text as UTF-8"));
        }
    }
    Ok(())
}

/// Common names of UTF-8 (the registered one and a frequent misspelling) and of its subset US-ASCII.
const UTF_8_NAMES: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_bom_is_stripped_once() {
        assert_eq!(strip_bom(b"\xef\xbb\xbf{}"), b"{}");
        assert_eq!(strip_bom(b"\xef\xbb\xbf\xef\xbb\xbf{}"), b"\xef\xbb\xbf{}");
        assert_eq!(strip_bom(b" \xef\xbb\xbf{}"), b" \xef\xbb\xbf{}");
        assert_eq!(strip_bom(b"\xef\xbb"), b"\xef\xbb");
    }

    #[test]
    fn utf_8_names_are_accepted_and_others_reported() {
        for good in
            ["a/b", "a/b; charset=utf8", "a/b;charset=UTF-8", "a/b; Charset = \"Utf8\"", "a/b;v=1;charset=us-ascii"]
        {
            assert_eq!(check_charset(good), Ok(()), "{good}");
        }
        for (bad, named) in [
            ("a/b; charset=iso-8859-1", "`iso-8859-1`"),
            ("a/b; charset=\"utf-16\"", "`utf-16`"),
            ("a/b; charset=utf-8; charset=latin1", "`latin1`"),
            ("a/b; charset=", "``"),
            ("a/b; charset=utf-80", "`utf-80`"),
        ] {
            assert!(check_charset(bad).unwrap_err().contains(named), "{bad}");
        }
    }
}
