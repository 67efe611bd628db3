//! The API against its own description, from the command line; `cargo xtask openapi` builds what it needs and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

use std::process::ExitCode;

use setgate_tests::openapi::{self, Options};

const HELP: &str = "\
openapi --schemathesis PROGRAM [--examples N] [--seed S]

Calls every operation of a live host's /openapi.json with data that fits and data that does not, and checks each answer
against the document. Ends with a line of counts; not 0 where an answer is not as the document says, or a control found nothing.
  --examples N  calls of each operation and phase at the most; 15 where absent
  --seed S      the same seed makes the same calls; 1 where absent";

fn main() -> ExitCode {
    let options = match read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("error: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let report = runtime.block_on(Box::pin(openapi::run(&options)));
    for fault in &report.faults {
        println!("{fault}");
    }
    if !report.never.is_empty() {
        println!("never answered with success: {}", report.never.join(", "));
    }
    println!("{} seed={}", report.summary(), options.seed);
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { program: "schemathesis".into(), examples: 15, seed: 1 };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is no number for {argument}"));
        match argument.as_str() {
            "--schemathesis" => options.program = value()?.into(),
            "--examples" => options.examples = number(value()?)?,
            "--seed" => options.seed = number(value()?)?.into(),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok(Some(options))
}
