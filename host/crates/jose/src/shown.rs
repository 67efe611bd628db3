//! Text of strangers in error messages.

/// Maximum length of shown text, in characters before escaping.
const CHARS_MAX: usize = 64;

/// A short text with control characters escaped, or the start of a long one.
pub(crate) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}
