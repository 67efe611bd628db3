//! `cargo xtask fuzz`: runs the fuzz targets of `host/fuzz`, if the required tools are installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::run;

const HELP: &str = "\
cargo xtask fuzz [TARGET] [--seconds N]

  TARGET         one of upload, set, ingest, verdict, jose; by default all of them, one after another
  --seconds N    seconds for each target (default 60)

Needs a nightly toolchain and cargo-fuzz. The first run compiles everything, including the engine: 10 minutes or more.
Findings are written to host/fuzz/artifacts/TARGET, and printed with the command that repeats them.";

/// The targets, as listed in `host/fuzz/Cargo.toml`.
const TARGETS: [&str; 5] = ["upload", "set", "ingest", "verdict", "jose"];
/// Seconds after which a single input counts as hanging.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory limit (megabytes) of a target.
const MEMORY_MB_MAX: u32 = 2_048;

pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    let (targets, seconds) = read(arguments)?;
    tools()?;
    for target in targets {
        println!("fuzzing `{target}` for {seconds} s");
        let corpus = unpack(target)?;
        let run = ["run", "--fuzz-dir", "host/fuzz", "--sanitizer", "none", target];
        run::run(cargo_fuzz().args(run).arg(corpus).arg("--").args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            format!("-rss_limit_mb={MEMORY_MB_MAX}"),
            "-print_final_stats=1".to_owned(),
        ]))
        .with_context(|| format!("`{target}` broke a promise, or could not be built"))?;
    }
    Ok(())
}

/// Unpacks the committed corpus of a target to one file per input, as the fuzzer expects. The fuzzer adds its findings
/// there.
fn unpack(target: &str) -> Result<PathBuf> {
    let fuzz = run::root().join("host/fuzz");
    let packed = fuzz.join("corpus").join(format!("{target}.hex"));
    let folder = fuzz.join("target/corpus").join(target);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let inputs = std::fs::read_to_string(&packed).with_context(|| packed.display().to_string())?;
    for (line, input) in (1..).zip(inputs.lines()) {
        let bytes = bytes(input).with_context(|| format!("{}, line {line}: not hexadecimal", packed.display()))?;
        std::fs::write(folder.join(format!("line-{line:04}")), bytes)?;
    }
    Ok(folder)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Parses the targets, and the number of seconds for each.
fn read(arguments: &[String]) -> Result<(Vec<&'static str>, u32)> {
    let (mut targets, mut seconds) = (Vec::new(), 60);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seconds" {
            let given = rest.next().context("`--seconds` needs a number")?;
            seconds = given.parse().with_context(|| format!("`--seconds {given}` is not a number of seconds"))?;
            // libFuzzer interprets 0 as unlimited.
            ensure!(seconds > 0, "`--seconds` has to be at least 1");
        } else if let Some(target) = TARGETS.iter().find(|target| *target == argument) {
            targets.push(*target);
        } else {
            bail!("there is no target `{argument}`; there are {}", TARGETS.join(", "));
        }
    }
    Ok((if targets.is_empty() { TARGETS.to_vec() } else { targets }, seconds))
}

/// Checks for the required tools; the error explains how to install them.
fn tools() -> Result<()> {
    let works = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    if !works(Command::new("rustup").args(["run", "nightly", "cargo", "--version"])) {
        missing.push("a nightly toolchain: `rustup toolchain install nightly --profile minimal`");
    }
    if run::which("cargo-fuzz").is_none() {
        missing.push("cargo-fuzz: `cargo install cargo-fuzz --locked`");
    }
    ensure!(missing.is_empty(), "fuzzing needs missing tools:\n  {}", missing.join("\n  "));
    Ok(())
}

/// Uses `rustup run`: the cargo that runs this is the pinned one, which does not support `+nightly`.
fn cargo_fuzz() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).current_dir(run::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<(Vec<&'static str>, u32)> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_corpus_is_hexadecimal() {
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!((bytes("0"), bytes("0g"), bytes("")), (None, None, Some(Vec::new())));
        for target in TARGETS {
            let folder = unpack(target).unwrap();
            assert!(std::fs::read_dir(folder).unwrap().count() > 10, "{target}");
        }
    }

    #[test]
    fn targets_and_seconds_are_read() {
        assert_eq!(given("").unwrap(), (TARGETS.to_vec(), 60));
        assert_eq!(given("set --seconds 7 verdict").unwrap(), (vec!["set", "verdict"], 7));
        for wrong in ["nothing", "--seconds", "--seconds x", "--seconds 0"] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_targets_are_those_of_the_manifest() {
        let manifest = std::fs::read_to_string(run::root().join("host/fuzz/Cargo.toml")).unwrap();
        let named: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
        assert_eq!(named, TARGETS.map(|target| format!("{target}.rs\"")));
    }
}
