//! Heads of HTTP/1 answers, as servers in the wild write them: cleaned up so far that the parser takes them.
//!
//! The yardstick is what curl and Node accept. This part sees to what the parser is strict about: blank lines before the
//! status line, its spaces and reason phrase, control bytes, and more fields than the parser has room for. The parser
//! itself is set to take the rest (see `clients`): folded lines, a space before the colon, and lines that are no field,
//! which it leaves out. A head that is still of no use is refused with the name of the field, never with its value.
//!
//! Pure: bytes in, bytes out.

use http::StatusCode;

/// Bytes of the head of an answer at the most. Below 32 KiB of names and values no server of note goes further.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Fields that are passed on at the most. Of those beyond, only the ones that decide something are.
pub(super) const FIELDS_MAX: usize = 512;
/// Fields beyond [`FIELDS_MAX`] that decide something, at the most.
pub(super) const DECIDING_MAX: usize = 32;
/// Bytes by which a head can become longer: the reason phrase of its status, if it had none.
pub(super) const GROWTH_BYTES_MAX: usize = 64;
/// Characters of a field's name in an error.
const NAME_CHARS_MAX: usize = 64;

/// Fields that decide how an answer is read or what it means.
const DECIDING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "retry-after", "webhook-delivery"];

/// Why a head is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the answer does not begin as HTTP/1 does")]
    NotHttp,
    #[error("the status line of the answer is not `HTTP/1.1` and a status of three digits")]
    StatusLine,
    #[error("the head of the answer is longer than {HEAD_BYTES_MAX} bytes, {0}")]
    TooLong(Whereabouts),
    #[error("the connection ended within the head of the answer, {0}")]
    Ended(Whereabouts),
    #[error("the field `content-length` of the answer is not a number")]
    Length,
    #[error("the fields `content-length` of the answer contradict each other")]
    Lengths,
}

/// A place in a head, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    StatusLine,
    Field(String),
}

impl std::fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StatusLine => f.write_str("in its status line"),
            Self::Field(name) => write!(f, "in the field `{name}`"),
        }
    }
}

/// A head that can be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clean {
    pub(super) bytes: Vec<u8>,
    /// Whether another head follows (RFC 9110 section 15.2). 101 is final: after it the connection is no longer HTTP/1.
    pub(super) is_interim: bool,
}

/// Where the first head of `bytes` ends: after its blank line. None before `from` bytes were looked at again.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(2).max(leading_blank(bytes));
    (from..bytes.len()).find_map(|at| match &bytes[at..] {
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// Refuses an incomplete head that can never become one, or is too long. `bytes`: all that came of it so far.
pub(super) fn check_begin(bytes: &[u8]) -> Result<(), HeadError> {
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
    Err(HeadError::TooLong(whereabouts(&bytes[leading_blank(bytes)..])))
}

/// For a connection that ended after these bytes of a head.
pub(super) fn ended(bytes: &[u8]) -> HeadError {
    HeadError::Ended(whereabouts(&bytes[leading_blank(bytes)..]))
}

/// Cleans a whole head, its blank line included.
pub(super) fn clean(head: &[u8]) -> Result<Clean, HeadError> {
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
    let (mut count, mut deciding, mut is_kept) = (0, 0, true);
    for (nth, line) in fields.iter().enumerate() {
        // A blank before the first field continues nothing; the parser would refuse it.
        let line = if nth == 0 { trim_blanks(line) } else { line };
        if !is_continuation(line) {
            let decides = count >= FIELDS_MAX && DECIDING.iter().any(|name| is_field(line, name));
            is_kept = content(line).is_empty() || count < FIELDS_MAX || decides && deciding < DECIDING_MAX;
            count += 1;
            deciding += usize::from(decides);
        }
        if is_kept {
            let text = content(line);
            bytes.extend(text.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }));
            bytes.extend_from_slice(&line[line.len() - ending(line)..]);
        }
    }
    Ok(Clean { bytes, is_interim: status_line.is_interim() })
}

