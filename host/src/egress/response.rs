//! Reads an answer, no further than it is wanted.

use std::time::UNIX_EPOCH;

use http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;

use crate::domain::attempt::Outcome;
use crate::domain::time::Timestamp;

/// Reads the body up to `bytes_max`, so that the connection can be used again, and keeps the first `bytes_kept` of
/// it. A longer body is dropped with its connection (HTTP/1) or stream (HTTP/2); the answer counts all the same.
/// `now`: when the head of the answer came.
pub(super) async fn read(
    response: Response<Incoming>,
    bytes_max: usize,
    bytes_kept: usize,
    now: Timestamp,
) -> Result<Outcome, hyper::Error> {
    let (head, mut body) = response.into_parts();
    let (mut kept, mut seen) = (Vec::new(), 0usize);
    while seen <= bytes_max
        && let Some(frame) = body.frame().await
    {
        // Trailers are nothing to us.
        let Ok(data) = frame?.into_data() else { continue };
        kept.extend_from_slice(&data[..data.len().min(bytes_kept.saturating_sub(kept.len()))]);
        seen = seen.saturating_add(data.len());
    }
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Ok(Outcome::Answered {
        status: head.status.as_u16(),
        body_head: text(&kept, bytes_kept),
        retry_after_s: retry_after.and_then(|value| retry_after_s(value, now)),
    })
}

/// Reads `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date in any of the three forms of section 5.6.7,
/// taken from `now`. A date that has passed is 0; what cannot be read is none. Whether the wish is followed, and up
/// to when, is the retry schedule's business.
pub fn retry_after_s(value: &str, now: Timestamp) -> Option<u32> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse().unwrap_or(u32::MAX));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let at = Timestamp::from_millis(i64::try_from(at.as_millis()).ok()?);
    // Rounded up: never earlier than asked.
    let seconds = at.since(now).max(0).saturating_add(999) / 1000;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

// A character cut in half at the end goes; other bytes that are no text become U+FFFD, which is longer.
fn text(bytes: &[u8], bytes_max: usize) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    let mut text = String::from_utf8_lossy(whole).into_owned();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT is the example of RFC 9110.
        let now = Timestamp::parse("1994-11-06T08:47:37.500Z").unwrap();
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999", Some(u32::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(120)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(120)),
            ("Sun Nov  6 08:49:37 1994", Some(120)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after_s(value, now), expected, "{value:?}");
        }
    }

    #[test]
    fn text_is_bounded_and_whole() {
        assert_eq!(text("aä".as_bytes(), 10), "aä");
        assert_eq!(text(&"aä".as_bytes()[..2], 2), "a");
        assert_eq!(text(&[0xff; 10], 10), "\u{fffd}".repeat(3));
    }
}
