//! Extracts a guest's own error message from the text that it wrote before it aborted.
//!
//! A guest that panics, throws or fails an assertion writes a message and ends with `unreachable` or `exit`. The
//! message goes to standard error or, through the SDK's panic hook, to the log at level `error`. The end of that text
//! is stored separately from the log, which may be full or cut by then, and is parsed when the call has faulted.

use setgate_domain::redact::Redactor;

/// Bytes of a guest's text that are stored, in addition to the longest secret that may begin in them.
const BUFFER_BYTES_MAX: usize = 16 << 10;

const PANIC: &str = "panicked at ";
const TRACEBACK: &str = "Traceback (most recent call last):";

/// The end of the text that a call wrote to standard error and to the log as errors.
#[derive(Debug, Default)]
pub(super) struct AbortMessage {
    text: Vec<u8>,
    /// Earlier text was dropped, so the first line may be incomplete.
    is_front_cut: bool,
    /// The text begins with a message that fills the buffer: later text is dropped.
    is_full: bool,
    /// Whether the last write came through standard error.
    is_stderr: bool,
}

/// A guest's message from before it aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    /// File and line, as the guest printed them.
    pub(super) location: Option<String>,
    /// The function, if the message names it. Needed for interpreters, whose script frames are not WebAssembly frames.
    pub(super) function: Option<String>,
    /// Whether this is known to be the reason, and not just the last line of output.
    pub(super) is_certain: bool,
}

impl AbortMessage {
    /// Appends text. `longest_secret_bytes` is how far a secret may extend past a cut.
    pub(super) fn push(&mut self, bytes: &[u8], is_stderr: bool, longest_secret_bytes: usize) {
        self.is_stderr = is_stderr;
        if self.is_full {
            return;
        }
        let room = BUFFER_BYTES_MAX.saturating_add(longest_secret_bytes);
        if self.text.len() + bytes.len() > room {
            self.make_room(bytes.len().min(room), room);
        }
        let from = if bytes.len() > room { start_of_message(bytes).unwrap_or(bytes.len() - room) } else { 0 };
        self.is_front_cut |= from > 0;
        let bytes = &bytes[from..];
        self.text.extend_from_slice(&bytes[..bytes.len().min(room - self.text.len())]);
    }

    /// A message that has begun is retained from its first line on. Other text is dropped oldest first, half of the
    /// buffer at a time.
    fn make_room(&mut self, more: usize, room: usize) {
        match start_of_message(&self.text) {
            Some(start) => {
                self.text.drain(..start);
                self.is_front_cut |= start > 0;
                self.is_full = self.text.len() + more > room;
            }
            None => {
                let excess = (self.text.len() + more).saturating_sub(room).max(room / 2);
                self.text.drain(..excess.min(self.text.len()));
                self.is_front_cut = true;
            }
        }
    }

    /// The redacted message of a guest that aborted. `None` if it wrote none.
    pub(super) fn message(&self, redactor: &Redactor) -> Option<Message> {
        let text = String::from_utf8_lossy(&self.text);
        let whole = match text.split_once('\n') {
            _ if !self.is_front_cut || start_of_message(&self.text) == Some(0) => &text,
            // The incomplete line may begin in the middle of a secret.
            Some((_, rest)) => rest,
            None => return None,
        };
        let text = redactor.redact_start(whole, BUFFER_BYTES_MAX).replace("\r\n", "\n");
        let panic = text.rfind(PANIC);
        let traceback = text.rfind(TRACEBACK);
        // An interpreter written in Rust panics after it printed the script's exception.
        let found = match (panic, traceback) {
            (Some(panic), Some(traceback)) if traceback < panic && !text[panic..].contains("Python") => {
                rust(&text[panic..])
            }
            (_, Some(traceback)) => python(&text[traceback..]),
            (Some(panic), None) => quoted_exception(&text[panic..]).or_else(|| rust(&text[panic..])),
            (None, None) => javascript(&text).or_else(|| self.is_stderr.then(|| last_line(&text)).flatten()),
        };
        found.filter(|message| !message.text.is_empty())
    }
}

