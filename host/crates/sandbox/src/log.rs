//! Collects a filter's log for the delivery's record, within a size limit and with its binding's secrets redacted.

use std::sync::Arc;

use setgate_domain::redact::Redactor;

pub(super) use setgate_domain::redact::printable;
use setgate_domain::verdict::{LogLevel, LogLine};

use super::abort_message::AbortMessage;

/// Added to the length of each line, so that the number of empty lines is limited too.
const LINE_OVERHEAD_BYTES: u64 = 16;

/// The log of one call.
pub(super) struct Log {
    lines: Vec<LogLine>,
    bytes: u64,
    bytes_max: u64,
    cut: bool,
    redactor: Arc<Redactor>,
    /// Partial lines of stdout and stderr.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    abort_message: AbortMessage,
}

/// The two output streams of a WASI guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stdio {
    Out,
    Err,
}

impl Stdio {
    fn level(self) -> LogLevel {
        match self {
            Self::Out => LogLevel::Info,
            Self::Err => LogLevel::Warn,
        }
    }
}

impl Log {
    /// An empty log of at most `bytes_max` bytes, redacted by `redactor`.
    pub(super) fn new(bytes_max: u64, redactor: Arc<Redactor>) -> Self {
        let (lines, abort_message) = (Vec::new(), AbortMessage::default());
        Self { lines, bytes: 0, bytes_max, cut: false, redactor, stdout: Vec::new(), stderr: Vec::new(), abort_message }
    }

    /// Appends a message, one log line for each of its lines. The excess over the limit is cut; [`Log::finish`] adds a
    /// note.
    pub(super) fn write(&mut self, level: LogLevel, text: &str) {
        if level == LogLevel::Error {
            self.abort_message.push(text.as_bytes(), false, self.redactor.recognised_bytes());
            self.abort_message.push(b"\n", false, 0);
        }
        self.write_lines(level, text);
    }

    fn write_lines(&mut self, level: LogLevel, text: &str) {
        let left = self.bytes_left();
        // Redact first, while secrets are complete and unescaped. Cut before and after that, because a replaced
        // character or the placeholder of a secret may be longer than the original.
        let redacted = self.redactor.redact_start(text, left);
        self.cut |= text.len() > left;
        let mut lines = redacted.lines();
        let mut next = Some(lines.next().unwrap_or_default());
        while let Some(line) = next {
            let left = self.bytes_left();
            if left == 0 {
                self.cut = true;
                return;
            }
            let replaced = printable(line);
            let kept = cut_to(&replaced, left).to_owned();
            self.cut |= kept.len() < replaced.len();
            self.bytes += kept.len() as u64 + LINE_OVERHEAD_BYTES;
            self.lines.push(LogLine { level, text: kept });
            next = lines.next();
        }
    }

