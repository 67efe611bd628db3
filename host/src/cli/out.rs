//! Standard output and standard error.
//!
//! Two rules apply to all output of the command line. Text from a host, an event or a filter cannot control the
//! terminal: control characters are printed as escapes. And a closed pipe (`setgate ... | head -1`) is not a crash:
//! after the first failed write nothing more is written, and [`finish`] turns the failure into the exit code.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde::Serialize;

/// Exit code if the reader of standard output is gone: the code a shell reports for SIGPIPE, 128 plus the signal's
/// number.
const READER_GONE: u8 = 128 + 13;
/// Exit code if standard output cannot be written for another reason, such as a full disk: `EX_IOERR` of sysexits.h.
const NOT_WRITTEN: u8 = 74;
/// Indent of the second and each further line of a text, so that untrusted text cannot imitate a line of the program.
pub(crate) const CONTINUED: &str = "          ";

/// The first error of writing standard output.
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

/// Prints a line. Line breaks in it are kept, and the text after them is indented.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    write(&(plain(&words.to_string()) + "\n"));
}

/// Prints a line to standard error in the same way. A failure is ignored, since there is nowhere left to report it.
pub(crate) fn error_line(words: fmt::Arguments<'_>) {
    let _nowhere_to_say_so = io::stderr().write_all((plain(&words.to_string()) + "\n").as_bytes());
}

/// Prints a document as indented JSON. Characters that could control a terminal are escaped as in JSON, so the output
/// stays valid.
pub(crate) fn json(document: &impl Serialize) -> serde_json::Result<()> {
    write(&(plain_json(&serde_json::to_string_pretty(document)?) + "\n"));
    Ok(())
}

/// Prints a document as JSON on one line.
pub(crate) fn json_line(document: &impl Serialize) -> serde_json::Result<()> {
    write(&(plain_json(&serde_json::to_string(document)?) + "\n"));
    Ok(())
}

/// Whether standard output has failed and further output is discarded.
pub(crate) fn is_closed() -> bool {
    FAILED.get().is_some()
}

/// The exit code of the program: `code`, unless its output could not be written.
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

/// Whether a character affects a terminal other than by being displayed: control characters (C0, DEL, C1), line
/// separators that terminals do not treat as such, and characters that reorder the following text.
fn controls(character: char) -> bool {
    let reorders =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Escapes everything that could control a terminal. Tabs are kept, and line breaks are followed by an indent.
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

/// Escapes JSON text likewise. Its own line breaks are between values; within strings everything below U+0020 is
/// escaped already.
fn plain_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && controls(character) {
            // All are in the basic multilingual plane, so one escape is enough.
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
