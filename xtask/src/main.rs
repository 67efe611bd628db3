//! `cargo xtask`: set-up and checks, the same locally and in CI.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]
#![allow(clippy::disallowed_methods, reason = "only the host must not read them in other places")]

mod bench;
mod clients;
mod crash;
mod demo;
mod fuzz;
mod guests;
mod host;
mod hostile;
mod openapi;
mod promtool;
mod run;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::{Result, ensure};

/// Name, one line of help, and the function that runs the command with the arguments after the name.
type Command = (&'static str, &'static str, fn(&[String]) -> Result<()>);

const COMMANDS: &[Command] = &[
    ("demo", "build everything, then watch events of five products go through filters to receivers", demo::command),
    ("test", "all checks; --quick skips those that rarely fail", test::command),
    ("ci", "test, then `demo --once --json`", test::ci),
    ("fuzz", "run the fuzz targets, or one, for some seconds; see --help", fuzz::command),
    ("hostile", "run hostile filters beside a well-behaved tenant; see --help", hostile::command),
    ("crash", "kill the host repeatedly under load: no accepted event may be lost; see --help", crash::command),
    ("bench", "measure the host against baselines of the same run; see --help", bench::command),
    ("openapi", "call every operation of a live host as described in OpenAPI; see --help", openapi::command),
    ("guests", "build the example filters into target/filters; see --help", guests::command),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &[String]) -> Result<()> {
    let name = arguments.first().map_or("help", String::as_str);
    if let Some((.., command)) = COMMANDS.iter().find(|(command, ..)| *command == name) {
        return command(&arguments[1..]);
    }
    println!("cargo xtask COMMAND\n");
    for (command, help, _) in COMMANDS {
        println!("  {command:<10} {help}");
    }
    ensure!(matches!(name, "help" | "--help" | "-h"), "there is no command `{name}`");
    Ok(())
}
