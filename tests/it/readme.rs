//! Runs the tutorial `docs/tutorial/first-filter.md`, and compares README with the program.
//!
//! The tutorial's blocks whose info string says `test` run in order in an empty folder outside the repository: blocks with
//! `file=PATH` are written to that file, `sh` blocks are run. All run in one shell, as in a reader's terminal, so a
//! variable that one block sets is available to the next.
//!
//! A block that says `output` is the output of the block before it, and README's `demo` block is an excerpt of the
//! demo's output; figures and ids may differ. With `SETGATE_WRITE_SAMPLES=1` in the environment the output samples are
//! rewritten.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use setgate_tests::{Host, place};
use tokio::process::Command;

const TUTORIAL: &str = "docs/tutorial/first-filter.md";
/// The first filter is compiled with its dependencies, and the compiler may have to be installed first.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Variables that cargo or the tests set and that a reader's terminal does not have. The compiler's own libraries would
/// break another compiler; the toolchain stays the pinned one.
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

/// A tested block.
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
    /// The output of the block before it.
    Output,
}

/// The tested blocks of a page.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut text = String::new();
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            text.push_str(line);
            text.push('\n');
        }
        let words: Vec<_> = info.split_whitespace().collect();
        let what = if words.contains(&"output") {
            What::Output
        } else if words.contains(&"test") {
            let file = words.iter().find_map(|word| word.strip_prefix("file="));
            file.map_or(What::Run, |file| What::Write(file.to_owned()))
        } else {
            continue;
        };
        found.push(Block { line: number + 1, what, text });
    }
    found
}

/// One script of all blocks. The files to write are prepared in `staged`, by number.
fn script(blocks: &[Block], staged: &Path) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        writeln!(script, "echo '{}'", marker(block.line)).expect("a string can be written to");
        match &block.what {
            What::Run => script.push_str(&block.text),
            What::Output => {}
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

/// The line that the script prints before the output of a block.
fn marker(line: usize) -> String {
    format!("== {TUTORIAL}:{line}")
}

fn read(path: &str) -> String {
    let file = place::root().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[tokio::test]
async fn tutorial_runs_as_written() {
    let tutorial = read(TUTORIAL);
    let blocks = blocks(&tutorial);
    assert!(blocks.len() > 10, "{TUTORIAL} has only {} tested blocks", blocks.len());

    let (folder, staged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (status, said) = in_a_terminal(&script(&blocks, staged.path()), folder.path(), staged.path()).await;
    assert!(status.success(), "a block of the tutorial fails ({status}), the last one in this output:\n{said}");

    let mut written = tutorial.clone();
    for pair in blocks.windows(2).filter(|pair| pair[1].what == What::Output) {
        let printed = printed(&said, pair[0].line);
        if std::env::var_os("SETGATE_WRITE_SAMPLES").is_some() {
            written = written.replacen(&pair[1].text, &printed, 1);
            continue;
        }
        assert_eq!(masked(&pair[1].text), masked(&printed), "the sample at {TUTORIAL}:{}", pair[1].line);
    }
    if written != tutorial {
        std::fs::write(place::root().join(TUTORIAL), written).unwrap();
    }
    faults_name_the_authors_function(folder.path(), staged.path()).await;
}

#[test]
fn readme_filter_is_the_tutorials() {
    let (readme, tutorial) = (read("README.md"), read(TUTORIAL));
    let (_, filter) = readme.split_once("```rust file=src/lib.rs\n").expect("README shows a filter");
    let (filter, _) = filter.split_once("```").unwrap();
    let is_lib = |block: &&Block| block.what == What::Write("src/lib.rs".to_owned());
    let blocks = blocks(&tutorial);
    let lib = blocks.iter().find(is_lib).expect("the tutorial writes src/lib.rs");
    assert!(lib.text.starts_with(filter), "README's filter differs from the one of {TUTORIAL}, which is run");
}

#[test]
fn readme_commands_are_those_of_the_ci() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    let (_, commands) = readme.split_once("```sh\n").expect("README has its commands in a block");
    let (commands, _) = commands.split_once("```").unwrap();
    let commands: Vec<_> = commands.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let runs = |line: &str| line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        assert!(ci.lines().any(runs), ".ci/run does not run README's `{command}`");
    }
}

/// Runs a script as a reader runs the tutorial's blocks. Returns its exit status and its output.
async fn in_a_terminal(script: &str, folder: &Path, staged: &Path) -> (ExitStatus, String) {
    let setgate = place::setgate();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(setgate.parent().unwrap().to_owned()).chain(std::env::split_paths(&path)));
    // In a process group of its own, so that a host that the tutorial starts ends with the story.
    let output = staged.join("output");
    let log = std::fs::File::create(&output).unwrap();
    let mut shell = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if OF_A_TEST.iter().any(|prefix| name.starts_with(prefix)) {
            shell.env_remove(name);
        }
    }
    shell.args(["-c", script]).current_dir(folder).process_group(0).kill_on_drop(true);
    shell.env("SETGATE_REPO", place::root()).env("PATH", path.unwrap());
    shell.env("XDG_CACHE_HOME", staged.join("cache"));
    shell.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut shell = shell.spawn().expect("bash is installed");
    let group = shell.id().expect("it runs");
    let ended = tokio::time::timeout(DEADLINE, shell.wait()).await;
    let _all_may_be_gone = Command::new("kill").args(["-TERM", "--", &format!("-{group}")]).output().await;
    let said = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
    let status = ended.unwrap_or_else(|_| panic!("the blocks do not end:\n{said}")).unwrap();
    (status, said)
}