/// Start of the line in which a panic or a traceback begins. `None` if there is none.
fn start_of_message(text: &[u8]) -> Option<usize> {
    let find = |what: &str| text.windows(what.len()).position(|bytes| bytes == what.as_bytes());
    let at = [find(PANIC), find(TRACEBACK)].into_iter().flatten().min()?;
    Some(text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |line_end| line_end + 1))
}

/// `panicked at src/lib.rs:5:10:` with the message on the next lines, or, before Rust 1.73, `panicked at 'message',
/// src/lib.rs:5:10`.
fn rust(text: &str) -> Option<Message> {
    let text = text.strip_prefix(PANIC)?;
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (location, inline) = match first.strip_prefix('\'').and_then(|quoted| quoted.rsplit_once("', ")) {
        Some((message, location)) => (Some(location), message),
        None => split_location(first),
    };
    let lines = rest.lines().take_while(|line| !is_note(line));
    let mut message = inline.to_owned();
    for line in lines {
        message.push_str(if message.is_empty() { "" } else { "\n" });
        message.push_str(line);
    }
    let message = message.trim_end().to_owned();
    Some(Message { text: message, location: location.map(str::to_owned), function: None, is_certain: true })
}

/// Whether the standard library added this line after the message of a panic.
fn is_note(line: &str) -> bool {
    line.starts_with("note: run with `RUST_BACKTRACE") || line == "stack backtrace:"
}

/// Splits `src/lib.rs:5:10: message` into the location and the message.
fn split_location(line: &str) -> (Option<&str>, &str) {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = line.match_indices(':').map(|(at, _)| at).collect::<Vec<_>>();
    for pair in numbers.windows(2) {
        let rest = &line[pair[1] + 1..];
        let column = rest.split(':').next().unwrap_or_default().trim();
        if is_number(&line[pair[0] + 1..pair[1]]) && is_number(column) {
            let end = pair[1] + 1 + column.len();
            return (Some(&line[..end]), line[end..].trim_start_matches(':').trim());
        }
    }
    (None, line)
}

/// A Python traceback: frames, innermost last, then the exception.
fn python(text: &str) -> Option<Message> {
    let mut lines = text.lines().skip(1).peekable();
    let mut frames = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
        if let Some((file, rest)) = line.trim_start().strip_prefix("File \"").and_then(|file| file.split_once('"')) {
            let mut parts = rest.trim_start_matches(", line ").splitn(2, ", in ");
            let number = parts.next().unwrap_or_default();
            frames.push((file, number, parts.next()));
        }
    }
    let said = |line: &&str| !line.is_empty() && !line.contains(PANIC);
    let message = lines.take_while(said).collect::<Vec<_>>().join("\n");
    let is_own =
        |file: &str| !file.starts_with('<') && !file.contains("/lib/python") && !file.contains("site-packages");
    let frame = frames.iter().rev().find(|(file, ..)| is_own(file)).or(frames.last());
    Some(Message {
        text: message,
        location: frame.map(|(file, line, _)| format!("{file}:{line}")),
        function: frame.and_then(|(.., function)| function.map(str::to_owned)),
        is_certain: true,
    })
}

/// The last JavaScript error with a stack: `TypeError: message`, then `    at f (app.js:3)` or `f@app.js:3:9`.
fn javascript(text: &str) -> Option<Message> {
    let lines: Vec<_> = text.lines().collect();
    let mut frames = lines.iter().enumerate().filter(|(at, line)| *at > 0 && script_frame(line).is_some());
    // The first frame of the last stack.
    let (first, _) = frames.rfind(|(at, _)| script_frame(lines[at - 1]).is_none())?;
    let mut end = first;
    while end > 0 && matches!(lines[end - 1].trim(), "Stack:" | "Stack trace:") {
        end -= 1;
    }
    let is_head = |line: &str| {
        let name = line.trim_start_matches("Uncaught ").split(':').next().unwrap_or_default().trim();
        let word = name.rsplit(' ').next().unwrap_or_default();
        word.ends_with("Error") || word.ends_with("Exception")
    };
    let begin = (0..end).rev().take(20).find(|at| is_head(lines[*at]))?;
    let is_own = |frame: &(Option<String>, Option<String>)| frame.1.is_some();
    let frames = lines[first..].iter().map_while(|line| script_frame(line));
    let (function, location) = frames.into_iter().find(is_own).unwrap_or_default();
    let message = lines[begin..end].join("\n").trim_end().to_owned();
    Some(Message { text: message, location, function, is_certain: true })
}

