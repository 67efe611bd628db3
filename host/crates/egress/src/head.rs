//! Normalises heads of HTTP/1 responses from non-conforming servers, so that hyper's parser accepts them.
//!
//! The target is the tolerance of curl and Node. This module handles the points on which the parser is strict: blank
//! lines before the status line, spaces and reason phrase of the status line, control bytes, and more fields than the
//! parser supports. The parser itself is configured to accept folded lines and a space before the colon, and to ignore
//! invalid lines (see `clients`). A head that is still unusable is refused with an error that names the field but never
//! contains its value.
//!
//! Pure: bytes in, bytes out.

use http::StatusCode;

/// Limit for a response head in bytes. Common servers stay below 32 KiB of names and values.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Limit for the fields that are passed on. Beyond it, only the [`SIGNIFICANT_FIELDS`] ones are.
pub(super) const FIELDS_MAX: usize = 512;
/// Limit for the significant fields beyond [`FIELDS_MAX`].
pub(super) const SIGNIFICANT_FIELDS_MAX: usize = 32;
/// Bytes by which a head can grow: the reason phrase, if it was missing.
pub(super) const GROWTH_BYTES_MAX: usize = 64;
/// Limit for a field name in an error, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Fields that determine the framing or the meaning of a response.
const SIGNIFICANT_FIELDS: [&str; 5] =
    ["content-length", "transfer-encoding", "connection", "retry-after", "webhook-delivery"];

/// Why a head is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the response does not begin like HTTP/1")]
    NotHttp,
    #[error("the status line of the response is not `HTTP/1.1` and a status of three digits")]
    StatusLine,
    #[error("the response head is longer than {HEAD_BYTES_MAX} bytes, {0}")]
    TooLong(HeadPosition),
    #[error("the connection ended within the response head, {0}")]
    Truncated(HeadPosition),
    #[error("the field `content-length` of the response is not a number")]
    ContentLength,
    #[error("the fields `content-length` of the response contradict each other")]
    ContentLengthConflict,
}

/// The position of an error in a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeadPosition {
    StatusLine,
    Field(String),
}

impl std::fmt::Display for HeadPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StatusLine => f.write_str("in its status line"),
            Self::Field(name) => write!(f, "in the field `{name}`"),
        }
    }
}

/// A head that hyper can parse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NormalizedHead {
    pub(super) bytes: Vec<u8>,
    /// Whether another head follows (RFC 9110 section 15.2). 101 is final, because the connection is no longer HTTP/1
    /// after it.
    pub(super) is_interim: bool,
}

