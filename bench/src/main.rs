//! Measures the host's costs as ratios to baselines from the same run. `cargo xtask bench` builds everything and runs
//! it; `bench/README.md` describes how each figure is measured.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

mod cores;
mod events;
mod fairness;
mod filter;
mod host;
mod jose;
mod ledger;
mod load;
mod machine;
mod path;
mod place;
mod process;
mod report;
mod scale;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use machine::Machine;
use report::{Report, Sheet};

/// The same allocator as in the host's own program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
bench [--quick | --full] [--only SECTION]... [--out FILE] [--compare OLD.json]

Measures the host in turns with baselines of the same run, and prints a table of the results and their targets.
  --quick             a smoke test; takes seconds, and the results mean nothing
  --full              also measure the long rows: 10,000 tenants, which are kept for the next run, 10 million events of history
  --only SECTION      measure only this section (filter, path, ledger, scale, fairness, jose); may be repeated
  --out FILE          write the JSON to this file
  --compare OLD.json  also print the differences from that run";

/// Duration of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A smoke test.
    Quick,
    /// Minutes.
    Default,
    /// Hours, including the long rows.
    Full,
}

impl Mode {
    /// Rounds per figure.
    pub(crate) fn rounds(self) -> usize {
        if self == Self::Quick { 1 } else { 3 }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Default => "default",
            Self::Full => "full",
        }
    }
}

const SECTIONS: [&str; 6] = ["filter", "path", "ledger", "scale", "fairness", "jose"];

struct Asked {
    mode: Mode,
    only: Vec<String>,
    out: Option<PathBuf>,
    compare: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let done = match arguments.as_slice() {
        // Started by a run as a separate process.
        [relay, to] if relay == "relay" => runtime.block_on(path::relay::run(to)),
        [help] if help == "--help" || help == "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        arguments => match read(arguments) {
            Ok(asked) => runtime.block_on(Box::pin(run(asked))),
            Err(why) => {
                eprintln!("error: {why}\n\n{HELP}");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(arguments: &[String]) -> anyhow::Result<Asked> {
    let mut asked = Asked { mode: Mode::Default, only: Vec::new(), out: None, compare: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => asked.mode = Mode::Quick,
            "--full" => asked.mode = Mode::Full,
            "--only" => {
                let section = value()?.clone();
                ensure!(SECTIONS.contains(&section.as_str()), "there is no section `{section}`, only {SECTIONS:?}");
                asked.only.push(section);
            }
            "--out" => asked.out = Some(value()?.into()),
            "--compare" => asked.compare = Some(value()?.into()),
            other => bail!("there is no option `{other}`"),
        }
    }
    Ok(asked)
}

async fn run(asked: Asked) -> anyhow::Result<()> {
    let old: Option<Report> = match &asked.compare {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
            Some(
                serde_json::from_str(&text)
                    .with_context(|| format!("{} is no report of this program", file.display()))?,
            )
        }
    };
    let begin = Instant::now();
    let machine = Machine::this();
    let mut sheet = Sheet::default();
    for section in SECTIONS {
        if !asked.only.is_empty() && !asked.only.iter().any(|only| only == section) {
            continue;
        }
        eprintln!("measuring: {section}");
        let section_begin = Instant::now();
        match section {
            "filter" => filter::measure(&mut sheet, asked.mode).await,
            "path" => path::measure(&mut sheet, asked.mode).await,
            "ledger" => ledger::measure(&mut sheet, asked.mode).await,
            "scale" => scale::measure(&mut sheet, asked.mode).await,
            "fairness" => fairness::measure(&mut sheet, asked.mode).await,
            "jose" => jose::measure(&mut sheet, asked.mode),
            other => bail!("{other} is not measured by anything"),
        }
        .with_context(|| format!("section `{section}`"))?;
        eprintln!("measured: {section}, in {:.1} s", section_begin.elapsed().as_secs_f64());
    }
    let Sheet { figures, targets } = sheet;
    let seconds = begin.elapsed().as_secs_f64();
    let report = Report { machine, mode: asked.mode.as_str().to_owned(), seconds, targets, figures };
    println!("{}", report.table());
    if let Some(old) = old {
        println!("since {}\n{}", asked.compare.unwrap_or_default().display(), report.since(&old));
    }
    if let Some(file) = asked.out {
        std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("written to {}", file.display());
    }
    Ok(())
}