/// A script's exception in the debug format of a QuickJS runtime: `Exception { message: Some("..."), stack: Some("...")
/// }`.
fn quoted_exception(text: &str) -> Option<Message> {
    let (_, rest) = text.split_once("Exception { message: Some(\"")?;
    let (message, rest) = unquoted(rest)?;
    let (_, rest) = rest.split_once("stack: Some(\"")?;
    let (stack, _) = unquoted(rest)?;
    let frame = stack.lines().map_while(script_frame).find(|(_, location)| location.is_some());
    let (function, location) = frame.unwrap_or_default();
    Some(Message { text: message, location, function, is_certain: true })
}

/// Unescapes a string in Rust's debug format up to its closing quotation mark. Returns it with the rest of the text.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((plain, &text[at + 1..])),
            '\\' => plain.push(match characters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            c => plain.push(c),
        }
    }
    None
}

/// Function and location of a line in a script's stack. The interpreter's own functions have no location.
fn script_frame(line: &str) -> Option<(Option<String>, Option<String>)> {
    let line = line.trim();
    let named = |name: &str| (!name.is_empty() && name != "<anonymous>").then(|| name.to_owned());
    if let Some(frame) = line.strip_prefix("at ") {
        let Some((name, place)) = frame.rsplit_once(" (") else {
            return frame.contains(':').then(|| (None, Some(frame.to_owned())));
        };
        let place = place.strip_suffix(')')?;
        return Some((named(name), (place != "native").then(|| place.to_owned())));
    }
    let (name, place) = line.split_once('@')?;
    let is_place = place.rsplit_once(':').is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
    (is_place && !name.contains(' ')).then(|| (named(name), Some(place.to_owned())))
}