struct StatusLine {
    minor: u8,
    status: u16,
}

impl StatusLine {
    /// In either case, with any blanks in between. What follows the status is the reason phrase, which means nothing
    /// (RFC 9112 section 4) and is left out.
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

    /// Transfer codings came with HTTP/1.1. Servers that name the older version and use one are read all the same.
    fn write(&self, has_transfer_encoding: bool, bytes: &mut Vec<u8>) {
        let minor = if has_transfer_encoding { 1 } else { self.minor };
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        bytes
            .extend_from_slice(format!("HTTP/1.{minor} {} {}\r\n", self.status, reason.unwrap_or_default()).as_bytes());
    }
}

/// One length, even if it is given several times (RFC 9110 section 8.6).
fn check_lengths(fields: &[&[u8]]) -> Result<(), HeadError> {
    let mut known = None;
    for line in fields.iter().filter(|line| is_field(line, "content-length")) {
        let value = line.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
        for part in value.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let digits = std::str::from_utf8(part).ok().filter(|_| part.iter().all(u8::is_ascii_digit));
            // The parser's own limit, below which no body can be that long.
            let length = digits.and_then(|digits| digits.parse().ok()).filter(|length| *length < u64::MAX - 1);
            let length: u64 = length.ok_or(HeadError::Length)?;
            if *known.get_or_insert(length) != length {
                return Err(HeadError::Lengths);
            }
        }
    }
    Ok(())
}

fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Whether a line is a field of that name, with or without blanks before the colon.
fn is_field(line: &[u8], name: &str) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| line[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()))
}

/// Neither a text nor a tab (RFC 9110 section 5.5 has a recipient replace them).
fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < b' ' || byte == 0x7f)
}

/// The place of the last line that began.
fn whereabouts(head: &[u8]) -> Whereabouts {
    let lines = head.split_inclusive(|byte| *byte == b'\n').enumerate();
    let last = lines.filter(|(_, line)| !is_continuation(line) && !content(line).is_empty()).last();
    match last {
        None | Some((0, _)) => Whereabouts::StatusLine,
        Some((_, line)) => {
            // Without a colon it may be part of a value that was folded badly, and values are not shown.
            let name = line.iter().position(|byte| *byte == b':').map_or(&b"..."[..], |colon| &line[..colon]);
            let name = String::from_utf8_lossy(name);
            let shown = name.trim_end().chars().map(|c| if c.is_ascii_graphic() { c } else { '?' });
            Whereabouts::Field(shown.take(NAME_CHARS_MAX).collect())
        }
    }
}

/// A line without its end.
fn content(line: &[u8]) -> &[u8] {
    &line[..line.len() - ending(line)]
}

