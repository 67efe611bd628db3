//! Tests the API against its own description; `cargo xtask openapi` builds everything and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use setgate_tests::openapi::clients::Generators;
use setgate_tests::openapi::{self, Options};

const HELP: &str = "\
openapi [--python FOLDER --node FOLDER] [--schemathesis PROGRAM] [--examples N] [--seed S]

With the two folders, openapi-python-client and openapi-typescript each generate a client from a live host's
/openapi.json, and each client runs the tutorial's flow. With schemathesis, calls every operation of the document with
valid and invalid data, and checks each answer against it. Prints a line of counts. Exits non-zero if an answer deviates
from the document, or if a control detects nothing.
  --examples N  maximum number of calls for each operation and phase (default 15)
  --seed S      seed of the generated calls (default 1)";

fn main() -> ExitCode {
    let Asked { generators, options } = match read(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
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
    if let Some(generators) = generators {
        let faults = runtime.block_on(Box::pin(openapi::clients::run(&generators)));
        for fault in &faults {
            println!("{fault}");
        }
        println!("clients={}/2", 2 - faults.len().min(2));
        if !faults.is_empty() {
            return ExitCode::FAILURE;
        }
    }
    let Some(options) = options else { return ExitCode::SUCCESS };
    let report = runtime.block_on(Box::pin(openapi::run(&options)));
    for fault in &report.faults {
        println!("{fault}");
    }
    if !report.never.is_empty() {
        println!("operations without a successful answer: {}", report.never.join(", "));
    }
    println!("{} seed={}", report.summary(), options.seed);
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The command line arguments.
struct Asked {
    generators: Option<Generators>,
    options: Option<Options>,
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
    let mut options = Options { program: PathBuf::new(), examples: 15, seed: 1 };
    let (mut python, mut node) = (None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is no number for {argument}"));
        match argument.as_str() {
            "--python" => python = Some(value()?.into()),
            "--node" => node = Some(value()?.into()),
            "--schemathesis" => options.program = value()?.into(),
            "--examples" => options.examples = number(value()?)?,
            "--seed" => options.seed = number(value()?)?.into(),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    let generators = python.zip(node).map(|(python, node)| Generators { python, node });
    let options = (!options.program.as_os_str().is_empty()).then_some(options);
    if generators.is_none() && options.is_none() {
        return Err("give `--python` and `--node`, or `--schemathesis`".to_owned());
    }
    Ok(Some(Asked { generators, options }))
}