/// The last line. If it is indented, the lines before it are included, up to the last one that is not.
fn last_line(text: &str) -> Option<Message> {
    let text = text.trim_end();
    let mut begin = text.rfind('\n').map_or(0, |line_end| line_end + 1);
    while begin > 0 && text[begin..].starts_with([' ', '\t']) {
        begin = text[..begin - 1].rfind('\n').map_or(0, |line_end| line_end + 1);
    }
    let text = text[begin..].to_owned();
    (!text.is_empty()).then_some(Message { text, location: None, function: None, is_certain: false })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use setgate_domain::secret::Secret;

    fn said(text: &str) -> Option<Message> {
        let mut words = AbortMessage::default();
        words.push(text.as_bytes(), true, 0);
        words.message(&Redactor::default())
    }

    fn parts(text: &str) -> (String, Option<String>, Option<String>) {
        let message = said(text).unwrap_or_else(|| panic!("nothing in {text:?}"));
        (message.text, message.function, message.location)
    }

    fn at(location: &str) -> Option<String> {
        Some(location.to_owned())
    }

    #[test]
    fn extracts_rust_panic_message_and_location() {
        for (text, message) in [
            ("\nthread 'main' (1) panicked at src/lib.rs:5:10:\nboom\nnote: run with `RUST_BACKTRACE=1` x\n", "boom"),
            ("panicked at src/lib.rs:5:10:\nboom\n", "boom"),
            ("panicked at src/lib.rs:5:10: boom\n", "boom"),
            (
                "log line\nthread '<unnamed>' panicked at 'it''s, boom', src/lib.rs:5:10\nnote: run with `RUST_BACKTRACE`",
                "it''s, boom",
            ),
            (
                "panicked at src/lib.rs:5:10:\nassertion `left == right` failed: two: 1:2\n  left: 1\n right: 2",
                "assertion `left == right` failed: two: 1:2\n  left: 1\n right: 2",
            ),
        ] {
            assert_eq!(parts(text), (message.to_owned(), None, at("src/lib.rs:5:10")), "{text}");
        }
        assert_eq!(said("panicked at src/lib.rs:5:10:\n"), None, "there is no message");
    }

    #[test]
    fn extracts_python_exception_and_own_frame() {
        let text = "unrelated\nTraceback (most recent call last):\n  File \"/app/filter.py\", line 7, in process\n    \
            parse(x)\n  File \"/app/filter.py\", line 3, in parse\n    return json.loads(x)\n  \
            File \"/usr/lib/python3.14/json/decoder.py\", line 345, in decode\n    raise E\nValueError: bad\nin two lines\n\n\
            thread '<unnamed>' panicked at runtime/src/lib.rs:400:30:\nPython function threw an unexpected exception\n";
        assert_eq!(parts(text), ("ValueError: bad\nin two lines".into(), at("parse"), at("/app/filter.py:3")));
    }

    #[test]
    fn extracts_script_error_and_own_frame() {
        let quick = "noise\nTypeError: cannot read property 'x' of undefined\n    at map (native)\n    at look (app.js:3)\n    \
            at process (app.js:9)\n";
        let expected = ("TypeError: cannot read property 'x' of undefined".to_owned(), at("look"), at("app.js:3"));
        assert_eq!(parts(quick), expected);
        let debug = "thread '<unnamed>' (1) panicked at crates/runtime/src/interpreter.rs:51:31:\n\
            Failed to call 'process': Value(Exception(\nException { message: Some(\"bad \\\"x\\\"\"), \
            stack: Some(\"    at look (/app.js:3:5)\\n    at process (/app.js:9:1)\\n\") })\n)\n";
        assert_eq!(parts(debug), ("bad \"x\"".to_owned(), at("look"), at("/app.js:3:5")));
        let spider = "Uncaught Error: boom\nin two lines\nStack:\n  look@app.js:3:9\n  process@app.js:9:1\n";
        assert_eq!(parts(spider), ("Uncaught Error: boom\nin two lines".into(), at("look"), at("app.js:3:9")));
    }

    #[test]
    fn falls_back_to_last_line_as_uncertain() {
        let (text, ..) =
            parts("one\nterminate called after throwing an instance of 'std::runtime_error'\n  what():  boom\n");
        assert_eq!(text, "terminate called after throwing an instance of 'std::runtime_error'\n  what():  boom");
        let message = said("x\nAssertion failed: a > 0 (f.c: process: 12)\n").unwrap();
        assert_eq!((message.text.as_str(), message.is_certain), ("Assertion failed: a > 0 (f.c: process: 12)", false));
        let mut logged = AbortMessage::default();
        logged.push(b"an error of the filter's own\n", false, 0);
        assert_eq!(logged.message(&Redactor::default()), None, "a log line is no abort message");
        assert_eq!(said(""), None);
    }

    #[test]
    fn finds_message_in_large_output_within_bounds() {
        let noise = "x".repeat(99) + "\n";
        let huge = format!("panicked at src/lib.rs:5:10:\nboom {}\n", "y".repeat(1 << 20));
        for chunk in [1, 100, 4_096, 1 << 20] {
            let mut words = AbortMessage::default();
            for _ in 0..1_000 {
                words.push(noise.as_bytes(), true, 0);
            }
            for part in huge.as_bytes().chunks(chunk) {
                words.push(part, true, 0);
                assert!(words.text.len() <= BUFFER_BYTES_MAX, "{chunk}");
            }
            let message = words.message(&Redactor::default()).unwrap();
            assert!(message.text.starts_with("boom yyy"), "{chunk}: {}", &message.text[..10]);
        }
    }

    #[test]
    fn secret_across_truncation_is_fully_redacted() {
        let secrets = BTreeMap::from([("key".to_owned(), Secret::new("hunter2-and-more".to_owned()))]);
        let redactor = Redactor::new(&secrets);
        for before in 0..40 {
            let mut words = AbortMessage::default();
            for _ in 0..2_000 {
                words.push(b"hunter2-and-more ", true, redactor.recognised_bytes());
            }
            words.push("z".repeat(before).as_bytes(), true, redactor.recognised_bytes());
            words.push(b"\nthe end hunter2-and-more\n", true, redactor.recognised_bytes());
            let message = words.message(&redactor).unwrap();
            assert_eq!(message.text, "the end [secret key]");
            let mut long = AbortMessage::default();
            let text = format!("panicked at a.rs:1:1:\n{}", "-hunter2-and-more".repeat(2_000));
            long.push(&text.as_bytes()[before..], true, redactor.recognised_bytes());
            assert!(long.message(&redactor).is_none_or(|message| !message.text.contains("hun")), "{before}");
        }
    }
}