/// The end of the first head in `bytes`, after its blank line. `None` if the head is incomplete. The first `from` bytes
/// have been searched before.
pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(2).max(leading_blank(bytes));
    (from..bytes.len()).find_map(|at| match &bytes[at..] {
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// Refuses an incomplete head that is too long or does not begin like HTTP/1. `bytes` contains everything received so
/// far.
pub(super) fn check_prefix(bytes: &[u8]) -> Result<(), HeadError> {
    let begin = &bytes[leading_blank(bytes)..];
    let compared = begin.len().min(b"HTTP/".len());
    if !begin[..compared].eq_ignore_ascii_case(&b"HTTP/"[..compared]) {
        return Err(HeadError::NotHttp);
    }
    check_length(bytes)
}

fn check_length(bytes: &[u8]) -> Result<(), HeadError> {
    if bytes.len() <= HEAD_BYTES_MAX {
        return Ok(());
    }
    Err(HeadError::TooLong(error_position(&bytes[leading_blank(bytes)..])))
}

/// The error for a connection that ended after these bytes of a head.
pub(super) fn truncated(bytes: &[u8]) -> HeadError {
    HeadError::Truncated(error_position(&bytes[leading_blank(bytes)..]))
}

/// Normalises a complete head, including its blank line.
pub(super) fn normalize(head: &[u8]) -> Result<NormalizedHead, HeadError> {
    check_length(head)?;
    let mut lines = head[leading_blank(head)..].split_inclusive(|byte| *byte == b'\n');
    let status_line = StatusLine::read(content(lines.next().unwrap_or_default())).ok_or(HeadError::StatusLine)?;
    let fields: Vec<&[u8]> = lines.collect();
    let is_chunked_or_such = fields.iter().any(|line| is_field(line, "transfer-encoding"));
    if status_line.has_body() && !is_chunked_or_such {
        check_lengths(&fields)?;
    }
    let mut bytes = Vec::with_capacity(head.len() + GROWTH_BYTES_MAX);
    status_line.write(is_chunked_or_such, &mut bytes);
    let (mut count, mut significant, mut is_kept) = (0, 0, true);
    for (nth, line) in fields.iter().enumerate() {
        // A leading blank on the first field is no continuation, and the parser would refuse it.
        let line = if nth == 0 { trim_blanks(line) } else { line };
        if !is_continuation(line) {
            let is_significant = count >= FIELDS_MAX && SIGNIFICANT_FIELDS.iter().any(|name| is_field(line, name));
            is_kept = content(line).is_empty()
                || count < FIELDS_MAX
                || is_significant && significant < SIGNIFICANT_FIELDS_MAX;
            count += 1;
            significant += usize::from(is_significant);
        }
        if is_kept {
            let text = content(line);
            bytes.extend(text.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }));
            bytes.extend_from_slice(&line[line.len() - ending(line)..]);
        }
    }
    Ok(NormalizedHead { bytes, is_interim: status_line.is_interim() })
}

struct StatusLine {
    minor: u8,
    status: u16,
}

impl StatusLine {
    /// Case-insensitive, with any number of blanks between the parts. The reason phrase has no meaning (RFC 9112
    /// section 4) and is replaced.
    fn read(line: &[u8]) -> Option<Self> {
        let (name, rest) = line.split_at_checked(b"HTTP/1.".len())?;
        if !name.eq_ignore_ascii_case(b"HTTP/1.") {
            return None;
        }
        let (minor, rest) = rest.split_first().filter(|(minor, _)| minor.is_ascii_digit())?;
        let status = trim_blanks(rest);
        let (digits, after) = status.split_at_checked(3)?;
        let is_apart = status.len() < rest.len() && after.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let is_status = digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
        let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')));
        (is_apart && is_status).then_some(Self { minor: (minor - b'0').min(1), status })
    }

    fn is_interim(&self) -> bool {
        (100..=199).contains(&self.status) && self.status != 101
    }

    fn has_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Transfer codings require HTTP/1.1. Responses with HTTP/1.0 and a transfer coding are rewritten to 1.1 to be
    /// accepted.
    fn write(&self, has_transfer_encoding: bool, bytes: &mut Vec<u8>) {
        let minor = if has_transfer_encoding { 1 } else { self.minor };
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        bytes
            .extend_from_slice(format!("HTTP/1.{minor} {} {}\r\n", self.status, reason.unwrap_or_default()).as_bytes());
    }
}

/// All `content-length` values must be equal (RFC 9110 section 8.6).
fn check_lengths(fields: &[&[u8]]) -> Result<(), HeadError> {
    let mut known = None;
    for line in fields.iter().filter(|line| is_field(line, "content-length")) {
        let value = line.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
        for part in value.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let digits = std::str::from_utf8(part).ok().filter(|_| part.iter().all(u8::is_ascii_digit));
            // The parser's own limit, which no body can reach.
            let length = digits.and_then(|digits| digits.parse().ok()).filter(|length| *length < u64::MAX - 1);
            let length: u64 = length.ok_or(HeadError::ContentLength)?;
            if *known.get_or_insert(length) != length {
                return Err(HeadError::ContentLengthConflict);
            }
        }
    }
    Ok(())
}

fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Whether a line is a field of that name. Blanks before the colon are ignored.
fn is_field(line: &[u8], name: &str) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| line[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()))
}

/// Control characters other than a tab, which a recipient may replace with spaces (RFC 9110 section 5.5).
fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < b' ' || byte == 0x7f)
}

/// The position of the last line that has begun.
fn error_position(head: &[u8]) -> HeadPosition {
    let lines = head.split_inclusive(|byte| *byte == b'\n').enumerate();
    let last = lines.filter(|(_, line)| !is_continuation(line) && !content(line).is_empty()).last();
    match last {
        None | Some((0, _)) => HeadPosition::StatusLine,
        Some((_, line)) => {
            // A line without a colon may be part of a badly folded value, and values are never shown.
            let name = line.iter().position(|byte| *byte == b':').map_or(&b"..."[..], |colon| &line[..colon]);
            let name = String::from_utf8_lossy(name);
            let shown = name.trim_end().chars().map(|c| if c.is_ascii_graphic() { c } else { '?' });
            HeadPosition::Field(shown.take(NAME_CHARS_MAX).collect())
        }
    }
}

/// A line without its line ending.
fn content(line: &[u8]) -> &[u8] {
    &line[..line.len() - ending(line)]
}

/// Length of the line ending: LF, or CR LF.
fn ending(line: &[u8]) -> usize {
    match line {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    }
}