    /// Maximum length of the next line in bytes.
    fn bytes_left(&self) -> usize {
        let left = self.bytes_max.saturating_sub(self.bytes).saturating_sub(LINE_OVERHEAD_BYTES);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The end of the text that the guest wrote to standard error or logged as errors.
    pub(super) fn abort_message(&self) -> &AbortMessage {
        &self.abort_message
    }

    /// Appends bytes of a stream. Complete lines become log lines.
    pub(super) fn write_stdio(&mut self, stream: Stdio, mut bytes: &[u8]) {
        if stream == Stdio::Err {
            self.abort_message.push(bytes, true, self.redactor.recognised_bytes());
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.pending(stream).extend_from_slice(&bytes[..end]);
            self.flush_line(stream);
            bytes = &bytes[end + 1..];
        }
        // Buffer a secret that starts within the limit completely, otherwise the redactor would not recognise its
        // beginning.
        let room =
            usize::try_from(self.bytes_max).unwrap_or(usize::MAX).saturating_add(self.redactor.recognised_bytes());
        let pending = self.pending(stream);
        let room = room.saturating_sub(pending.len());
        pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    /// Returns the lines. If something was cut, the last line is a note about it.
    pub(super) fn finish(&mut self) -> Vec<LogLine> {
        for stream in [Stdio::Out, Stdio::Err] {
            if !self.pending(stream).is_empty() {
                self.flush_line(stream);
            }
        }
        let mut lines = std::mem::take(&mut self.lines);
        if self.cut {
            let text = format!("[cut: `log_bytes_max` is {}]", self.bytes_max);
            lines.push(LogLine { level: LogLevel::Warn, text });
        }
        lines
    }

    fn pending(&mut self, stream: Stdio) -> &mut Vec<u8> {
        match stream {
            Stdio::Out => &mut self.stdout,
            Stdio::Err => &mut self.stderr,
        }
    }

    fn flush_line(&mut self, stream: Stdio) {
        let line = std::mem::take(self.pending(stream));
        self.write_lines(stream.level(), String::from_utf8_lossy(&line).trim_end_matches('\r'));
    }
}

/// The longest prefix of `text` that has at most `bytes_max` bytes and ends on a character boundary.
pub(super) fn cut_to(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Escapes multi-line text; line breaks become `\n`.
pub(super) fn printable_lines(text: &str) -> String {
    setgate_domain::redact::printable_lines(&text.replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use setgate_domain::secret::Secret;

    fn log(bytes_max: u64) -> Log {
        Log::new(bytes_max, Arc::default())
    }

    /// A log that redacts `secret`.
    fn log_with(bytes_max: u64, secret: &str) -> Log {
        let secrets = BTreeMap::from([("key".to_owned(), Secret::new(secret.to_owned()))]);
        Log::new(bytes_max, Arc::new(Redactor::new(&secrets)))
    }

    #[test]
    fn excess_log_is_cut_with_a_note() {
        let mut log = log(100);
        for _ in 0..1_000 {
            log.write(LogLevel::Info, "");
        }
        log.write(LogLevel::Info, &"x".repeat(1 << 20));
        let lines = log.finish();
        assert!(lines.len() <= 8, "{}", lines.len());
        assert_eq!(lines.last().unwrap().text, "[cut: `log_bytes_max` is 100]");
    }

    #[test]
    fn cut_is_at_character_boundary() {
        let mut log = log(LINE_OVERHEAD_BYTES + 3);
        log.write(LogLevel::Info, "äöü");
        assert_eq!(log.finish()[0].text, "ä");
    }

    #[test]
    fn control_characters_are_replaced() {
        let mut log = log(100);
        log.write(LogLevel::Warn, "a\u{1b}[2J\r\nb\u{202e}\rc");
        let texts: Vec<_> = log.finish().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["a\u{fffd}[2J", "b\u{fffd}\u{fffd}c"], "each of its lines is a log line");
    }

    #[test]
    fn streams_become_log_lines() {
        let mut log = log(1_000);
        log.write_stdio(Stdio::Out, b"one\ntw");
        log.write_stdio(Stdio::Err, b"panicked\n");
        log.write_stdio(Stdio::Out, b"o\r\nthree");
        let texts: Vec<_> = log.finish().into_iter().map(|line| (line.level, line.text)).collect();
        assert_eq!(
            texts,
            [
                (LogLevel::Info, "one".into()),
                (LogLevel::Warn, "panicked".into()),
                (LogLevel::Info, "two".into()),
                (LogLevel::Info, "three".into())
            ]
        );
    }

    #[test]
    fn secrets_are_redacted_in_log() {
        let mut log = log_with(1_000, "se\u{1b}cret");
        log.write(LogLevel::Info, "it is se\u{1b}cret, see");
        log.write_stdio(Stdio::Err, b"panicked at se\x1bc");
        log.write_stdio(Stdio::Err, b"ret\n");
        let texts: Vec<_> = log.finish().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["it is [secret key], see", "panicked at [secret key]"]);
    }

    #[test]
    fn secret_across_log_limit_is_fully_redacted() {
        for bytes_max in LINE_OVERHEAD_BYTES + 1..LINE_OVERHEAD_BYTES + 60 {
            for through_stdio in [false, true] {
                let mut log = log_with(bytes_max, "hunter2-and-more");
                let text = "a line of 20 bytes: hunter2-and-more, hunter2-and-more";
                if through_stdio {
                    log.write_stdio(Stdio::Out, text.as_bytes());
                } else {
                    log.write(LogLevel::Info, text);
                }
                let lines = log.finish();
                let kept = usize::try_from(bytes_max - LINE_OVERHEAD_BYTES).unwrap();
                assert!(lines.iter().all(|line| !line.text.contains("hu")), "{bytes_max}: {lines:?}");
                assert!(lines[0].text.len() <= kept, "{bytes_max}: {lines:?}");
                assert_eq!(lines.len(), 1 + usize::from(kept < text.len()), "{bytes_max}: {lines:?}");
            }
        }
    }

    #[test]
    fn multi_line_secret_is_redacted_per_line() {
        let mut log = log_with(1_000, "BEGIN KEY\nabcdef\nEND KEY\n");
        log.write_stdio(Stdio::Out, b"key: BEGIN KEY\nabcdef\nEND KEY\n");
        let texts: Vec<_> = log.finish().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["key: [secret key]", "[secret key]", "[secret key]"]);
    }
}