/// Bytes of a line's end: LF, and CR before it.
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
        String::from_utf8(clean(head).unwrap().bytes).unwrap()
    }

    #[test]
    fn a_usual_head_stays_as_it_is() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: \"x\"\t; y\r\n\r\n";
        assert_eq!(cleaned(head.as_bytes()), head);
    }

    #[test]
    fn status_lines_are_read_as_clients_read_them() {
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
            assert_eq!(clean(format!("{line}\r\n\r\n").as_bytes()), Err(HeadError::StatusLine), "{line}");
        }
    }

    #[test]
    fn control_bytes_become_spaces_and_other_bytes_stay() {
        let head = b"HTTP/1.1 200 OK\r\nx-a: 1\x07\0\r2\x7f\xe4\xc3\xa4\t3\nretry-after: \x015\r\n\r\n";
        let expected = b"HTTP/1.1 200 OK\r\nx-a: 1   2 \xe4\xc3\xa4\t3\nretry-after:  5\r\n\r\n";
        assert_eq!(clean(head).unwrap().bytes, expected);
    }

    #[test]
    fn interim_answers_are_told_from_final_ones() {
        for (status, is_interim) in [(100, true), (102, true), (103, true), (199, true), (101, false), (200, false)] {
            assert_eq!(
                clean(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).unwrap().is_interim,
                is_interim,
                "{status}"
            );
        }
    }

    #[test]
    fn a_head_ends_with_its_first_blank_line() {
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n", Some(25)),
            ("HTTP/1.1 200 OK\na: b\n\nbody", Some(22)),
            ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Some(23)),
            ("HTTP/1.1 200 OK\r\na: b\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(end(bytes.as_bytes(), 0), expected, "{bytes:?}");
            // Byte by byte it comes to the same.
            let found = (1..=bytes.len()).find_map(|length| end(&bytes.as_bytes()[..length], length - 1));
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    #[test]
    fn of_too_many_fields_the_deciding_ones_are_passed_on() {
        let many: String = (0..1_500).map(|nth| format!("x{nth}: \r\n folded\r\n")).collect();
        let text = cleaned(format!("HTTP/1.1 503 x\r\n{many}Retry-After : 7\r\nlast: 1\r\n\r\n").as_bytes());
        assert!(text.contains("x511:") && !text.contains("x512:") && !text.contains("last"), "{text}");
        assert!(text.ends_with("\r\n folded\r\nRetry-After : 7\r\n\r\n"), "{text}");
        let lengths = "content-length: 0\r\n".repeat(1_000);
        let text = cleaned(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n").as_bytes());
        assert_eq!(text.matches("content-length").count(), FIELDS_MAX + DECIDING_MAX);
    }

    #[test]
    fn lengths_have_to_agree() {
        for (fields, expected) in [
            ("content-length: 5\r\n", Ok(())),
            ("content-length: 5, 5\r\nContent-Length : 5\r\n", Ok(())),
            ("content-length: 5\r\ncontent-length: 6\r\n", Err(HeadError::Lengths)),
            ("content-length: 5, 6\r\n", Err(HeadError::Lengths)),
            ("content-length: five\r\n", Err(HeadError::Length)),
            ("content-length: -5\r\n", Err(HeadError::Length)),
            ("content-length: +5\r\n", Err(HeadError::Length)),
            ("content-length: \r\n", Err(HeadError::Length)),
            ("content-length: 99999999999999999999\r\n", Err(HeadError::Length)),
            ("content-length: 5, 6\r\ntransfer-encoding: chunked\r\n", Ok(())),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(clean(head.as_bytes()).map(drop), expected, "{fields}");
        }
        assert!(clean(b"HTTP/1.1 204 x\r\ncontent-length: a\r\n\r\n").is_ok(), "there is no body to measure");
    }

    #[test]
    fn a_transfer_coding_of_http_1_0_is_read() {
        let text = cleaned(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }

    #[test]
    fn what_is_of_no_use_is_named_without_its_value() {
        let long = format!("HTTP/1.1 200 OK\r\na: b\r\nx-long: hush{}", "x".repeat(HEAD_BYTES_MAX));
        let refused = check_begin(long.as_bytes()).unwrap_err().to_string();
        assert!(refused.ends_with("longer than 32768 bytes, in the field `x-long`"), "{refused}");
        for (bytes, expected) in [
            ("HTTP/1.1 2", "in its status line"),
            ("HTTP/1.1 200 OK\r\n", "in its status line"),
            ("HTTP/1.1 200 OK\r\nset-cookie: hush\r\n hush", "in the field `set-cookie`"),
            ("HTTP/1.1 200 OK\r\na: b\r\nhush", "in the field `...`"),
            ("HTTP/1.1 200 OK\r\nb\x1bd: hush", "in the field `b?d`"),
        ] {
            assert!(check_begin(bytes.as_bytes()).is_ok());
            let refused = ended(bytes.as_bytes()).to_string();
            assert!(refused.ends_with(expected) && !refused.contains("hush"), "{refused}");
        }
        for begin in ["SSH-2.0", "220 mail", "\x15\x03\x01", "<html>"] {
            assert_eq!(check_begin(begin.as_bytes()), Err(HeadError::NotHttp), "{begin:?}");
        }
        assert_eq!(check_begin(b"\r\nhTt"), Ok(()));
    }
}
