//! Standard output and standard error, as a person at a terminal sees them.
//!
//! Two rules hold for all output of the command line. What a host, an event or a filter says cannot control the terminal:
//! control characters are shown as escapes. And a reader that goes away (`setgate ... | head -1`) is no crash: after the first
//! write that fails nothing more is written, and [`finish`] turns the failure into the exit code.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde::Serialize;

/// Exit code of a program whose reader has gone, as a shell reports one that SIGPIPE ended: 128 and the signal's number.
const READER_GONE: u8 = 128 + 13;
/// Exit code when standard output cannot be written for another reason, such as a full disk: `EX_IOERR` of sysexits.h.
const NOT_WRITTEN: u8 = 74;
/// Stands before the second line and each further line of a text, so that none passes for a line of the program's own.
pub(crate) const CONTINUED: &str = "          ";

/// Why standard output could not be written, once it could not.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints one line to standard output: see [`crate::cli::out`].
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::out::line(format_args!($($words)*)) };
}
/// Prints one line to standard error: see [`crate::cli::out`].
macro_rules! say_error {
    ($($words:tt)*) => { $crate::cli::out::error_line(format_args!($($words)*)) };
}
pub(crate) use {say, say_error};

/// Prints a line. Line breaks in it stay, with the text after them indented.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    write(&(plain(&words.to_string()) + "\n"));
}

/// Prints a line to standard error, in the same way. That it cannot be written is nobody's to know.
pub(crate) fn error_line(words: fmt::Arguments<'_>) {
    let _nowhere_to_say_so = io::stderr().write_all((plain(&words.to_string()) + "\n").as_bytes());
}

/// Prints a document as indented JSON. It stays one: what could control a terminal is escaped as JSON escapes it.
pub(crate) fn json(document: &impl Serialize) -> serde_json::Result<()> {
    write(&(plain_json(&serde_json::to_string_pretty(document)?) + "\n"));
    Ok(())
}

/// Prints a document as JSON on one line.
pub(crate) fn json_line(document: &impl Serialize) -> serde_json::Result<()> {
    write(&(plain_json(&serde_json::to_string(document)?) + "\n"));
    Ok(())
}

/// Whether what is printed from now on goes nowhere.
pub(crate) fn is_closed() -> bool {
    FAILED.get().is_some()
}

/// The exit code of a program that wants to end with `code`: another one if its output was not written.
pub(crate) fn finish(code: ExitCode) -> ExitCode {
    if let Err(error) = io::stdout().flush() {
        let _first_counts = FAILED.set(error);
    }
    match FAILED.get() {
        None => code,
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(READER_GONE),
        Some(error) => {
            say_error!("setgate: standard output cannot be written: {error}");
            ExitCode::from(NOT_WRITTEN)
        }
    }
}

fn write(text: &str) {
    if is_closed() {
        return;
    }
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        let _first_counts = FAILED.set(error);
    }
}

/// Whether a character could do something to a terminal other than show itself: control characters (C0, DEL, C1), separators of
/// lines that are none in a terminal, and those that reverse the direction of what follows.
fn controls(character: char) -> bool {
    let reorders =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}')
}

/// A text without what controls a terminal. Tabs stay, and line breaks, each with an indent behind it.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => {
                shown.push('\n');
                shown.push_str(CONTINUED);
            }
            '\t' => shown.push('\t'),
            other if controls(other) => shown.extend(other.escape_unicode()),
            other => shown.push(other),
        }
    }
    shown
}

/// The same of JSON. Its own line breaks stand between values; within strings all below U+0020 is escaped already.
fn plain_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && controls(character) {
            // None is beyond the basic plane, so that one escape is enough.
            let _infallible = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_controls_the_terminal() {
        for (given, shown) in [
            ("plain, with ümläuts and 你好 🙂", "plain, with ümläuts and 你好 🙂"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31mred", "\\u{9b}31mred"),
            ("over\rwritten", "over\\u{d}written"),
            ("back\x08space\x7f", "back\\u{8}space\\u{7f}"),
            ("\u{202e}desrever", "\\u{202e}desrever"),
            ("tab\tbed", "tab\tbed"),
        ] {
            assert_eq!(plain(given), shown);
        }
        assert_eq!(plain("first\nverdict   pass"), "first\n          verdict   pass", "no line is forged");
    }

    #[test]
    fn json_stays_json() {
        let document = serde_json::json!({"a\u{9b}": "b\u{7f}\u{2028}\u{202e}\x1b\n"});
        let shown = plain_json(&serde_json::to_string_pretty(&document).unwrap());
        assert!(!shown.chars().any(|character| character != '\n' && controls(character)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), document);
    }
}
