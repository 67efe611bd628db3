//! The README's first filter, done by a machine: its code blocks run in an empty folder outside the repository.
//!
//! In the section "Your first filter", blocks whose info string says `test` are taken in order: those with
//! `file=PATH` are written to that file, those of `sh` are run. All run in one shell, as a reader has one terminal:
//! what a block sets is there for the next.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use setgate_tests::{Host, place};
use tokio::process::Command;

const SECTION: &str = "Your first filter";
/// The first filter is compiled with its dependencies, and perhaps a toolchain has to be found.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// What cargo sets for a test, or for this project alone, and is not there in a reader's terminal. The compiler's own
/// libraries would get in the way of another compiler; the toolchain stays the pinned one.
const OF_A_TEST: &[&str] = &[
    "SETGATE_",
    "LD_LIBRARY_PATH",
    "CARGO_BIN_EXE_",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_",
];

/// A block that is tested.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The line of its fence.
    line: usize,
    what: What,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Run,
    Write(String),
}

/// The tested blocks of the section.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut level = None;
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let mut text = String::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
                text.push_str(line);
                text.push('\n');
            }
            let words: Vec<_> = info.split_whitespace().collect();
            if level.is_some() && words.contains(&"test") {
                let file = words.iter().find_map(|word| word.strip_prefix("file="));
                let what = file.map_or(What::Run, |file| What::Write(file.to_owned()));
                found.push(Block { line: number + 1, what, text });
            }
        } else if line.starts_with('#') {
            let depth = line.bytes().take_while(|byte| *byte == b'#').count();
            if line[depth..].trim() == SECTION {
                level = Some(depth);
            } else if level.is_some_and(|level| depth <= level) {
                level = None;
            }
        }
    }
    found
}

/// One script of all blocks. Files lie ready in `staged`, by number.
fn script(blocks: &[Block], staged: &Path) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        writeln!(script, "echo '== README.md:{}'", block.line).expect("a string can be written to");
        match &block.what {
            What::Run => script.push_str(&block.text),
            What::Write(file) => {
                let from = staged.join(number.to_string());
                std::fs::write(&from, &block.text).expect("a writable folder");
                writeln!(script, "mkdir -p \"$(dirname '{file}')\" && cp '{}' '{file}'", from.display())
                    .expect("a string can be written to");
            }
        }
    }
    script
}

#[tokio::test]
async fn a_newcomer_gets_from_the_readme_to_a_filter_at_work() {
    let file = place::root().join("README.md");
    let readme = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let blocks = blocks(&readme);
    assert!(!blocks.is_empty(), "the README has no tested blocks in a section \"{SECTION}\"");

    let (folder, staged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = script(&blocks, staged.path());
    let setgate = place::setgate();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(setgate.parent().unwrap().to_owned()).chain(std::env::split_paths(&path)));
    // In a process group of its own, so that a host which the README starts ends with the story.
    let output = staged.path().join("output");
    let log = std::fs::File::create(&output).unwrap();
    let mut shell = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if OF_A_TEST.iter().any(|prefix| name.starts_with(prefix)) {
            shell.env_remove(name);
        }
    }
    shell.args(["-c", &script]).current_dir(folder.path()).process_group(0).kill_on_drop(true);
    shell.env("SETGATE_REPO", place::root()).env("PATH", path.unwrap());
    shell.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut shell = shell.spawn().expect("bash is there");
    let group = shell.id().expect("it runs");
    let ended = tokio::time::timeout(DEADLINE, shell.wait()).await;
    let _all_may_be_gone = Command::new("kill").args(["-TERM", "--", &format!("-{group}")]).output().await;

    let said = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
    let status = ended.unwrap_or_else(|_| panic!("the README's blocks do not come to an end:\n{said}")).unwrap();
    assert!(status.success(), "a block of the README fails ({status}), the last one named here:\n{said}");
}

#[tokio::test]
async fn the_help_of_the_program_names_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let help = Host::command(folder.path()).arg("--help").output().await.unwrap();
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["serve", "demo", "filter", "emit"] {
        assert!(text.contains(command), "`setgate --help` names `{command}`: {text}");
    }
}

#[test]
fn blocks_are_found_in_their_section_only() {
    let markdown = "# Setgate\n```sh test\nno\n```\n## Your first filter\ntext\n```sh\nnot tested\n```\n\
                    ```rust file=src/lib.rs test\nfn x() {}\n```\n### Upload\n```sh test\n# run\n```\n\
                    ## After\n```sh test\nno\n```\n";
    let found = blocks(markdown);
    let write = Block { line: 10, what: What::Write("src/lib.rs".to_owned()), text: "fn x() {}\n".to_owned() };
    let run = Block { line: 14, what: What::Run, text: "# run\n".to_owned() };
    assert_eq!(found, [write, run]);
}
