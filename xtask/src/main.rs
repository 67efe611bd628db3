//! `cargo xtask`: set-up and checks, the same locally and in CI.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

mod guests;
mod run;
mod toolchain;

use std::process::ExitCode;

use anyhow::{Result, ensure};

/// Name, one line of help, and what does it with the arguments after the name.
type Command = (&'static str, &'static str, fn(&[String]) -> Result<()>);

const COMMANDS: &[Command] =
    &[("guests", "build the example filters into target/filters; --help says more", guests::command)];

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