/// A filter that faults in the way that the event names.
const FAULTY: &str = r#"
use setgate_sdk::{Event, Result, Verdict};

setgate_sdk::export!(filter);

fn filter(event: &Event) -> Result<Verdict> {
    let text = event.text(["/text"]).unwrap_or_default();
    match event.text(["/way"]).unwrap_or_default() {
        "unwrap" => rules::parse(text),
        "index" => rules::pick(&[1, 2, 3], text.len() + 7),
        "assert" => rules::compare(text.len()),
        "spin" => rules::spin(text.len()),
        "grab" => rules::grab(text.len()),
        _ => Err(setgate_sdk::Failure::permanent("one line\nand another")),
    }
}

mod rules {
    use super::*;

    #[inline(never)]
    pub fn parse(text: &str) -> Result<Verdict> {
        let number: u32 = text.parse().unwrap();
        Ok(Verdict::drop_because(number.to_string()))
    }

    #[inline(never)]
    pub fn pick(of: &[u32], at: usize) -> Result<Verdict> {
        Ok(Verdict::drop_because(of[at].to_string()))
    }

    #[inline(never)]
    pub fn compare(length: usize) -> Result<Verdict> {
        assert_eq!(length, 1_000, "the length of {length}");
        Ok(Verdict::pass())
    }

    #[inline(never)]
    pub fn spin(length: usize) -> Result<Verdict> {
        let mut number = length as u64;
        while std::hint::black_box(number) != u64::MAX {
            number = std::hint::black_box(number / 3 + 1);
        }
        Ok(Verdict::pass())
    }

    #[inline(never)]
    pub fn grab(length: usize) -> Result<Verdict> {
        let mut held = Vec::new();
        while held.len() < length + (1 << 20) {
            held.push(std::hint::black_box(vec![length as u8; 1 << 20]));
        }
        Ok(Verdict::drop_because(held.len().to_string()))
    }
}
"#;