fn leading_blank(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

fn trim_blanks(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(head: &[u8]) -> String {
        String::from_utf8(normalize(head).unwrap().bytes).unwrap()
    }

    #[test]
    fn valid_head_is_unchanged() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: \"x\"\t; y\r\n\r\n";
        assert_eq!(cleaned(head.as_bytes()), head);
    }

    #[test]
    fn parses_lenient_status_lines() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"),
            ("HTTP/1.1 200", "HTTP/1.1 200 OK"),
            ("HTTP/1.1 200 ", "HTTP/1.1 200 OK"),
            ("HTTP/1.1  200   All\x07 right", "HTTP/1.1 200 OK"),
            ("HTTP/1.0 503 \0\x1b[31m", "HTTP/1.0 503 Service Unavailable"),
            ("http/1.1 404 ", "HTTP/1.1 404 Not Found"),
            ("HTTP/1.1 299 Odd", "HTTP/1.1 299 "),
            ("\r\n\nHTTP/1.1 204 No Content", "HTTP/1.1 204 No Content"),
        ] {
            assert_eq!(cleaned(format!("{line}\r\n\r\n").as_bytes()), format!("{expected}\r\n\r\n"), "{line}");
        }
        for line in ["HTTP/2 200 OK", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099 x", "HTTP/1.1200 OK", "HTTP/1.1 OK"]
        {
            assert_eq!(normalize(format!("{line}\r\n\r\n").as_bytes()), Err(HeadError::StatusLine), "{line}");
        }
    }

    #[test]
    fn control_bytes_become_spaces() {
        let head = b"HTTP/1.1 200 OK\r\nx-a: 1\x07\0\r2\x7f\xe4\xc3\xa4\t3\nretry-after: \x015\r\n\r\n";
        let expected = b"HTTP/1.1 200 OK\r\nx-a: 1   2 \xe4\xc3\xa4\t3\nretry-after:  5\r\n\r\n";
        assert_eq!(normalize(head).unwrap().bytes, expected);
    }

    #[test]
    fn distinguishes_interim_from_final_responses() {
        for (status, is_interim) in [(100, true), (102, true), (103, true), (199, true), (101, false), (200, false)] {
            assert_eq!(
                normalize(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).unwrap().is_interim,
                is_interim,
                "{status}"
            );
        }
    }

    #[test]
    fn head_ends_at_first_blank_line() {
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n", Some(25)),
            ("HTTP/1.1 200 OK\na: b\n\nbody", Some(22)),
            ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Some(23)),
            ("HTTP/1.1 200 OK\r\na: b\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(end_of_head(bytes.as_bytes(), 0), expected, "{bytes:?}");
            // Feeding the input byte by byte has the same result.
            let found = (1..=bytes.len()).find_map(|length| end_of_head(&bytes.as_bytes()[..length], length - 1));
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    #[test]
    fn significant_fields_beyond_the_limit_are_passed_on() {
        let many: String = (0..1_500).map(|nth| format!("x{nth}: \r\n folded\r\n")).collect();
        let text = cleaned(format!("HTTP/1.1 503 x\r\n{many}Retry-After : 7\r\nlast: 1\r\n\r\n").as_bytes());
        assert!(text.contains("x511:") && !text.contains("x512:") && !text.contains("last"), "{text}");
        assert!(text.ends_with("\r\n folded\r\nRetry-After : 7\r\n\r\n"), "{text}");
        let lengths = "content-length: 0\r\n".repeat(1_000);
        let text = cleaned(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n").as_bytes());
        assert_eq!(text.matches("content-length").count(), FIELDS_MAX + SIGNIFICANT_FIELDS_MAX);
    }

    #[test]
    fn conflicting_content_lengths_are_rejected() {
        for (fields, expected) in [
            ("content-length: 5\r\n", Ok(())),
            ("content-length: 5, 5\r\nContent-Length : 5\r\n", Ok(())),
            ("content-length: 5\r\ncontent-length: 6\r\n", Err(HeadError::ContentLengthConflict)),
            ("content-length: 5, 6\r\n", Err(HeadError::ContentLengthConflict)),
            ("content-length: five\r\n", Err(HeadError::ContentLength)),
            ("content-length: -5\r\n", Err(HeadError::ContentLength)),
            ("content-length: +5\r\n", Err(HeadError::ContentLength)),
            ("content-length: \r\n", Err(HeadError::ContentLength)),
            ("content-length: 99999999999999999999\r\n", Err(HeadError::ContentLength)),
            ("content-length: 5, 6\r\ntransfer-encoding: chunked\r\n", Ok(())),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(normalize(head.as_bytes()).map(drop), expected, "{fields}");
        }
        assert!(
            normalize(b"HTTP/1.1 204 x\r\ncontent-length: a\r\n\r\n").is_ok(),
            "a response without a body has no length to check"
        );
    }

    #[test]
    fn transfer_coding_in_http_1_0_is_accepted() {
        let text = cleaned(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }

    #[test]
    fn error_names_field_without_its_value() {
        let long = format!("HTTP/1.1 200 OK\r\na: b\r\nx-long: hush{}", "x".repeat(HEAD_BYTES_MAX));
        let refused = check_prefix(long.as_bytes()).unwrap_err().to_string();
        assert!(refused.ends_with("longer than 32768 bytes, in the field `x-long`"), "{refused}");
        for (bytes, expected) in [
            ("HTTP/1.1 2", "in its status line"),
            ("HTTP/1.1 200 OK\r\n", "in its status line"),
            ("HTTP/1.1 200 OK\r\nset-cookie: hush\r\n hush", "in the field `set-cookie`"),
            ("HTTP/1.1 200 OK\r\na: b\r\nhush", "in the field `...`"),
            ("HTTP/1.1 200 OK\r\nb\x1bd: hush", "in the field `b?d`"),
        ] {
            assert!(check_prefix(bytes.as_bytes()).is_ok());
            let refused = truncated(bytes.as_bytes()).to_string();
            assert!(refused.ends_with(expected) && !refused.contains("hush"), "{refused}");
        }
        for begin in ["SSH-2.0", "220 mail", "\x15\x03\x01", "<html>"] {
            assert_eq!(check_prefix(begin.as_bytes()), Err(HeadError::NotHttp), "{begin:?}");
        }
        assert_eq!(check_prefix(b"\r\nhTt"), Ok(()));
    }
}
