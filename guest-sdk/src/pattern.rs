/// Whether an event type URI matches a pattern.
///
/// A match starts at the beginning of the URI or after any `/` or `:` in it, and must extend to its end. `*` matches
/// any sequence of characters, including `/`.
///
/// ```
/// use setgate_sdk::matches;
///
/// let uri = "https://schemas.identity.wso2.org/events/login/event-type/loginFailed";
/// assert!(matches("loginFailed", uri));
/// assert!(matches("login/*", uri));
/// assert!(matches("https://schemas.identity.wso2.org/*", uri));
/// assert!(!matches("Failed", uri), "a name is matched whole");
/// assert!(matches("*Failed", uri));
/// ```
pub fn matches(pattern: &str, uri: &str) -> bool {
    let starts = uri.match_indices(['/', ':']).map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).any(|start| glob(pattern.as_bytes(), &uri.as_bytes()[start..]))
}

/// Matches with one step of backtracking: the time is bounded by the product of both lengths for any pattern.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Position of the last `*`, and the position in the text up to which it matches.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_backtrack() {
        assert!(glob(b"a*b*c", b"a-b-b-c"));
        assert!(!glob(b"a*b*c", b"a-b-b-d"));
        assert!(glob(b"*", b""));
        assert!(glob(b"a**", b"a"));
        assert!(!glob(b"", b"a"));
    }

    #[test]
    fn a_pattern_begins_after_a_slash_or_a_colon() {
        assert!(matches("event-type/user.*", "https://schemas.setgate.dev/events/platform/user/event-type/user.login"));
        assert!(matches("passwordReset", "urn:ietf:params:scim:event:passwordReset"));
        assert!(!matches("Reset", "urn:ietf:params:scim:event:passwordReset"));
    }
}
