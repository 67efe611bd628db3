//! `cargo xtask`: set-up and checks, the same locally and in CI.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]
#![allow(clippy::disallowed_methods, reason = "what is kept to few places is what the host reads, not what builds it")]

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
    ("test", "every check there is; --quick leaves out what seldom breaks", test::command),
    ("ci", "test, then `demo --once --json`", test::ci),
    ("fuzz", "run the fuzz targets, or one, for some seconds; --help says more", fuzz::command),
    ("hostile", "hostile filters against a live host with a quiet neighbour; --help says more", hostile::command),
    (
        "crash",
        "kill the host again and again under load: nothing accepted may be lost; --help says more",
        crash::command,
    ),
    ("bench", "what the host costs, against baselines of the same run; --help says more", bench::command),
    ("openapi", "call every operation of a live host as its description says; --help says more", openapi::command),
    ("guests", "build the example filters into target/filters; --help says more", guests::command),
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
