//! `cargo xtask test` and `cargo xtask ci`: all checks, each with its name, duration and command.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::{self, With};
use crate::run::{cargo, line, run, which};
use crate::{bench, demo, guests, promtool};

const HELP: &str = "\
cargo xtask test [--quick]

Runs all checks, the cheap ones first. Stops at the first failure and prints the command that repeats it.
  --quick  skip the checks that rarely fail: the filter toolchains, the documentation, cargo deny, cargo package";

/// `cargo xtask test` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    let mut quick = false;
    for argument in arguments {
        match argument.as_str() {
            "--quick" => quick = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            other => bail!("there is no option `{other}`\n\n{HELP}"),
        }
    }
    let mut steps = Steps::default();
    let result = all(&mut steps, quick);
    steps.print();
    result?;
    println!("all checks passed");
    Ok(())
}

/// `cargo xtask ci`: the tests, then the demo.
pub(crate) fn ci(arguments: &[String]) -> Result<()> {
    command(arguments)?;
    demo::command(&["--once".to_owned(), "--json".to_owned()])
}

fn all(steps: &mut Steps, quick: bool) -> Result<()> {
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps.cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    steps.step("filters", "cargo xtask guests", || guests::build_all().map(drop))?;
    // The end-to-end tests start this program; building both together compiles everything only once.
    steps.step("host", "cargo build --workspace --bin setgate --tests", || host::build(With::Tests).map(drop))?;
    if !quick {
        let setgate = host::program().display().to_string();
        let repeat = format!("cargo xtask guests --all-toolchains --check-with {setgate}");
        let arguments = ["--all-toolchains", "--check-with", &setgate].map(str::to_owned);
        steps.step("filters, every way", &repeat, || guests::command(&arguments))?;
    }
    // The host, the SDK, xtask, and the example filters compiled for this machine.
    steps.cargo("unit tests", &["test", "--workspace", "--lib", "--bins"])?;
    steps.cargo("documentation tests", &["test", "--workspace", "--doc"])?;
    match promtool::provide() {
        Ok(_) => {}
        Err(error) if std::env::var_os("SETGATE_REQUIRE_PROMTOOL").is_some() => return Err(error),
        Err(error) => {
            eprintln!("{error:#}");
            steps.leave_out("alerts", "promtool is not installed (`apt-get install prometheus`)");
        }
    }
    // Includes the layering test, the tutorial and the links of the documentation.
    steps.cargo("end-to-end tests", &["test", "--workspace", "--test", "it"])?;
    // Checks only that the bench runs; numbers from an unoptimised build are meaningless.
    steps.step("bench", "cargo xtask bench --quick", || bench::command(&["--quick".to_owned()]))?;
    if quick {
        return Ok(());
    }
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    steps.program("documentation", "RUSTDOCFLAGS='-D warnings' ", doc)?;
    match which("cargo-deny") {
        Some(_) => steps.cargo("dependencies", &["deny", "check", "bans", "licenses", "sources"])?,
        None => steps.leave_out("dependencies", "cargo deny is not installed (`cargo install cargo-deny --locked`)"),
    }
    steps.cargo("SDK package", &["package", "--package", "setgate-sdk", "--allow-dirty", "--quiet"])
}

/// The completed steps.
#[derive(Default)]
struct Steps(Vec<(&'static str, Outcome)>);

enum Outcome {
    Passed(Duration),
    Failed(Duration),
    LeftOut(&'static str),
}

impl Steps {
    fn cargo(&mut self, name: &'static str, arguments: &[&str]) -> Result<()> {
        let mut command = cargo();
        command.args(arguments);
        self.program(name, "", command)
    }

    /// Runs a program. `environment` is the prefix for repeating the command in a shell.
    fn program(&mut self, name: &'static str, environment: &str, mut command: Command) -> Result<()> {
        let repeat = format!("{environment}{}", line(&command));
        self.step(name, &repeat, || run(&mut command))
    }

    fn step(&mut self, name: &'static str, repeat: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("\n== {name}: {repeat}");
        let begin = Instant::now();
        let result = check();
        let time = begin.elapsed();
        self.0.push((name, if result.is_ok() { Outcome::Passed(time) } else { Outcome::Failed(time) }));
        result.with_context(|| format!("the step `{name}` failed; repeat it with\n  {repeat}\nbecause"))
    }

    fn leave_out(&mut self, name: &'static str, why: &'static str) {
        println!("\n== {name}: left out, {why}");
        self.0.push((name, Outcome::LeftOut(why)));
    }

    fn print(&self) {
        println!();
        for (name, outcome) in &self.0 {
            match outcome {
                Outcome::Passed(time) => println!("{name:<22} passed   {:>6.1} s", time.as_secs_f64()),
                Outcome::Failed(time) => println!("{name:<22} FAILED   {:>6.1} s", time.as_secs_f64()),
                Outcome::LeftOut(why) => println!("{name:<22} left out: {why}"),
            }
        }
    }
}
