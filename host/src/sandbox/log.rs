//! What a filter logs: kept for the delivery's record, within a bound.

use crate::domain::verdict::{LogLevel, LogLine};

/// What a line costs beside its text, so that empty lines are bounded too.
const LINE_OVERHEAD_BYTES: u64 = 16;

/// The lines of one call.
pub(super) struct Log {
    lines: Vec<LogLine>,
    bytes: u64,
    bytes_max: u64,
    cut: bool,
    /// What came through stdout and stderr without its line's end yet.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Which of a WASI guest's two output streams.
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
    /// An empty log that takes `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { lines: Vec::new(), bytes: 0, bytes_max, cut: false, stdout: Vec::new(), stderr: Vec::new() }
    }

    /// Takes a line. What is over the bound is cut, and noted in [`Log::finish`].
    pub(super) fn write(&mut self, level: LogLevel, text: &str) {
        let left = self.bytes_max.saturating_sub(self.bytes).saturating_sub(LINE_OVERHEAD_BYTES);
        if left == 0 {
            self.cut = true;
            return;
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        // Cut before and after: a replaced character may be longer than what it replaces.
        let replaced = printable(cut_to(text, left));
        let kept = cut_to(&replaced, left).to_owned();
        self.cut |= text.len() > left || kept.len() < replaced.len();
        let text = kept;
        self.bytes += text.len() as u64 + LINE_OVERHEAD_BYTES;
        self.lines.push(LogLine { level, text });
    }

    /// Takes bytes of a stream; whole lines become lines of the log.
    pub(super) fn write_stdio(&mut self, stream: Stdio, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.pending(stream).extend_from_slice(&bytes[..end]);
            self.flush_line(stream);
            bytes = &bytes[end + 1..];
        }
        let room = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        let pending = self.pending(stream);
        let room = room.saturating_sub(pending.len());
        pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    /// The lines, with a last one that says so where something was cut.
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
        self.write(stream.level(), String::from_utf8_lossy(&line).trim_end_matches('\r'));
    }
}

/// The longest start of `text` of at most `bytes_max` bytes that ends between two characters.
pub(super) fn cut_to(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// `text` with every character that could move a cursor, hide or reorder text replaced.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c != '\t' && (c.is_control() || is_bidi_control(c)) { '\u{fffd}' } else { c }).collect()
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let mut log = Log::new(100);
        for _ in 0..1_000 {
            log.write(LogLevel::Info, "");
        }
        log.write(LogLevel::Info, &"x".repeat(1 << 20));
        let lines = log.finish();
        assert!(lines.len() <= 8, "{}", lines.len());
        assert_eq!(lines.last().unwrap().text, "[cut: `log_bytes_max` is 100]");
    }

    #[test]
    fn a_cut_falls_between_two_characters() {
        let mut log = Log::new(LINE_OVERHEAD_BYTES + 3);
        log.write(LogLevel::Info, "äöü");
        assert_eq!(log.finish()[0].text, "ä");
    }

    #[test]
    fn a_line_cannot_steer_a_terminal() {
        let mut log = Log::new(100);
        log.write(LogLevel::Warn, "a\u{1b}[2J\r\nb\u{202e}");
        assert_eq!(log.finish()[0].text, "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn streams_become_lines() {
        let mut log = Log::new(1_000);
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
}
