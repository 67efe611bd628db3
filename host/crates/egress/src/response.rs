//! Reads a response within its limits.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{HeaderName, RETRY_AFTER, SET_COOKIE};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use setgate_domain::attempt::{DeliveryDirective, Outcome};
use setgate_domain::secret::REDACTED;
use setgate_domain::time::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::Options;
use super::echo_redaction::EchoRedactor;
use super::failure::Failure;

/// The header with a [`DeliveryDirective`].
const DIRECTIVE: HeaderName = HeaderName::from_static("webhook-delivery");

/// Reads the response and converts it to an outcome. The status and the head decide the outcome (RFC 9110 section 15);
/// an incomplete body does not change it. `now` is the arrival time of the head. If the body breaks off or has not
/// ended at `end`, the outcome records the reason.
pub(super) async fn read(
    response: Response<Incoming>,
    options: &Options,
    echo: &EchoRedactor<'_>,
    now: Timestamp,
    end: Deadline,
) -> Outcome {
    let bytes_kept = options.response_bytes_kept.saturating_add(echo.recognised_bytes());
    let (head, mut body) = response.into_parts();
    let mut kept = Vec::new();
    let body_incomplete =
        match timeout_at(end.at, read_body(&mut body, options.response_bytes_max, bytes_kept, &mut kept)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(echo.line(Failure::from_error(&error).to_string().as_bytes(), usize::MAX)),
            Err(_) => Some(format!("it did not end within {} ms", end.wait.as_millis())),
        };
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    Outcome::Answered {
        status: head.status.as_u16(),
        body_head: echo.lines(&kept, options.response_bytes_kept),
        retry_after_s: header(RETRY_AFTER).and_then(|value| retry_after_s(value, now)),
        headers: stored_headers(
            &head.headers,
            echo,
            options.response_headers_stored_max,
            options.response_header_bytes_stored_max,
        ),
        directive: header(DIRECTIVE).and_then(DeliveryDirective::parse),
        body_incomplete,
    }
}

/// The deadline of a response, and its distance from the start of the attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) wait: Duration,
}

/// Reads the body up to `bytes_max`, so that the connection can be reused, and appends its first `bytes_kept` bytes to
/// `kept`. If the body is longer, its connection (HTTP/1) or stream (HTTP/2) is dropped.
async fn read_body(
    body: &mut Incoming,
    bytes_max: usize,
    bytes_kept: usize,
    kept: &mut Vec<u8>,
) -> Result<(), hyper::Error> {
    let mut seen = 0usize;
    while seen <= bytes_max
        && let Some(frame) = body.frame().await
    {
        // Trailers are ignored.
        let Ok(data) = frame?.into_data() else { continue };
        let left = bytes_kept.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(left)]);
        seen = seen.saturating_add(data.len());
    }
    Ok(())
}

/// The first headers, up to `count_max` headers and `bytes_max` bytes of names and values. The last value is truncated
/// to fit. Cookie values are redacted, because they may be secrets of the receiver.
fn stored_headers(
    headers: &HeaderMap,
    echo: &EchoRedactor<'_>,
    count_max: usize,
    bytes_max: usize,
) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    let mut remaining = bytes_max;
    for (name, value) in headers.iter().take(count_max) {
        let value = if name == SET_COOKIE { REDACTED.as_bytes() } else { value.as_bytes() };
        let name = echo.line(name.as_str().as_bytes(), usize::MAX);
        let Some(left) = remaining.checked_sub(name.len()) else { break };
        let value = echo.line(value, left);
        remaining = left - value.len();
        kept.push((name, value));
        if remaining == 0 {
            break;
        }
    }
    kept
}

/// Parses `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date in any of the three formats of section 5.6.7,
/// relative to `now`. A past date is 0, and an invalid value is `None`. The retry schedule decides whether and up to
/// which limit the value is respected.
pub fn retry_after_s(value: &str, now: Timestamp) -> Option<u32> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse().unwrap_or(u32::MAX));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let at = Timestamp::from_millis(i64::try_from(at.as_millis()).ok()?);
    // Rounded up, so that a retry is never too early.
    let seconds = at.since(now).max(0).saturating_add(999) / 1000;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::redact::Redactor;

    #[test]
    fn parses_retry_after_seconds_and_dates() {
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
    fn stored_headers_are_limited_and_cookies_redacted() {
        let pairs = [("server", "x"), ("set-cookie", "session=hush"), ("set-cookie", "b=hush"), ("etag", "12345678")];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let kept = |count_max, bytes_max| {
            let kept = stored_headers(&headers, &EchoRedactor::new(&Redactor::default(), &[]), count_max, bytes_max);
            kept.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(kept(9, 999), ["server: x", "set-cookie: ***", "set-cookie: ***", "etag: 12345678"]);
        assert_eq!(kept(2, 999), ["server: x", "set-cookie: ***"]);
        // 7 bytes, two times 13 bytes, and the remaining part of the last value.
        assert_eq!(kept(9, 40), ["server: x", "set-cookie: ***", "set-cookie: ***", "etag: 123"]);
        assert_eq!(kept(9, 36).len(), 3);
        assert_eq!(kept(9, 0), Vec::<String>::new());
    }
}