/// A fault contains the panic's message and a function of the author's own code, and no frames of the runtime.
async fn faults_name_the_authors_function(folder: &Path, staged: &Path) {
    std::fs::write(folder.join("src/lib.rs"), FAULTY).unwrap();
    let ways = ["unwrap", "index", "assert", "spin", "grab", "fail"];
    for way in ways {
        let body = serde_json::json!({
            "iss": "https://idp.example.com", "jti": way, "iat": 1_767_225_600,
            "events": {"https://idp.example.com/e": {"way": way, "text": "seven"}},
        });
        std::fs::write(folder.join(format!("{way}.json")), body.to_string()).unwrap();
    }
    let script = r#"
        set -uo pipefail
        (
          eval "$(cd "$SETGATE_REPO" && cargo xtask guests --env)"
          cargo build --release --target wasm32-unknown-unknown
        ) || exit 7
        echo "== runs"
        setgate filter run target/wasm32-unknown-unknown/release/mask_address.wasm --json --event \
          unwrap.json index.json assert.json spin.json grab.json fail.json
        echo "exit $?""#;
    let (_, said) = in_a_terminal(script, folder, staged).await;
    let (_, runs) = said.split_once("== runs\n").unwrap_or_else(|| panic!("it is not built:\n{said}"));
    let lines: Vec<_> = runs.lines().collect();
    assert_eq!(lines.len(), ways.len() + 1, "{said}");
    assert_eq!(lines[ways.len()], "exit 1", "a fault is not a success");
    let fault = |at: usize| serde_json::from_str::<serde_json::Value>(lines[at]).unwrap()["run"]["fault"].clone();
    let detail = |at: usize| fault(at)["detail"].as_str().unwrap_or_default().to_owned();
    let line_of = |part: &str| 1 + FAULTY.lines().position(|line| line.contains(part)).expect("a line of the filter");
    let unwrap = detail(0);
    assert!(unwrap.starts_with("called `Result::unwrap()` on an `Err` value: ParseIntError"), "{unwrap}");
    assert!(
        unwrap.contains(&format!("in mask_address::rules::parse (src/lib.rs:{}:", line_of(".unwrap();"))),
        "{unwrap}"
    );
    let index = detail(1);
    assert!(index.starts_with("index out of bounds: the len is 3 but the index is 12, in mask_address::rules::pick ("));
    let assert = detail(2);
    let expected =
        "assertion `left == right` failed: the length of 5\n  left: 5\n right: 1000\nin mask_address::rules::compare (";
    assert!(assert.starts_with(expected), "{assert}");
    for at in 0..3 {
        let runtime = ["core::", "std::", "setgate_sdk::", "rust_begin_unwind", "#process", "_ZN", "_RN"];
        assert!(runtime.iter().all(|part| !detail(at).contains(part)), "{}", detail(at));
    }
    assert_eq!((&fault(3)["kind"], &fault(3)["function"]), (&"fuel".into(), &"mask_address::rules::spin".into()));
    assert_eq!((&fault(4)["kind"], &fault(4)["function"]), (&"memory".into(), &"mask_address::rules::grab".into()));
    assert_eq!(fault(5)["reason"], "one line\nand another", "line breaks stay");
}

/// The output of the block at a line.
fn printed(said: &str, line: usize) -> String {
    let begin = format!("{}\n", marker(line));
    let (_, rest) = said.split_once(&begin).unwrap_or_else(|| panic!("no output of {TUTORIAL}:{line}:\n{said}"));
    let (printed, _) = rest.split_once(&format!("== {TUTORIAL}:")).unwrap_or((rest, ""));
    printed.to_owned()
}

/// Lines without the parts that differ from run to run: figures, digests, and the widths of columns.
fn masked(text: &str) -> Vec<String> {
    let mask = |word: &str| {
        let mut masked = String::new();
        for c in word.chars() {
            let is_figure = c.is_ascii_digit() || (matches!(c, ',' | '.') && masked.ends_with('#'));
            if !is_figure {
                masked.push(c);
            } else if !masked.ends_with('#') {
                masked.push('#');
            }
        }
        masked
    };
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let line = |line: &str| {
        let words = line.split_whitespace().map(|word| if is_number(word) { mask(word) } else { word.to_owned() });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn readme_demo_excerpt_is_current() {
    let readme = read("README.md");
    let (_, sample) = readme.split_once("```text demo\n").expect("README has an excerpt of the demo's output");
    let (sample, _) = sample.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Host::command(folder.path());
    demo.args(["demo", "--once", "--filters"]).arg(place::filters());
    let ran = tokio::time::timeout(DEADLINE, demo.output()).await.expect("the demo ends").unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    let printed = masked(&said);
    for line in masked(sample).iter().filter(|line| *line != "...") {
        assert!(printed.contains(line), "the demo does not print `{line}`, but:\n{said}");
    }
}

#[tokio::test]
async fn help_names_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let help = Host::command(folder.path()).arg("--help").output().await.unwrap();
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["serve", "demo", "filter", "emit"] {
        assert!(text.contains(command), "`setgate --help` names `{command}`: {text}");
    }
}

#[test]
fn tested_blocks_are_found_and_figures_masked() {
    let markdown = "# Page\ntext\n```sh\nnot tested\n```\n```rust file=src/lib.rs test\nfn x() {}\n```\n\
                    ## Upload\n```sh test\n# run\n```\n```text output\ntime 5 us\n```\n";
    let block = |line, what, text: &str| Block { line, what, text: text.to_owned() };
    let expected = [
        block(6, What::Write("src/lib.rs".to_owned()), "fn x() {}\n"),
        block(10, What::Run, "# run\n"),
        block(13, What::Output, "time 5 us\n"),
    ];
    assert_eq!(blocks(markdown), expected);
    let said = format!("{}\ntime 7 us\n{}\nmore", marker(2), marker(9));
    assert_eq!(printed(&said, 2), "time 7 us\n");
    assert_eq!(masked("time      1,234 us\n\n"), masked("time 5 us"), "figures differ");
    assert_ne!(masked("verdict patch"), masked("verdict pass"));
}
